"""exp, log and the noise distributions in float32, operation by operation as in csrc/common/elementary.h.

Kernels that use them are launched with enable_fp_fusion=False: every backend then yields the same bits.
"""

import triton
import triton.language as tl


@triton.jit
def exp(x):
    """exp(x) for x <= 88, 0 below -87: Cephes' reduction and polynomial, 2 ulp."""
    vanishes = x < -87.0
    x = tl.where(vanishes, -87.0, x)
    n = (x * 1.44269504088896341 + 12582912.0) - 12582912.0  # adding 1.5 * 2^23 rounds to an integer
    r = (x - n * 0.693359375) - n * -2.12194440e-4
    p = tl.full(x.shape, 1.9875691500e-4, tl.float32)
    p = p * r + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    p = ((p * r) * r + r) + 1.0
    power = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(vanishes, 0.0, p * power)


@triton.jit
def reduce(x):
    """x = 2^exponent * mantissa with the mantissa within [sqrt(1/2), sqrt(2)), for normal x > 0."""
    shifted = x.to(tl.int32, bitcast=True) - 0x3F3504F3
    return shifted >> 23, ((shifted & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)


@triton.jit
def log_reduced(exponent, minus_one, plus_one):
    """exponent * log(2) + log(m) from m - 1 and m + 1: log(m) = 2 atanh((m - 1) / (m + 1))."""
    s = tl.div_rn(minus_one, plus_one)
    z = s * s
    p = tl.full(s.shape, 2.0 / 9, tl.float32)
    p = p * z + 2.0 / 7
    p = p * z + 2.0 / 5
    p = p * z + 2.0 / 3
    log_m = (s + s) + (s * z) * p
    k = exponent.to(tl.float32)
    return k * 0.693359375 + (k * -2.12194440e-4 + log_m)


@triton.jit
def log(x):
    """log(x) for normal x > 0, 2 ulp."""
    exponent, mantissa = reduce(x)
    return log_reduced(exponent, mantissa - 1.0, mantissa + 1.0)


@triton.jit
def exponential(bits):
    """-log(u), u = (bits + 0.5) / 2^32; in the upper half from 1 - u, which is exact near u = 1."""
    signed = bits.to(tl.int32, bitcast=True)
    upper = signed < 0
    distance = tl.where(upper, ~signed, signed)
    f = (distance.to(tl.float32) + 0.5) * 2.0**-32  # u or 1 - u, at most 1/2
    exponent, mantissa = reduce(f)
    halve = f > 0.29289322  # 1 - f is below sqrt(1/2)
    doubled = tl.where(halve, f + f, f)
    shift = tl.where(halve, 1.0, 0.0)  # 2^k m = 1 - f: m - 1 = 1 - 2 f with k = -1, or -f with k = 0
    minus_one = tl.where(upper, shift - doubled, mantissa - 1.0)
    plus_one = tl.where(upper, (shift + 2.0) - doubled, mantissa + 1.0)
    return -log_reduced(tl.where(upper, -shift.to(tl.int32), exponent), minus_one, plus_one)


@triton.jit
def gumbel(bits):
    """Standard Gumbel noise, within [-3.14, 22.88]."""
    return -log(exponential(bits))
