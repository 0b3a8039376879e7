// Every op of the package, its schema on one line. Python sees torch.ops.eagle_kernels.*
#include <pybind11/pybind11.h>

#include "ops/ops.h"

// clang-format off: one op a line

STABLE_TORCH_LIBRARY(eagle_kernels, m) {
  m.def("compact_kv(Tensor(a!)[] caches, Tensor accept_index, Tensor accept_length, Tensor context_len) -> ()");
}

// The same host function serves both devices and branches on the tensor's.
STABLE_TORCH_LIBRARY_IMPL(eagle_kernels, CPU, m) {
  m.impl("compact_kv", TORCH_BOX(&eagle::ops::compact_kv));
}

#ifdef EAGLE_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(eagle_kernels, CUDA, m) {
  m.impl("compact_kv", TORCH_BOX(&eagle::ops::compact_kv));
}
#endif

PYBIND11_MODULE(_C, m) {
#ifdef EAGLE_WITH_CUDA
  m.attr("with_cuda") = true;
#else
  m.attr("with_cuda") = false;
#endif
}
