// What the launchers for ctypes share: a workspace, and exceptions as messages.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <exception>
#include <string>

// Calls; returns null, or what went wrong.
template <class Call>
const char* guarded(const Call& call) {
  static std::string message;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

// Memory of the GPU as the allocator gives it: full of NaN.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) { cudaMalloc(&data_, static_cast<size_t>(bytes)); }
  ~Workspace() { cudaFree(data_); }
  Workspace(const Workspace&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

template <class Params>
const char* run(const Params& p, int64_t (*size)(const Params&), void (*launch)(const Params&, void*, void*)) {
  return guarded([&] {
    const Workspace workspace(size(p));
    launch(p, workspace.data(), nullptr);
  });
}
