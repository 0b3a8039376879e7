// The product of few rows: tiles of up to six input rows by four weight rows, accumulated in registers along k.
#include "cpu/gemm.h"

#include <algorithm>
#include <cstdlib>

#include "cpu/gemm_step.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kPad = 32;  // packed rows are a whole number of steps on every instruction set
constexpr int kTileOutputs = Product::kTileOutputs;
constexpr int64_t kFetchedAhead = 8 << 10;  // bytes at least, unless rows are long: a memory's latency of reading

// Memory to be read soon, asked for a step at a time: at once it would delay what is read now.
struct Fetch {
  const char* next;
  int64_t step;

  EAGLE_INLINE void advance() {
    for (const char* end = next + step; next < end; next += 64) __builtin_prefetch(next);
  }
};

// kRows packed input rows times four weight rows.
template <class Step, int kRows>
EAGLE_INLINE void multiply_tile(const typename Step::Packed* x, int64_t stride,
                                const typename Step::Element* const* weight, int64_t inner, Fetch fetch, float* out) {
  constexpr int kWidth = 2 * Step::kLanes;  // elements of a step
  Accumulators<Step::kLanes, kRows> acc;
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) acc[r][t] = typename Lanes<Step::kLanes>::Float{};
  typename Step::Weight w[kTileOutputs];
  int64_t k = 0;
  for (; k + kWidth <= inner; k += kWidth) {
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) w[t] = Step::load(weight[t] + k);
    fetch.advance();
    Step::template accumulate<kRows>(acc, x + k, stride, w);
  }
  if (k < inner) {
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t) {
      typename Step::Element rest[kWidth] = {};  // nothing past the row is read
      std::memcpy(rest, weight[t] + k, (inner - k) * sizeof rest[0]);
      w[t] = Step::load(rest);
    }
    Step::template accumulate<kRows>(acc, x + k, stride, w);
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) store_sums<Step::kLanes>(acc[r], out + r * Product::kMaxBlock);
}

struct Inputs {
  const float* data;  // or bfloat16, packed twice as densely
  int64_t rows, stride, inner;
};

template <int kLanes>
constexpr int kTileRows = kLanes == 16 ? 6 : 3;  // 24 accumulators of 32 registers, or 12 of 16

template <class Step>
EAGLE_INLINE void multiply_rows(const Inputs& in, int64_t row, int64_t rows, const typename Step::Element* const* tile,
                                Fetch fetch, float* out) {
  const auto* x = reinterpret_cast<const typename Step::Packed*>(in.data) + row * in.stride;
  float* to = out + row * Product::kMaxBlock;
  switch (rows) {
    case 1:
      return multiply_tile<Step, 1>(x, in.stride, tile, in.inner, fetch, to);
    case 2:
      return multiply_tile<Step, 2>(x, in.stride, tile, in.inner, fetch, to);
    case 3:
      return multiply_tile<Step, 3>(x, in.stride, tile, in.inner, fetch, to);
  }
  if constexpr (kTileRows<Step::kLanes> > 3) {
    switch (rows) {
      case 4:
        return multiply_tile<Step, 4>(x, in.stride, tile, in.inner, fetch, to);
      case 5:
        return multiply_tile<Step, 5>(x, in.stride, tile, in.inner, fetch, to);
      case 6:
        return multiply_tile<Step, 6>(x, in.stride, tile, in.inner, fetch, to);
    }
  }
}

// All input rows pass over four weight rows while four of the next are fetched, a few lines at each step.
template <class Step>
EAGLE_INLINE void multiply_block(const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out) {
  using T = typename Step::Element;
  const T* first = static_cast<const T*>(weight.data) + begin * in.inner;
  const int64_t outputs = end - begin, tiles = (in.rows + kTileRows<Step::kLanes> - 1) / kTileRows<Step::kLanes>;
  const int64_t fetch_step = kTileOutputs * 2 * Step::kLanes * static_cast<int64_t>(sizeof(T)) / tiles;
  const int64_t tile_bytes = kTileOutputs * in.inner * static_cast<int64_t>(sizeof(T)), fetch_tile = tile_bytes / tiles;
  const int64_t ahead = tile_bytes <= kFetchedAhead ? 2 * kTileOutputs : kTileOutputs;
  for (int64_t o = 0; o < outputs; o += kTileOutputs) {
    const T* tile[kTileOutputs];
    for (int t = 0; t < kTileOutputs; ++t) tile[t] = first + std::min(o + t, outputs - 1) * in.inner;
    const char* next = reinterpret_cast<const char*>(first + (o + ahead) * in.inner);
    for (int64_t i = 0; i < tiles; ++i) {  // even tiles: 8 rows are 4 + 4, not 6 + 2
      const int64_t row = in.rows * i / tiles, rows = in.rows * (i + 1) / tiles - row;
      multiply_rows<Step>(in, row, rows, tile, {next + i * fetch_tile, fetch_step}, out + o);
    }
  }
}

// What one instruction set offers. `offset`: where the row goes, in elements of what rows are packed as.
struct Kernels {
  void (*pack)(DType dtype, const void* row, int64_t inner, bool for_fp8, float* packed, int64_t offset);
  void (*multiply)(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out);
};

template <class Step, class T>
EAGLE_INLINE void pack_as(const void* row, int64_t inner, float* packed, int64_t offset) {
  Step::pack(static_cast<const T*>(row), inner, reinterpret_cast<typename Step::Packed*>(packed) + offset);
}

// BFloat16Step: what multiplies bfloat16 by bfloat16; everything else goes by fused multiply-adds.
template <int kLanes, class BFloat16Step>
EAGLE_INLINE void pack_any(DType dtype, const void* row, int64_t inner, bool for_fp8, float* packed, int64_t offset) {
  using Fp8Step = FusedStep<kLanes, float8>;
  switch (dtype) {
    case DType::kFloat32:
      if (for_fp8) return pack_as<Fp8Step, float>(row, inner, packed, offset);
      return pack_as<FusedStep<kLanes, float>, float>(row, inner, packed, offset);
    case DType::kFloat16:
      if (for_fp8) return pack_as<Fp8Step, float16>(row, inner, packed, offset);
      return pack_as<FusedStep<kLanes, float16>, float16>(row, inner, packed, offset);
    case DType::kBFloat16:
      if (for_fp8) return pack_as<Fp8Step, bfloat16>(row, inner, packed, offset);
      return pack_as<BFloat16Step, bfloat16>(row, inner, packed, offset);
  }
}

EAGLE_INLINE void scale_block(const float* scale, int64_t rows, int64_t outputs, float* out) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) out[r * Product::kMaxBlock + o] *= kFp8Factor * scale[o];
}

template <int kLanes, class BFloat16Step>
EAGLE_INLINE void multiply_any(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end,
                               float* out) {
  if (weight.scale) {
    multiply_block<FusedStep<kLanes, float8>>(in, weight, begin, end, out);
    return scale_block(weight.scale + begin, in.rows, end - begin, out);
  }
  switch (dtype) {
    case DType::kFloat32:
      return multiply_block<FusedStep<kLanes, float>>(in, weight, begin, end, out);
    case DType::kFloat16:
      return multiply_block<FusedStep<kLanes, float16>>(in, weight, begin, end, out);
    case DType::kBFloat16:
      return multiply_block<BFloat16Step>(in, weight, begin, end, out);
  }
}

using Baseline = FusedStep<4, bfloat16>;
using Avx2 = FusedStep<8, bfloat16>;
using Avx512 = FusedStep<16, bfloat16>;

#define EAGLE_KERNELS(name, BFloat16Step, ...)                                                                      \
  __VA_ARGS__ void pack_##name(DType dtype, const void* row, int64_t inner, bool for_fp8, float* packed,            \
                               int64_t offset) {                                                                    \
    pack_any<BFloat16Step::kLanes, BFloat16Step>(dtype, row, inner, for_fp8, packed, offset);                       \
  }                                                                                                                 \
  __VA_ARGS__ void multiply_##name(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end, \
                                   float* out) {                                                                    \
    multiply_any<BFloat16Step::kLanes, BFloat16Step>(dtype, in, weight, begin, end, out);                           \
  }                                                                                                                 \
  constexpr Kernels name##_kernels{pack_##name, multiply_##name};

EAGLE_KERNELS(baseline, Baseline, )
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
EAGLE_KERNELS(avx2, Avx2, __attribute__((target("arch=x86-64-v3"))))
EAGLE_KERNELS(avx512, Avx512, __attribute__((target("arch=x86-64-v4"))))
EAGLE_KERNELS(avx512_bf16, DotStep, __attribute__((target("arch=x86-64-v4,avx512bf16"))))

const Kernels& kernels() {
  static const Kernels& best = __builtin_cpu_supports("avx512bf16")  ? avx512_bf16_kernels
                               : __builtin_cpu_supports("x86-64-v4") ? avx512_kernels
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
  kernels().pack(dtype_, input, inner_, weight_.scale != nullptr, packed_.get(), row * stride_);
}

void Product::multiply(int64_t begin, int64_t end, ProductBlock& block) const {
  kernels().multiply(dtype_, {packed_.get(), rows_, stride_, inner_}, weight_, begin, end, block.values);
}

}  // namespace eagle::cpu
