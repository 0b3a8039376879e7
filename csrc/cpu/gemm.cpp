// The product of few rows: tiles of up to six input rows by four weight rows, accumulated in registers along k.
#include "cpu/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/simd.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kPad = 32;  // packed rows are a whole number of steps on every instruction set
constexpr int kTileOutputs = Product::kTileOutputs;

template <int kLanes>
struct Lanes {
  typedef float Float __attribute__((vector_size(4 * kLanes)));
  typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
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

// Bits of float16 numbers, one a lane, to float32.
template <int kLanes>
EAGLE_INLINE typename Lanes<kLanes>::Float halves_to_floats(typename Lanes<kLanes>::Short bits) {
  using Float = typename Lanes<kLanes>::Float;
#ifdef __x86_64__
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

// An fp8 number's bits, spread to the fields of a float16, are that number divided by 256 (the biases are 7 and 15),
// subnormals too: no table, no case, and what is missing goes into the scale.
constexpr float kFp8Factor = 256;
template <int kLanes>
EAGLE_INLINE Pair<kLanes> load_pair(const float8* p) {
  using Short = typename Lanes<kLanes>::Short;
  using Signed = typename Lanes<kLanes>::SignedShort;
  constexpr int16_t kFields = static_cast<int16_t>(0xbf80);  // a shift keeps the sign and copies it into the exponent
  const auto words = read<Signed>(p);
  return {halves_to_floats<kLanes>((Short)(words << 8 >> 1 & kFields)),
          halves_to_floats<kLanes>((Short)(words >> 1 & kFields))};
}

// Consecutive elements as even and odd ones.
template <int kLanes, int... i>
EAGLE_INLINE Pair<kLanes> split(const Pair<kLanes>& pair, std::integer_sequence<int, i...>) {
  return {__builtin_shufflevector(pair.first, pair.second, 2 * i...),
          __builtin_shufflevector(pair.first, pair.second, 2 * i + 1 ...)};
}

// The last elements of a row, zeros behind them; nothing past the row is read.
template <int kLanes, class T>
EAGLE_INLINE Pair<kLanes> load_rest(const T* p, int64_t count) {
  T padded[2 * kLanes] = {};
  std::memcpy(padded, p, count * sizeof(T));
  return load_pair<kLanes>(padded);
}

// An input row as the lanes of a weight want it: of its own type, or of fp8.
template <int kLanes, class T>
EAGLE_INLINE void convert_row(const T* row, int64_t inner, bool for_fp8, float* out) {
  for (int64_t k = 0; k < inner; k += 2 * kLanes) {
    auto pair = k + 2 * kLanes <= inner ? load_pair<kLanes>(row + k) : load_rest<kLanes>(row + k, inner - k);
    if constexpr (!std::is_same_v<T, bfloat16>)
      if (for_fp8) pair = split<kLanes>(pair, std::make_integer_sequence<int, kLanes>());
    std::memcpy(out + k, &pair, sizeof pair);
  }
}

// Lanes in groups of four: (a0, b0, a1, b1) and (a2, b2, a3, b3); likewise in pairs of lanes.
template <class V, int... i>
EAGLE_INLINE V add_interleaved(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 4 / 2 + i % 2 * n)...) +
         __builtin_shufflevector(a, b, (i / 4 * 4 + i % 4 / 2 + i % 2 * n + 2)...);
}
template <class V, int... i>
EAGLE_INLINE V add_interleaved_pairs(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 2 + i % 4 / 2 * n)...) +
         __builtin_shufflevector(a, b, (i / 4 * 4 + i % 2 + i % 4 / 2 * n + 2)...);
}

// Four accumulators to their four sums, each by the same tree.
template <int kLanes>
EAGLE_INLINE void store_sums(const typename Lanes<kLanes>::Float* acc, float* out) {
  constexpr auto lanes = std::make_integer_sequence<int, kLanes>();
  const auto groups =
      add_interleaved_pairs(add_interleaved(acc[0], acc[1], lanes), add_interleaved(acc[2], acc[3], lanes), lanes);
  if constexpr (kLanes == 4) {
    std::memcpy(out, &groups, 16);
  } else {
    using Quarter = typename Lanes<4>::Float;
    Quarter part[kLanes / 4];
    std::memcpy(part, &groups, sizeof part);
    Quarter sum;
    if constexpr (kLanes == 8) sum = part[0] + part[1];
    if constexpr (kLanes == 16) sum = (part[0] + part[2]) + (part[1] + part[3]);
    std::memcpy(out, &sum, 16);
  }
}

template <int kLanes, int kRows>
using Accumulators = typename Lanes<kLanes>::Float[kRows][kTileOutputs];

template <int kLanes, int kRows>
EAGLE_INLINE void accumulate(Accumulators<kLanes, kRows>& acc, const float* x, int64_t stride,
                             const Pair<kLanes>* weight) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const auto value = read<typename Lanes<kLanes>::Float>(x + r * stride);
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) acc[r][t] += value * weight[t].first;
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const auto value = read<typename Lanes<kLanes>::Float>(x + r * stride + kLanes);
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) acc[r][t] += value * weight[t].second;
  }
}

// Memory to be read soon, asked for a step at a time (at once it would delay what is read now), into the second-level
// cache.
struct Fetch {
  const char* next;
  int64_t step;

  EAGLE_INLINE void advance() {
    for (const char* end = next + step; next < end; next += 64) __builtin_prefetch(next, 0, 2);
  }
};

// kRows packed input rows times four weight rows.
template <int kLanes, int kRows, class T>
EAGLE_INLINE void multiply_tile(const float* x, int64_t stride, const T* const* weight, int64_t inner, Fetch fetch,
                                float* out) {
  Accumulators<kLanes, kRows> acc;
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) acc[r][t] = typename Lanes<kLanes>::Float{};
  Pair<kLanes> w[kTileOutputs];
  int64_t k = 0;
  for (; k + 2 * kLanes <= inner; k += 2 * kLanes) {
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) w[t] = load_pair<kLanes>(weight[t] + k);
    fetch.advance();
    accumulate<kLanes, kRows>(acc, x + k, stride, w);
  }
  if (k < inner) {
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) w[t] = load_rest<kLanes>(weight[t] + k, inner - k);
    accumulate<kLanes, kRows>(acc, x + k, stride, w);
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) store_sums<kLanes>(acc[r], out + r * Product::kMaxBlock);
}

struct Inputs {
  const float* data;
  int64_t rows, stride, inner;
};

template <int kLanes>
constexpr int kTileRows = kLanes == 16 ? 6 : 3;  // 24 accumulators of 32 registers, or 12 of 16

template <int kLanes, class T>
EAGLE_INLINE void multiply_rows(const Inputs& in, int64_t row, int64_t rows, const T* const* tile, Fetch fetch,
                                float* out) {
  const float* x = in.data + row * in.stride;
  float* to = out + row * Product::kMaxBlock;
  switch (rows) {
    case 1:
      return multiply_tile<kLanes, 1>(x, in.stride, tile, in.inner, fetch, to);
    case 2:
      return multiply_tile<kLanes, 2>(x, in.stride, tile, in.inner, fetch, to);
    case 3:
      return multiply_tile<kLanes, 3>(x, in.stride, tile, in.inner, fetch, to);
  }
  if constexpr (kTileRows<kLanes> > 3) {
    switch (rows) {
      case 4:
        return multiply_tile<kLanes, 4>(x, in.stride, tile, in.inner, fetch, to);
      case 5:
        return multiply_tile<kLanes, 5>(x, in.stride, tile, in.inner, fetch, to);
      case 6:
        return multiply_tile<kLanes, 6>(x, in.stride, tile, in.inner, fetch, to);
    }
  }
}

// All input rows pass over four weight rows while the next four are fetched, a few lines at each step.
template <int kLanes, class T>
EAGLE_INLINE void multiply_block(const Inputs& in, const T* weight, int64_t outputs, float* out) {
  const int64_t tiles = (in.rows + kTileRows<kLanes> - 1) / kTileRows<kLanes>;
  const int64_t fetch_step = kTileOutputs * 2 * kLanes * static_cast<int64_t>(sizeof(T)) / tiles;
  const int64_t fetch_tile = kTileOutputs * in.inner * static_cast<int64_t>(sizeof(T)) / tiles;
  for (int64_t o = 0; o < outputs; o += kTileOutputs) {
    const T* tile[kTileOutputs];
    for (int t = 0; t < kTileOutputs; ++t) tile[t] = weight + std::min(o + t, outputs - 1) * in.inner;
    const char* next = reinterpret_cast<const char*>(weight + (o + kTileOutputs) * in.inner);
    for (int64_t i = 0; i < tiles; ++i) {  // even tiles: 8 rows are 4 + 4, not 6 + 2
      const int64_t row = in.rows * i / tiles, rows = in.rows * (i + 1) / tiles - row;
      multiply_rows<kLanes>(in, row, rows, tile, {next + i * fetch_tile, fetch_step}, out + o);
    }
  }
}

// What one instruction set offers.
struct Kernels {
  void (*convert)(DType dtype, const void* row, int64_t inner, bool for_fp8, float* out);
  void (*multiply)(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out);
};

template <int kLanes>
EAGLE_INLINE void convert_any(DType dtype, const void* row, int64_t inner, bool for_fp8, float* out) {
  switch (dtype) {
    case DType::kFloat32:
      return convert_row<kLanes>(static_cast<const float*>(row), inner, for_fp8, out);
    case DType::kFloat16:
      return convert_row<kLanes>(static_cast<const float16*>(row), inner, for_fp8, out);
    case DType::kBFloat16:
      return convert_row<kLanes>(static_cast<const bfloat16*>(row), inner, for_fp8, out);
  }
}

template <int kLanes, class T>
EAGLE_INLINE void multiply_typed(const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out) {
  multiply_block<kLanes>(in, static_cast<const T*>(weight.data) + begin * in.inner, end - begin, out);
}

EAGLE_INLINE void scale_block(const float* scale, int64_t rows, int64_t outputs, float* out) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) out[r * Product::kMaxBlock + o] *= kFp8Factor * scale[o];
}

template <int kLanes>
EAGLE_INLINE void multiply_any(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end,
                               float* out) {
  if (weight.scale) {
    multiply_typed<kLanes, float8>(in, weight, begin, end, out);
    return scale_block(weight.scale + begin, in.rows, end - begin, out);
  }
  switch (dtype) {
    case DType::kFloat32:
      return multiply_typed<kLanes, float>(in, weight, begin, end, out);
    case DType::kFloat16:
      return multiply_typed<kLanes, float16>(in, weight, begin, end, out);
    case DType::kBFloat16:
      return multiply_typed<kLanes, bfloat16>(in, weight, begin, end, out);
  }
}

#define EAGLE_KERNELS(name, lanes, ...)                                                                             \
  __VA_ARGS__ void convert_##name(DType dtype, const void* row, int64_t inner, bool for_fp8, float* out) {          \
    convert_any<lanes>(dtype, row, inner, for_fp8, out);                                                            \
  }                                                                                                                 \
  __VA_ARGS__ void multiply_##name(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end, \
                                   float* out) {                                                                    \
    multiply_any<lanes>(dtype, in, weight, begin, end, out);                                                        \
  }                                                                                                                 \
  constexpr Kernels name##_kernels{convert_##name, multiply_##name};

EAGLE_KERNELS(baseline, 4, )
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
EAGLE_KERNELS(avx2, 8, __attribute__((target("arch=x86-64-v3"))))
EAGLE_KERNELS(avx512, 16, __attribute__((target("arch=x86-64-v4"))))

const Kernels& kernels() {
  static const Kernels& best = __builtin_cpu_supports("x86-64-v4")   ? avx512_kernels
                               : __builtin_cpu_supports("x86-64-v3") ? avx2_kernels
                                                                     : baseline_kernels;
  return best;
}
#else
const Kernels& kernels() { return baseline_kernels; }
#endif

}  // namespace

void Product::Free::operator()(float* p) const { std::free(p); }

Product::Product(DType dtype, const Weight& weight, int64_t rows, int64_t inner)
    : dtype_(dtype),
      weight_(weight),
      rows_(rows),
      inner_(inner),
      stride_((inner + kPad - 1) / kPad * kPad),
      packed_(static_cast<float*>(std::aligned_alloc(64, std::max<int64_t>(rows * stride_, 16) * sizeof(float)))) {}

void Product::set_row(int64_t row, const void* input) {
  kernels().convert(dtype_, input, inner_, weight_.scale != nullptr, packed_.get() + row * stride_);
}

void Product::multiply(int64_t begin, int64_t end, ProductBlock& block) const {
  kernels().multiply(dtype_, {packed_.get(), rows_, stride_, inner_}, weight_, begin, end, block.values);
}

}  // namespace eagle::cpu
