// A CUDA runtime without a GPU, put before the real one: what torch asks of it. Device memory is the host's, work is
// done as soon as it is handed over, and what is captured is noted, then undone: it runs when its graph is launched.
//
// Memory is filled with NaN when it is allocated and lies between pages that nobody may touch; what synchronises
// during a capture fails as on a GPU. torch's own kernels are not run: operations.py does their work.
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using Work = std::function<void()>;
using Graph = std::vector<Work>;

struct Block {
  size_t bytes;
  bool on_host;
};

struct Capture {
  cudaStream_t stream;
  cudaStreamCaptureMode mode;
  Graph graph;
  std::map<char*, std::vector<char>> before;  // what memory held
  bool broken = false;
};

constexpr size_t kPage = 4096, kGranule = 512, kTotalBytes = size_t{12} << 30;
constexpr int kMultiprocessors = 4, kMajor = 9;
std::recursive_mutex mutex;
std::map<char*, Block> blocks;
size_t bytes_in_use = 0;
std::unique_ptr<Capture> capture;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
void (*run_operation)(int64_t) = nullptr;  // of operations.py, by number

cudaError_t fail(cudaError_t error) { return last_error = error; }

size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

bool is_captured(cudaStream_t stream) { return capture != nullptr && capture->stream == stream; }

// Whether work on a stream belongs to the capture. Work on another one meanwhile, which no graph repeats, breaks it.
bool takes_part(cudaStream_t stream) {
  if (capture != nullptr && capture->stream != stream) capture->broken = true;
  return is_captured(stream);
}

// What a capture forbids breaks it.
cudaError_t break_capture_if(bool forbidden) {
  if (!forbidden) return cudaSuccess;
  capture->broken = true;
  return fail(cudaErrorStreamCaptureUnsupported);
}
cudaError_t unsafe_call() {
  return break_capture_if(capture != nullptr && thread_mode != cudaStreamCaptureModeRelaxed &&
                          capture->mode != cudaStreamCaptureModeRelaxed);
}

cudaError_t allocate(void** address, size_t bytes, bool on_host) {
  if (cudaError_t error = unsafe_call()) return error;
  std::lock_guard guard(mutex);
  bytes = (std::max<size_t>(bytes, 1) + kGranule - 1) / kGranule * kGranule;
  if (!on_host && bytes_in_use + bytes > kTotalBytes) return fail(cudaErrorMemoryAllocation);
  const size_t size = pages(bytes);
  char* fence = static_cast<char*>(
      mmap(nullptr, size + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  char* block = fence + kPage;
  mprotect(block, size, PROT_READ | PROT_WRITE);
  std::memset(block, 0xff, size);
  blocks[block] = {bytes, on_host};
  if (!on_host) bytes_in_use += bytes;
  *address = block;
  return cudaSuccess;
}

// The addresses stay out of use, so that who touches them again is stopped.
cudaError_t release(void* address) {
  if (cudaError_t error = unsafe_call()) return error;
  std::lock_guard guard(mutex);
  const auto found = blocks.find(static_cast<char*>(address));
  if (found == blocks.end()) return address == nullptr ? cudaSuccess : fail(cudaErrorInvalidValue);
  if (!found->second.on_host) bytes_in_use -= found->second.bytes;
  mprotect(address, pages(found->second.bytes), PROT_NONE);
  madvise(address, pages(found->second.bytes), MADV_DONTNEED);
  blocks.erase(found);
  return cudaSuccess;
}

const Block* block_of(const void* address) {
  auto next = blocks.upper_bound(static_cast<char*>(const_cast<void*>(address)));
  if (next == blocks.begin()) return nullptr;
  --next;
  return static_cast<const char*>(address) < next->first + next->second.bytes ? &next->second : nullptr;
}

}  // namespace

#pragma GCC visibility push(default)

namespace cuda_emulation {

void submit(void* stream, Work work) {
  std::lock_guard guard(mutex);
  if (takes_part(static_cast<cudaStream_t>(stream))) capture->graph.push_back(work);
  work();
}

}  // namespace cuda_emulation

extern "C" {

// For operations.py.
void pretended_run_operations_by(void (*run)(int64_t)) { run_operation = run; }
bool pretended_capturing() { return capture != nullptr; }
// Whether an operation on a stream belongs to the capture. It has been done already, like all work.
bool pretended_note(void* stream, int64_t operation) {
  if (!takes_part(static_cast<cudaStream_t>(stream))) return false;
  capture->graph.push_back([operation] { run_operation(operation); });
  return true;
}
bool pretended_is_pinned(const void* address) {
  std::lock_guard guard(mutex);
  const Block* block = block_of(address);
  return block != nullptr && block->on_host;
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : fail(cudaErrorInvalidDevice); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* of, int) {
  std::memset(of, 0, sizeof *of);
  std::strcpy(of->name, "Pretended GPU");
  of->major = kMajor;
  of->multiProcessorCount = kMultiprocessors;
  of->totalGlobalMem = kTotalBytes;
  of->warpSize = 32;
  of->maxThreadsPerBlock = of->maxThreadsDim[0] = of->maxThreadsDim[1] = 1024;
  of->maxThreadsPerMultiProcessor = 2048;
  of->maxGridSize[0] = of->maxGridSize[1] = of->maxGridSize[2] = 65535;
  of->sharedMemPerBlock = 48 << 10;
  of->sharedMemPerBlockOptin = 227 << 10;
  of->sharedMemPerMultiprocessor = 228 << 10;
  of->regsPerBlock = of->regsPerMultiprocessor = 65536;
  of->l2CacheSize = 4 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::map<cudaDeviceAttr, int> known = {{cudaDevAttrComputeCapabilityMajor, kMajor},
                                               {cudaDevAttrMultiProcessorCount, kMultiprocessors},
                                               {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10},
                                               {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
                                               {cudaDevAttrWarpSize, 32}};
  const auto found = known.find(attribute);
  *value = found == known.end() ? 0 : found->second;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return unsafe_call(); }

cudaError_t cudaMalloc(void** address, size_t bytes) { return allocate(address, bytes, false); }
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) { return allocate(address, bytes, true); }
cudaError_t cudaFree(void* address) { return release(address); }
cudaError_t cudaFreeHost(void* address) { return release(address); }
cudaError_t cudaMemGetInfo(size_t* unused, size_t* total) {
  return *unused = kTotalBytes - bytes_in_use, *total = kTotalBytes, cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* of, const void* address) {
  std::lock_guard guard(mutex);
  const Block* block = block_of(address);
  std::memset(of, 0, sizeof *of);
  of->type = block == nullptr ? cudaMemoryTypeUnregistered : block->on_host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  of->devicePointer = of->hostPointer = block == nullptr ? nullptr : const_cast<void*>(address);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return cuda_emulation::submit(stream, [=] { std::memmove(to, from, bytes); }), cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (cudaError_t error = unsafe_call()) return error;
  return std::memmove(to, from, bytes), cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return cuda_emulation::submit(stream, [=] { std::memset(to, value, bytes); }), cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (cudaError_t error = unsafe_call()) return error;
  return std::memset(to, value, bytes), cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  static uintptr_t last = 0;
  return *stream = reinterpret_cast<cudaStream_t>(last += 16), cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return break_capture_if(is_captured(stream)); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return break_capture_if(is_captured(stream)); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = is_captured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
  if (id != nullptr) *id = 1;
  if (graph != nullptr) *graph = nullptr;
  return cudaStreamIsCapturing(stream, status);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return std::swap(*mode, thread_mode), cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  std::lock_guard guard(mutex);
  if (stream == nullptr || capture != nullptr) return fail(cudaErrorStreamCaptureUnsupported);
  capture.reset(new Capture{stream, mode, {}, {}});
  for (const auto& [address, block] : blocks) capture->before[address].assign(address, address + block.bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  std::lock_guard guard(mutex);
  if (!is_captured(stream)) return fail(cudaErrorIllegalState);
  const std::unique_ptr<Capture> ended = std::move(capture);
  for (const auto& [address, block] : blocks)
    if (const auto found = ended->before.find(address); found != ended->before.end())
      std::memcpy(address, found->second.data(), block.bytes);
    else
      std::memset(address, 0xff, block.bytes);
  *graph = ended->broken ? nullptr : reinterpret_cast<cudaGraph_t>(new Graph(std::move(ended->graph)));
  return ended->broken ? fail(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return *exec = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph))), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const Work& work : *reinterpret_cast<Graph*>(exec)) work();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete reinterpret_cast<Graph*>(graph), cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete reinterpret_cast<Graph*>(exec), cudaSuccess; }
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  return *count = reinterpret_cast<Graph*>(graph)->size(), cudaSuccess;
}

using Clock = std::chrono::steady_clock;
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = reinterpret_cast<cudaEvent_t>(new Clock::time_point), cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return delete reinterpret_cast<Clock::time_point*>(event), cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  return *reinterpret_cast<Clock::time_point*>(event) = Clock::now(), cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const auto at = [](cudaEvent_t event) { return *reinterpret_cast<Clock::time_point*>(event); };
  return *milliseconds = std::chrono::duration<float, std::milli>(at(end) - at(start)).count(), cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorString(cudaError_t error) {
  static thread_local std::string text;
  return (text = "error " + std::to_string(error) + " of the pretended GPU").c_str();
}
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = nullptr;
  if (result != nullptr) *result = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

// A kernel of torch's, which operations.py should have spared.
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) {
  return fail(cudaErrorNotSupported);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                               cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function)), cudaSuccess;
}

}  // extern "C"
