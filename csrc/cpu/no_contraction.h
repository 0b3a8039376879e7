// Include first: every product and sum of the file rounds by itself, so that a sampled token is the same on machines
// with and without fused multiply-add, and on the GPU.
#pragma once
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
