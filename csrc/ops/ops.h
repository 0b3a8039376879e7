// Declarations of the torch-facing ops, read by binding.cpp.
#pragma once
#include <optional>
#include <tuple>
#include <vector>

#include "ops/torch.h"

namespace eagle::ops {
void compact_kv(std::vector<Tensor> caches, const Tensor& accept_index, const Tensor& accept_length,
                const Tensor& context_len);
Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias);
}  // namespace eagle::ops
