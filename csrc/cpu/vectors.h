// Vectors of as many lanes as an instruction set has: their types, and elements loaded two vectors at a time.
#pragma once
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/simd.h"

namespace eagle::cpu {

template <int kLanes>
struct Lanes {
  typedef float Float __attribute__((vector_size(4 * kLanes)));
  typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
  typedef int32_t Integer __attribute__((vector_size(4 * kLanes)));
  typedef uint16_t Short __attribute__((vector_size(2 * kLanes)));
  typedef int16_t SignedShort __attribute__((vector_size(2 * kLanes)));
};

template <int kLanes>
struct Pair {
  typename Lanes<kLanes>::Float first, second;
};

template <class To, class T>
EAGLE_INLINE To read(const T* p) {
  To value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T, class V>
EAGLE_INLINE void write(T* p, V value) {
  std::memcpy(p, &value, sizeof value);
}

template <int kLanes>
constexpr auto kEachLane = std::make_integer_sequence<int, kLanes>();

// A shuffle, for the reason that splat is one.
template <class Float, int... i>
EAGLE_INLINE Float broadcast(float x, std::integer_sequence<int, i...>) {
  const Float first = {x};
  return __builtin_shufflevector(first, first, (i * 0)...);
}

// sum + a * b, in sum's register: of the forms of the instruction, GCC picks some that move sums to and fro. Elsewhere
// in one expression: Clang fuses no product with a sum of another function, and chains must round alike everywhere.
template <int kLanes, class Float = typename Lanes<kLanes>::Float>
EAGLE_INLINE Float multiply_add(Float sum, Float a, Float b) {
#ifdef EAGLE_X86_LEVELS
  if constexpr (kLanes > 4) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
#endif
  return sum + a * b;
}

// The upper halves of words, by a mask in memory: for where every register is taken.
template <int kLanes, class Word = typename Lanes<kLanes>::Word>
EAGLE_INLINE Word upper_halves(Word words) {
  alignas(64) static constexpr uint32_t kMask[] = {~0xffffu, ~0xffffu, ~0xffffu, ~0xffffu,
                                                   ~0xffffu, ~0xffffu, ~0xffffu, ~0xffffu};
#ifdef EAGLE_X86_LEVELS
  if constexpr (kLanes == 8) {
    asm("vpand %1, %0, %0" : "+x"(words) : "m"(kMask));
    return words;
  }
#endif
  return words & kMask[0];
}

// sum + a . b for the pairs of bfloat16 in each lane; subnormal numbers count as zero. Only with AVX-512 BF16.
template <class V>
EAGLE_INLINE Lanes<16>::Float add_dots(Lanes<16>::Float sum, V a, V b) {
#ifdef EAGLE_X86_LEVELS
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#endif
  return sum;
}

typedef uint8_t Bytes64 __attribute__((vector_size(64)));

// table[index % 128] in each lane. Only with AVX-512 VBMI.
EAGLE_INLINE Bytes64 look_up(const uint8_t (&table)[128], Bytes64 index) {
#ifdef EAGLE_X86_LEVELS
  asm("vpermi2b %2, %1, %0" : "+v"(index) : "v"(read<Bytes64>(table)), "v"(read<Bytes64>(table + 64)));
#endif
  return index;
}

// Lanes of 16 bits to 32, zeros above: GCC would convert halves of a vector and join them.
template <int kLanes>
EAGLE_INLINE typename Lanes<kLanes>::Word to_words(typename Lanes<kLanes>::Short bits) {
  using Word = typename Lanes<kLanes>::Word;
#ifdef EAGLE_X86_LEVELS
  if constexpr (kLanes > 4) {
    Word words;
    asm("vpmovzxwd %1, %0" : "=v"(words) : "vm"(bits));
    return words;
  }
#endif
  return __builtin_convertvector(bits, Word);
}

// Bits of float16 numbers, one a lane, to float32.
template <int kLanes>
EAGLE_INLINE typename Lanes<kLanes>::Float halves_to_floats(typename Lanes<kLanes>::Short bits) {
  using Float = typename Lanes<kLanes>::Float;
#ifdef EAGLE_X86_LEVELS
  if constexpr (kLanes > 4) {  // GCC would convert _Float16 vectors lane by lane
    Float value;
    asm("vcvtph2ps %1, %0" : "=v"(value) : "vm"(bits));
    return value;
  }
#endif
  return half_bits_to_float<Float>(__builtin_convertvector(bits, typename Lanes<kLanes>::Word));
}

// The next 2 * kLanes elements as float32. Which vector holds which element is free, as long as inputs and weights
// agree: bfloat16 and fp8 split into even and odd elements, which needs no moves between lanes.
template <int kLanes>
EAGLE_INLINE Pair<kLanes> load_pair(const float* p) {
  using Float = typename Lanes<kLanes>::Float;
  return {read<Float>(p), read<Float>(p + kLanes)};
}
template <int kLanes>
EAGLE_INLINE Pair<kLanes> load_pair(const bfloat16* p) {
  using Float = typename Lanes<kLanes>::Float;
  const auto words = read<typename Lanes<kLanes>::Word>(p);
  return {(Float)(words << 16), (Float)(words & 0xffff0000u)};
}
template <int kLanes>
EAGLE_INLINE Pair<kLanes> load_pair(const float16* p) {
  using Short = typename Lanes<kLanes>::Short;
  return {halves_to_floats<kLanes>(read<Short>(p)), halves_to_floats<kLanes>(read<Short>(p + kLanes))};
}

// What load_pair<T> split, element by element again.
template <class T, int kLanes, int... i>
EAGLE_INLINE Pair<kLanes> in_order(const Pair<kLanes>& pair, std::integer_sequence<int, i...>) {
  if constexpr (!std::is_same_v<T, bfloat16>) return pair;
  return {__builtin_shufflevector(pair.first, pair.second, (i / 2 + i % 2 * kLanes)...),
          __builtin_shufflevector(pair.first, pair.second, (kLanes / 2 + i / 2 + i % 2 * kLanes)...)};
}

}  // namespace eagle::cpu
