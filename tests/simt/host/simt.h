// CUDA's vocabulary for g++: force-include this header (-include simt.h) and a kernel file compiles for the CPU, where
// the runtime beside it runs one fiber per CUDA thread. What is modelled, checked and left out: ../README.md.
#pragma once
#define PYGAN_SIMT_HOST 1

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "runtime.h"

// ---- language ------------------------------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

using uint3 = simt::Index;
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#define SIMT_VECTOR(name, type)                                      \
  struct alignas(2 * sizeof(type)) name##2 {                         \
    type x, y;                                                       \
  };                                                                 \
  struct alignas(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name##4 { \
    type x, y, z, w;                                                 \
  };                                                                 \
  inline name##2 make_##name##2(type x, type y) {                    \
    return {x, y};                                                   \
  }                                                                  \
  inline name##4 make_##name##4(type x, type y, type z, type w) {    \
    return {x, y, z, w};                                             \
  }
using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
SIMT_VECTOR(uchar, uchar)
SIMT_VECTOR(ushort, ushort)
SIMT_VECTOR(int, int)
SIMT_VECTOR(uint, uint)
SIMT_VECTOR(float, float)
SIMT_VECTOR(double, double)
#undef SIMT_VECTOR

#define threadIdx (::simt::thread_index)
#define blockIdx (::simt::block_index)
#define blockDim (::simt::block_size)
#define gridDim (::simt::grid_size)
constexpr int warpSize = 32;

// ---- the three macros that kernels write instead of syntax that C++ lacks (csrc/common/cuda.h) ---------------------
#define SIMT_SITE(what) (::simt::Site{__FILE__, __LINE__, what})
#define PYGAN_SHARED(T, name, dims)                                            \
  using name##_type = T dims;                                                  \
  static constexpr ::simt::SharedSite name##_site{                             \
      {__FILE__, __LINE__, #name}, sizeof(name##_type), alignof(name##_type)}; \
  name##_type& name = *static_cast<name##_type*>(::simt::static_shared(name##_site))
#define PYGAN_DYN_SHARED(T, name) T* name = static_cast<T*>(::simt::dynamic_shared())
#define PYGAN_LAUNCH(kernel, grid, block, smem, stream, ...) \
  ::simt::launch(#kernel, kernel, grid, block, smem, stream, __VA_ARGS__)

// ---- the CUDA runtime, as far as host code here uses it
// --------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchFailure = 719,
};
using cudaStream_t = struct CUstream_st*;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

inline cudaError_t cudaGetLastError() {
  return static_cast<cudaError_t>(simt::last_error(true));
}
inline cudaError_t cudaPeekAtLastError() {
  return static_cast<cudaError_t>(simt::last_error(false));
}
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
  }
  return "unrecognized error code";
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = simt::kDevices;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = simt::get_device();
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return static_cast<cudaError_t>(simt::set_device(device));
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : 227 * 1024;
  return cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F* function, cudaFuncAttribute, int bytes) {
  simt::allow_shared_bytes(reinterpret_cast<const void*>(function), static_cast<std::size_t>(bytes));
  return cudaPeekAtLastError();
}
inline cudaError_t cudaMemsetAsync(void* address, int value, std::size_t bytes, cudaStream_t) {
  std::memset(address, value, bytes);
  return cudaSuccess;
}

namespace simt {

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, A&&... arguments) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;  // by value, as a real launch
  } call{kernel, {static_cast<P>(arguments)...}};
  run(
      {name,
       reinterpret_cast<const void*>(kernel),
       {grid.x, grid.y, grid.z},
       {block.x, block.y, block.z},
       shared_bytes,
       stream},
      [](void* p) { std::apply(static_cast<Call*>(p)->kernel, static_cast<Call*>(p)->arguments); }, &call);
}

template <class T>
uint64_t to_bits(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A shuffle: source(lane, first lane of the segment) is the lane to read, or -1 for one's own value.
template <class T, class Source>
T shuffle(Site site, unsigned mask, T value, int width, Source source) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 4 or 8 byte numbers");
  if (width < 1 || width > 32 || (width & (width - 1))) report(site, "the width is not a power of two up to 32");
  const Gathered& gathered = warp_operation(site, mask, to_bits(value), false);
  const int me = static_cast<int>(lane());
  const int from = source(me, me & ~(width - 1));
  if (from < 0) return value;
  if (gathered.present >> from & 1u) return from_bits<T>(gathered.values[from]);
  report(site, "it reads a lane that takes no part");
  return from_bits<T>(~uint64_t(0));
}
template <class T>
T shuffle_from(Site site, unsigned mask, T value, int source, int width = 32) {
  return shuffle(site, mask, value, width, [=](int, int first) { return first + (source & (width - 1)); });
}
template <class T>
T shuffle_xor(Site site, unsigned mask, T value, int lanes, int width = 32) {
  return shuffle(site, mask, value, width,
                 [=](int me, int first) { return (me ^ lanes) < first + width ? me ^ lanes : -1; });
}
template <class T>
T shuffle_up(Site site, unsigned mask, T value, unsigned delta, int width = 32) {
  return shuffle(site, mask, value, width, [=](int me, int first) {
    const int from = me - static_cast<int>(delta);
    return from >= first ? from : -1;
  });
}
template <class T>
T shuffle_down(Site site, unsigned mask, T value, unsigned delta, int width = 32) {
  return shuffle(site, mask, value, width, [=](int me, int first) {
    const int from = me + static_cast<int>(delta);
    return from < first + width ? from : -1;
  });
}

inline unsigned ballot(Site site, unsigned mask, bool predicate) {
  const Gathered& gathered = warp_operation(site, mask, predicate, false);
  unsigned votes = 0;
  for (int l = 0; l < 32; ++l)
    if (gathered.present >> l & 1u) votes |= static_cast<unsigned>(gathered.values[l]) << l;
  return votes;
}
inline bool all(Site site, unsigned mask, bool predicate) {
  return ballot(site, mask, !predicate) == 0;
}
inline void sync_warp(Site site, unsigned mask = 0xffffffffu) {
  warp_operation(site, mask, 0, true);
}

// Relaxed, as CUDA's: an atomic access orders no other memory. Compiled with the kernel, so ThreadSanitizer sees it.
template <class T, class F>
T atomic_update(T* address, F f) {
  atomic_access(address);
  T old, desired;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    desired = f(old);
  } while (!__atomic_compare_exchange(address, &old, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace simt

// ---- barriers, warp operations, fences, atomics --------------------------------------------------------------------
#define __syncthreads() ((void)::simt::block_barrier(SIMT_SITE("__syncthreads"), ::simt::Vote::none, false))
#define __syncthreads_count(p) ::simt::block_barrier(SIMT_SITE("__syncthreads_count"), ::simt::Vote::count, (p) != 0)
#define __syncthreads_or(p) ::simt::block_barrier(SIMT_SITE("__syncthreads_or"), ::simt::Vote::any, (p) != 0)
#define __syncthreads_and(p) ::simt::block_barrier(SIMT_SITE("__syncthreads_and"), ::simt::Vote::all, (p) != 0)
#define __syncwarp(...) ::simt::sync_warp(SIMT_SITE("__syncwarp") __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_sync(mask, value, ...) ::simt::shuffle_from(SIMT_SITE("__shfl_sync"), mask, value, __VA_ARGS__)
#define __shfl_xor_sync(mask, value, ...) ::simt::shuffle_xor(SIMT_SITE("__shfl_xor_sync"), mask, value, __VA_ARGS__)
#define __shfl_up_sync(mask, value, ...) ::simt::shuffle_up(SIMT_SITE("__shfl_up_sync"), mask, value, __VA_ARGS__)
#define __shfl_down_sync(mask, value, ...) ::simt::shuffle_down(SIMT_SITE("__shfl_down_sync"), mask, value, __VA_ARGS__)
#define __ballot_sync(mask, p) ::simt::ballot(SIMT_SITE("__ballot_sync"), mask, (p) != 0)
#define __any_sync(mask, p) (::simt::ballot(SIMT_SITE("__any_sync"), mask, (p) != 0) != 0)
#define __all_sync(mask, p) ::simt::all(SIMT_SITE("__all_sync"), mask, (p) != 0)
inline void __threadfence() {
  simt::memory_fence();
}
inline void __threadfence_block() {
  simt::memory_fence();
}

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return simt::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return simt::atomic_update(address, [=](unsigned old) { return old >= limit ? 0u : old + 1u; });
}

// ---- small device functions
// ------------------------------------------------------------------------------------------
template <class T>
T __ldg(const T* address) {
  return *address;
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(unsigned x) {
  return __builtin_ffs(static_cast<int>(x));
}
inline int __clz(unsigned x) {
  return x ? __builtin_clz(x) : 32;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((uint64_t(a) * b) >> 32);
}
inline unsigned __float_as_uint(float x) {
  return simt::from_bits<unsigned>(simt::to_bits(x));
}
inline float __uint_as_float(unsigned x) {
  return simt::from_bits<float>(simt::to_bits(x));
}
inline int __float_as_int(float x) {
  return simt::from_bits<int>(simt::to_bits(x));
}
inline float __int_as_float(int x) {
  return simt::from_bits<float>(simt::to_bits(x));
}
using std::max;
using std::min;
