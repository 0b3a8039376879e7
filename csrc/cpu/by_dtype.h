// Shapes of a vector kernel: from a runtime element type to a template parameter, and over a row by sixteens.
#pragma once
#include "common/dtype.h"
#include "cpu/floats.h"

// A lambda that is compiled into the function around it, for that one's instruction set.
#define EAGLE_INLINE_LAMBDA __attribute__((always_inline))

namespace eagle::cpu {

// by_dtype(dtype, [&](auto element) EAGLE_INLINE_LAMBDA { kernel<decltype(element)>(...); })
template <class Body>
EAGLE_INLINE void by_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat16:
      return body(float16{});
    case DType::kBFloat16:
      return body(bfloat16{});
  }
}

// body(first, count) for sixteen elements at a time; count is a constant for all but the last.
template <class Body>
EAGLE_INLINE void for_each_sixteen(int64_t size, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) body(i, kLanes);
  if (i < size) body(i, size - i);
}

}  // namespace eagle::cpu
