// What the sampling ops share: logits as a strided view, and each request's temperature and filters.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/host_device.h"

namespace eagle {

// [batch, rows, vocabulary], the last dimension contiguous; strides in elements.
struct LogitsView {
  const void* data;
  DType dtype;
  int64_t batch_stride, row_stride;
};

struct SamplingParams {
  float temperature;  // <= 0 is argmax
  int32_t top_k;      // 0 = off
  float top_p;        // 1 = off
  float min_p;        // 0 = off
};

// One value per request; [batch] each.
struct SamplingParamsView {
  const int64_t* seed;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;

  EAGLE_HOST_DEVICE SamplingParams of(int64_t b) const { return {temperature[b], top_k[b], top_p[b], min_p[b]}; }
};

}  // namespace eagle
