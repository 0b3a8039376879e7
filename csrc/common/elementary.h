// exp, log and the noise distributions in fp32 without fused operations: the same bits on every machine.
#pragma once
#include "common/lanes.h"

namespace eagle {

template <class L>
EAGLE_HOST_DEVICE typename L::Float polynomial_step(typename L::Float sum, typename L::Float x, float coefficient) {
  return L::add(L::mul(sum, x), L::of(coefficient));
}

// exp(x) for x <= 88; 0 below -87. Cephes' reduction and polynomial, 2 ulp.
template <class L>
EAGLE_HOST_DEVICE typename L::Float exp(typename L::Float x) {
  using Float = typename L::Float;
  const typename L::Int vanishes = L::less(x, L::of(-87.0f));
  x = L::select(vanishes, L::of(-87.0f), x);
  const Float round = L::of(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Float n = L::add(L::add(L::mul(x, L::of(1.44269504088896341f)), round), -round);
  const Float r = L::add(L::add(x, -L::mul(n, L::of(0.693359375f))), -L::mul(n, L::of(-2.12194440e-4f)));
  Float p = L::of(1.9875691500e-4f);
  p = polynomial_step<L>(p, r, 1.3981999507e-3f);
  p = polynomial_step<L>(p, r, 8.3334519073e-3f);
  p = polynomial_step<L>(p, r, 4.1665795894e-2f);
  p = polynomial_step<L>(p, r, 1.6666665459e-1f);
  p = polynomial_step<L>(p, r, 5.0000001201e-1f);
  p = L::add(L::add(L::mul(L::mul(p, r), r), r), L::of(1.0f));
  return L::select(vanishes, L::of(0.0f), L::mul(p, L::from_bits((L::to_int(n) + 127) << 23)));
}

// exponent * log(2) + log(m) from m - 1 and m + 1, where m is within [sqrt(1/2), sqrt(2)]: log(m) = 2 atanh(s).
template <class L>
EAGLE_HOST_DEVICE typename L::Float log_reduced(typename L::Int exponent, typename L::Float minus_one,
                                                typename L::Float plus_one) {
  using Float = typename L::Float;
  const Float s = L::div(minus_one, plus_one);
  const Float z = L::mul(s, s);
  Float p = L::of(2.0f / 9);
  p = polynomial_step<L>(p, z, 2.0f / 7);
  p = polynomial_step<L>(p, z, 2.0f / 5);
  p = polynomial_step<L>(p, z, 2.0f / 3);
  const Float log_m = L::add(L::add(s, s), L::mul(L::mul(s, z), p));
  const Float k = L::to_float(exponent);
  return L::add(L::mul(k, L::of(0.693359375f)), L::add(L::mul(k, L::of(-2.12194440e-4f)), log_m));
}

template <class L>
struct Reduced {
  typename L::Int exponent;
  typename L::Float mantissa;  // within [sqrt(1/2), sqrt(2))
};

template <class L>
EAGLE_HOST_DEVICE Reduced<L> reduce(typename L::Float x) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  const typename L::Int shifted = L::bits(x) - kSqrtHalf;
  return {shifted >> 23, L::from_bits((shifted & 0x7fffff) + kSqrtHalf)};
}

// log(x) for normal x > 0, 2 ulp.
template <class L>
EAGLE_HOST_DEVICE typename L::Float log(typename L::Float x) {
  const Reduced<L> r = reduce<L>(x);
  return log_reduced<L>(r.exponent, L::add(r.mantissa, L::of(-1.0f)), L::add(r.mantissa, L::of(1.0f)));
}

// A standard exponential: -log(u), u = (bits + 0.5) / 2^32. In the upper half from 1 - u, which is exact near u = 1.
template <class L>
EAGLE_HOST_DEVICE typename L::Float exponential(typename L::Word bits) {
  using Float = typename L::Float;
  using Int = typename L::Int;
  const Int upper = L::as_int(bits) >> 31;  // 0 or -1
  const Int distance = L::as_int(bits) ^ upper;
  const Float f = L::mul(L::add(L::to_float(distance), L::of(0.5f)), L::of(0x1p-32f));  // u or 1 - u, at most 1/2
  const Reduced<L> low = reduce<L>(f);
  const Float one = L::of(1.0f), zero = L::of(0.0f);
  const Int halve = L::less(L::of(0.29289322f), f);  // 1 - f is below sqrt(1/2)
  const Float doubled = L::select(halve, L::add(f, f), f);
  const Float shift = L::select(halve, one, zero);  // 2^k m = 1 - f: m - 1 = 1 - 2f with k = -1, or -f with k = 0
  const Float minus_one = L::select(upper, L::add(shift, -doubled), L::add(low.mantissa, -one));
  const Float plus_one = L::select(upper, L::add(L::add(shift, L::of(2.0f)), -doubled), L::add(low.mantissa, one));
  const Int exponent = (upper & halve) | (~upper & low.exponent);
  return -log_reduced<L>(exponent, minus_one, plus_one);
}

// Standard Gumbel noise; at most 22.88 and at least -3.14.
template <class L>
EAGLE_HOST_DEVICE typename L::Float gumbel(typename L::Word bits) {
  return -log<L>(exponential<L>(bits));
}

}  // namespace eagle
