// A CUDA runtime whose GPU is the machine: what the launchers ask of it. Kernels run as soon as they are launched.
#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "global_memory.h"
#include "machine.h"

namespace {

using ptx_machine::Kernel;
using ptx_machine::Launch;
using ptx_machine::Module;

// The GPU; what code it gets (a compute capability times 10) can be another one's.
int num_multiprocessors = 4, compute_capability_major = 9, code_version = 90;
int max_shared_bytes() { return (compute_capability_major == 9 ? 227 : 99) << 10; }

struct Function {
  std::vector<Module*> modules;  // by architecture
  std::string name;
  int max_dynamic_bytes = -1;  // as set by cudaFuncSetAttribute
  bool executed = false;
};

using Modules = std::vector<std::unique_ptr<Module>>;
std::vector<std::unique_ptr<Modules>>& binaries() {
  static std::vector<std::unique_ptr<Modules>> all;
  return all;
}
std::map<const void*, Function>& functions() {
  static std::map<const void*, Function> all;
  return all;
}
cudaError_t last_error = cudaSuccess;

Function& function_of(const void* stub) {
  const auto found = functions().find(stub);
  if (found == functions().end()) throw std::runtime_error("the machine knows no such kernel");
  return found->second;
}

const Kernel& kernel_of(const Function& function) {
  const Module* best = nullptr;
  for (const Module* module : function.modules)
    if (static_cast<int>(module->version) <= code_version && (best == nullptr || best->version < module->version))
      best = module;
  if (best == nullptr)
    throw std::runtime_error(function.name + " was not compiled for " + std::to_string(code_version));
  return const_cast<Module*>(best)->kernel(function.name);
}

int dynamic_limit(const Function& function, const Kernel& kernel) {
  return function.max_dynamic_bytes >= 0 ? function.max_dynamic_bytes
                                         : (48 << 10) - static_cast<int>(kernel.shared_bytes);
}

std::string demangled(const std::string& name) {
  int status;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status),
                                                         std::free);
  return text ? text.get() : name;
}

ptx_machine::Dim dim(const dim3& d) { return {d.x, d.y, d.z}; }

void check(const Launch& launch, const Function& function) {
  const Kernel& kernel = *launch.kernel;
  const auto fail = [&](const std::string& what) { throw std::runtime_error(what + ": " + kernel.name); };
  if (launch.grid.count() == 0 || launch.block.count() == 0) fail("an empty grid or block");
  if (launch.grid.y > 65535 || launch.grid.z > 65535) fail("a grid of more than 65535 blocks in y or z");
  if (launch.block.count() > 1024) fail("more than 1024 threads a block");
  if (kernel.max_threads != 0 && launch.block.count() > kernel.max_threads)
    fail("more threads than launch bounds allow");
  if (static_cast<int>(launch.dynamic_bytes) > dynamic_limit(function, kernel))
    fail("more dynamic shared memory than the kernel's limit");
  if (launch.cluster.count() > 8) fail("more than 8 blocks a cluster");
  if (launch.cluster.count() > 1 && kernel.version < 90) fail("clusters need code for 90");
  if (launch.begins_early && kernel.version < 90) fail("code for less than 90 cannot wait for earlier kernels");
  if (launch.grid.x % launch.cluster.x != 0 || launch.grid.y % launch.cluster.y != 0 ||
      launch.grid.z % launch.cluster.z != 0)
    fail("a grid that is no multiple of its clusters");
}

// The PTX texts in a fatbinary: a header of 16 bytes, then entries of a header each.
void add_modules(const char* image, Modules& modules) {
  uint64_t total;
  std::memcpy(&total, image + 8, 8);
  for (const char *entry = image + 16, *end = entry + total; entry < end;) {
    uint16_t kind;
    uint32_t header_bytes;
    uint64_t bytes;
    std::memcpy(&kind, entry, 2), std::memcpy(&header_bytes, entry + 4, 4), std::memcpy(&bytes, entry + 8, 8);
    const std::string payload(entry + header_bytes, bytes);
    const size_t begin = payload.find(".version");
    if (kind == 1 && begin == std::string::npos) throw std::runtime_error("compressed PTX: compile with --no-compress");
    if (kind == 1)
      modules.push_back(std::make_unique<Module>(payload.substr(begin, payload.find('\0', begin) - begin)));
    entry += header_bytes + bytes;
  }
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" {

// For machine.py.
void set_device(int64_t multiprocessors, int64_t major) {
  num_multiprocessors = static_cast<int>(multiprocessors), compute_capability_major = static_cast<int>(major);
}
void set_code_version(int64_t version) { code_version = static_cast<int>(version); }
int64_t warpgroup_products() { return static_cast<int64_t>(ptx_machine::warpgroup_products); }
// The kernels that no launch has executed to its end, a line each.
const char* never_executed() {
  static std::string lines;
  lines.clear();
  for (const auto& [stub, function] : functions())
    if (!function.executed) lines += demangled(function.name) + "\n";
  return lines.c_str();
}
void add_memory(const void* address, int64_t bytes) { ptx_machine::add_global(address, bytes, false); }
void forget_memory() { ptx_machine::forget_globals(); }

void** __cudaRegisterFatBinary(void* wrapper) {
  const char* image;
  std::memcpy(&image, static_cast<const char*>(wrapper) + 8, 8);
  binaries().push_back(std::make_unique<Modules>());
  add_modules(image, *binaries().back());
  return reinterpret_cast<void**>(binaries().back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void** binary, const char* stub, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  Function function{{}, name};
  for (const auto& module : *reinterpret_cast<Modules*>(binary)) function.modules.push_back(module.get());
  functions()[stub] = function;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  return *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub)), cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub, void** arguments) {
  Function& function = function_of(stub);
  Launch launch{&kernel_of(function), dim(config->gridDim), dim(config->blockDim), {}};
  launch.dynamic_bytes = static_cast<uint32_t>(config->dynamicSmemBytes);
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      launch.cluster = {attribute.val.clusterDim.x, attribute.val.clusterDim.y, attribute.val.clusterDim.z};
    } else if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization) {
      launch.begins_early = attribute.val.programmaticStreamSerializationAllowed != 0;
    } else {
      throw std::runtime_error("unknown launch attribute");
    }
  }
  check(launch, function);
  launch.parameters.resize(launch.kernel->parameter_bytes);
  for (size_t i = 0; i < launch.kernel->parameters.size(); ++i) {
    const ptx_machine::Parameter& parameter = launch.kernel->parameters[i];
    std::memcpy(&launch.parameters[parameter.offset], arguments[i], parameter.bytes);
  }
  ptx_machine::run(launch);
  function.executed = true;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* stub) {
  const Function& function = function_of(stub);
  const Kernel& kernel = kernel_of(function);
  std::memset(attributes, 0, sizeof *attributes);
  attributes->sharedSizeBytes = kernel.shared_bytes;
  attributes->ptxVersion = static_cast<int>(kernel.version);
  attributes->binaryVersion = attributes->ptxVersion;
  attributes->maxDynamicSharedSizeBytes = dynamic_limit(function, kernel);
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
  Function& function = function_of(stub);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize ||
      value + static_cast<int>(kernel_of(function).shared_bytes) > max_shared_bytes())
    return last_error = cudaErrorInvalidValue;
  return function.max_dynamic_bytes = value, cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::map<cudaDeviceAttr, int> known = {
      {cudaDevAttrComputeCapabilityMajor, compute_capability_major},
      {cudaDevAttrMultiProcessorCount, num_multiprocessors},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, max_shared_bytes()},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, max_shared_bytes() + 1024}};
  return *value = known.at(attribute), cudaSuccess;
}

// Full of NaN.
cudaError_t cudaMalloc(void** address, size_t bytes) {
  *address = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*address, 0xff, bytes);
  return ptx_machine::add_global(*address, bytes, true), cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  ptx_machine::remove_global(address);
  return std::free(address), cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (!ptx_machine::is_global(reinterpret_cast<uint64_t>(to), bytes)) return last_error = cudaErrorInvalidValue;
  return ptx_machine::set_global(reinterpret_cast<uint64_t>(to), value, bytes), cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  static std::string text;
  return (text = "error " + std::to_string(error) + " of the machine").c_str();
}

}  // extern "C"
