// The instruction sets that kernels are compiled for, and the one that this processor runs.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EAGLE_X86_LEVELS
#endif

namespace eagle::cpu {

// kAvx512Bf16: AVX-512 with dot products of bfloat16 (BF16) and tables of bytes (VBMI)
enum class Level { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

inline Level level() {
#ifdef EAGLE_X86_LEVELS
  static const Level found = [] {
    if (!__builtin_cpu_supports("x86-64-v3")) return Level::kBaseline;
    if (!__builtin_cpu_supports("x86-64-v4")) return Level::kAvx2;
    const bool dots = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
    return dots ? Level::kAvx512Bf16 : Level::kAvx512;
  }();
  return found;
#else
  return Level::kBaseline;
#endif
}

inline const char* level_name() {
  constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512_bf16"};
  return kNames[static_cast<int>(level())];
}

// One of what there is for each level.
template <class T>
T at_level(T baseline, T avx2, T avx512, T avx512_bf16) {
  const T each[] = {baseline, avx2, avx512, avx512_bf16};
  return each[static_cast<int>(level())];
}

}  // namespace eagle::cpu

// Defines `name`, which runs name##_at<lanes of a vector>, compiled for the processor's level. That template and what
// it calls are EAGLE_INLINE. parameters, arguments: in parentheses
#ifdef EAGLE_X86_LEVELS
#define EAGLE_AT_EACH_LEVEL(name, parameters, arguments)                                               \
  void name##_baseline parameters { name##_at<4> arguments; }                                          \
  __attribute__((target("arch=x86-64-v3"))) void name##_avx2 parameters { name##_at<8> arguments; }    \
  __attribute__((target("arch=x86-64-v4"))) void name##_avx512 parameters { name##_at<16> arguments; } \
  void name parameters {                                                                               \
    static const auto best = at_level(name##_baseline, name##_avx2, name##_avx512, name##_avx512);     \
    best arguments;                                                                                    \
  }
#else
#define EAGLE_AT_EACH_LEVEL(name, parameters, arguments) \
  void name parameters { name##_at<4> arguments; }
#endif
