// Logits with their tokens as integers of the same order, so that selection works on integers alone.
#pragma once
#include "cuda/element.cuh"

namespace eagle::cuda {

// Monotone in x; -0 equals +0.
__device__ inline uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ (static_cast<int32_t>(bits) < 0 ? 0xffffffffu : 0x80000000u);
}

__device__ inline float from_ordered(uint32_t key) {
  return __uint_as_float(key ^ (static_cast<int32_t>(key) < 0 ? 0x80000000u : 0xffffffffu));
}

// A score with its token as one integer: ordered by score, then by lowest token; 0 is below all.
__device__ inline uint64_t pack(float score, int64_t token) {
  return static_cast<uint64_t>(ordered(score)) << 32 | static_cast<uint32_t>(~token);
}
__device__ inline int32_t packed_token(uint64_t packed) { return static_cast<int32_t>(~static_cast<uint32_t>(packed)); }

// Low bits of ordered(x) that are constant for every x >= 0, and for every x < 0, of the type.
template <class T>
constexpr int kConstantBits = 0;
template <>
constexpr int kConstantBits<__nv_bfloat16> = 16;
template <>
constexpr int kConstantBits<__half> = 13;

// A plain function: inside a template the host compiler would look for the intrinsic.
__device__ inline int bit_width(int64_t x) { return 64 - __clzll(x); }

enum class Ties { kLowestToken, kHighestToken };

// Ordinals (logit, token) of one row: the logit's key in the high bits, the token below it.
template <class T, Ties kTies>
struct RowOrdinals {
  int token_bits;
  uint64_t token_mask;

  __device__ explicit RowOrdinals(int64_t vocabulary)
      : token_bits(bit_width(vocabulary)), token_mask((uint64_t{1} << token_bits) - 1) {}

  __device__ static uint32_t key(float x) { return ordered(x) >> kConstantBits<T>; }

  __device__ uint64_t of(float x, int64_t token) const {
    return lowest(key(x)) | (kTies == Ties::kLowestToken ? token_mask - token : token);
  }

  // Bounds of all ordinals with a key.
  __device__ uint64_t lowest(uint64_t key) const { return key << token_bits; }
  __device__ uint64_t highest(uint64_t key) const { return lowest(key) | token_mask; }

  __device__ float logit(uint64_t ordinal) const {
    const uint32_t key = static_cast<uint32_t>(ordinal >> token_bits) << kConstantBits<T>;
    const uint32_t constant = (1u << kConstantBits<T>)-1;
    return from_ordered(static_cast<int32_t>(key) < 0 ? key : key | constant);
  }
  __device__ int32_t token(uint64_t ordinal) const {
    const uint64_t low = ordinal & token_mask;
    return static_cast<int32_t>(kTies == Ties::kLowestToken ? token_mask - low : low);
  }
};

}  // namespace eagle::cuda
