// The few things that every CUDA launcher needs. The tests compile the same .cu files for the CPU: PYGAN_SIMT_HOST is
// then defined, and a header of tests/simt supplies the three macros and stand-ins for the runtime's names.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/host_device.h"

#if !defined(PYGAN_SIMT_HOST)
#include <cuda_runtime.h>

#define PYGAN_SHARED(T, name, dims) __shared__ T name dims
#define PYGAN_DYN_SHARED(T, name)                               \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  T* name = reinterpret_cast<T*>(name##_bytes)
#define PYGAN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#endif

namespace pygan {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// To be called right after each launch: reports a refused launch under the kernel's name.
inline void check_launch(const char* kernel) {
  check_cuda(cudaGetLastError(), kernel);
}

// Makes `device` current for a scope; the static CUDA runtime has a current device of its own.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check_cuda(cudaGetDevice(&previous_), "cudaGetDevice");
    if (device != previous_) check_cuda(cudaSetDevice(device), "cudaSetDevice");
  }
  ~DeviceGuard() { (void)cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace pygan
