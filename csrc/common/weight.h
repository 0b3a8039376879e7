// A weight matrix: elements of the inputs' type, or fp8 (e4m3) with a float32 scale per output.
#pragma once

namespace eagle {

struct Weight {
  const void* data;    // [outputs, inner]
  const float* scale;  // [outputs] if the elements are fp8: what a row's sums of products are multiplied by; else null
};

}  // namespace eagle
