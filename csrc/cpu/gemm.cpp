// The product of few rows: how inputs are packed, and the instruction set that multiplies.
#include "cpu/gemm.h"

#include <algorithm>
#include <cstdlib>

#include "cpu/gemm_block.h"
#include "cpu/level.h"

namespace eagle::cpu {
namespace {

// What one instruction set offers.
struct Kernels {
  void (*pack)(DType dtype, const void* row, bool for_fp8, const Inputs& to, int64_t index);
  void (*multiply)(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out);
};

template <class Step, class T>
EAGLE_INLINE void pack_as(const void* row, const Inputs& to, int64_t index) {
  constexpr int64_t kWidth = Step::kWidth;
  const RowTiles<Step> tiles{to.rows};
  const int64_t tile = tiles.of(index), first = tiles.begin(tile), rows = tiles.begin(tile + 1) - first;
  auto* packed = reinterpret_cast<typename Step::Packed*>(to.data) + first * to.padded();
  Step::pack(static_cast<const T*>(row), to.inner, packed + (index - first) * kWidth, rows * kWidth);
}

// BFloat16Step: what multiplies bfloat16 by bfloat16; everything else goes by fused multiply-adds.
template <int kLanes, class BFloat16Step>
EAGLE_INLINE void pack_any(DType dtype, const void* row, bool for_fp8, const Inputs& to, int64_t index) {
  using Fp8Step = FusedStep<kLanes, float8>;
  switch (dtype) {
    case DType::kFloat32:
      if (for_fp8) return pack_as<Fp8Step, float>(row, to, index);
      return pack_as<FusedStep<kLanes, float>, float>(row, to, index);
    case DType::kFloat16:
      if (for_fp8) return pack_as<Fp8Step, float16>(row, to, index);
      return pack_as<FusedStep<kLanes, float16>, float16>(row, to, index);
    case DType::kBFloat16:
      if (for_fp8) return pack_as<typename BFloat16Step::ForFp8, bfloat16>(row, to, index);
      return pack_as<BFloat16Step, bfloat16>(row, to, index);
  }
}

// With fp8 weights, each output times its scale.
template <class Step>
EAGLE_INLINE void multiply_scaled(const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out) {
  multiply_block<Step>(in, weight, begin, end, out);
  for (int64_t r = 0; r < in.rows; ++r)
    for (int64_t o = begin; o < end; ++o) out[r * Product::kMaxBlock + o - begin] *= Step::kFactor * weight.scale[o];
}

template <int kLanes, class BFloat16Step>
EAGLE_INLINE void multiply_any(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end,
                               float* out) {
  if (weight.scale && dtype == DType::kBFloat16)
    return multiply_scaled<typename BFloat16Step::ForFp8>(in, weight, begin, end, out);
  if (weight.scale) return multiply_scaled<FusedStep<kLanes, float8>>(in, weight, begin, end, out);
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
  __VA_ARGS__ void pack_##name(DType dtype, const void* row, bool for_fp8, const Inputs& to, int64_t index) {       \
    pack_any<BFloat16Step::kLanes, BFloat16Step>(dtype, row, for_fp8, to, index);                                   \
  }                                                                                                                 \
  __VA_ARGS__ void multiply_##name(DType dtype, const Inputs& in, const Weight& weight, int64_t begin, int64_t end, \
                                   float* out) {                                                                    \
    multiply_any<BFloat16Step::kLanes, BFloat16Step>(dtype, in, weight, begin, end, out);                           \
  }                                                                                                                 \
  constexpr Kernels name##_kernels{pack_##name, multiply_##name};

EAGLE_KERNELS(baseline, Baseline, )
#ifdef EAGLE_X86_LEVELS
EAGLE_KERNELS(avx2, Avx2, __attribute__((target("arch=x86-64-v3"))))
EAGLE_KERNELS(avx512, Avx512, __attribute__((target("arch=x86-64-v4"))))
EAGLE_KERNELS(avx512_bf16, DotStep, __attribute__((target("arch=x86-64-v4,avx512bf16,avx512vbmi"))))

const Kernels& kernels() {
  static const Kernels& best = *at_level(&baseline_kernels, &avx2_kernels, &avx512_kernels, &avx512_bf16_kernels);
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
      packed_(
          static_cast<float*>(std::aligned_alloc(64, rows * Inputs{nullptr, rows, inner}.padded() * sizeof(float)))) {}

void Product::set_row(int64_t row, const void* input) {
  kernels().pack(dtype_, input, weight_.scale != nullptr, {packed_.get(), rows_, inner_}, row);
}

void Product::multiply(int64_t begin, int64_t end, ProductBlock& block) const {
  kernels().multiply(dtype_, {packed_.get(), rows_, inner_}, weight_, begin, end, block.values);
}

}  // namespace eagle::cpu
