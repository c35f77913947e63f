// What lets one header serve g++ (once per SIMD level), nvcc and the CPU emulation of the tests.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PYGAN_HD __host__ __device__ __forceinline__
#else
#define PYGAN_HD inline
#endif

// Code that is compiled more than once lives in pygan::PYGAN_SIMD_LEVEL, so that the linker can never serve the AVX-512
// copy of an inline function to a machine without AVX-512.
#if !defined(PYGAN_SIMD_LEVEL)
#define PYGAN_SIMD_LEVEL generic
#endif

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

PYGAN_HD std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
