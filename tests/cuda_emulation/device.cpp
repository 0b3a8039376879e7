// The emulated GPU for ctypes: what it is, and how it multiplied.
#include "cuda/wgmma.cuh"
#include "cuda_runtime.h"

void cuda_emulation::submit(void*, std::function<void()> work) { work(); }

extern "C" {

void set_device(int64_t num_multiprocessors, int64_t compute_capability_major) {
  cuda_emulation::device.num_multiprocessors = static_cast<int>(num_multiprocessors);
  cuda_emulation::device.compute_capability_major = static_cast<int>(compute_capability_major);
}

void set_code_version(int64_t version) { cuda_emulation::device.code_version = static_cast<int>(version); }

int64_t panel_descriptor(int64_t address) { return eagle::cuda::panel_descriptor(address); }
int64_t warpgroup_products() { return cuda_emulation::num_products; }

}  // extern "C"
