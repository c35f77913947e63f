// Element types: the codes that Python passes, and own storage types for the two half precisions, so that no header of
// CUDA or torch is needed to read them.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace pygan {

enum class DType : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };  // as in pygan/ops/_library.py

namespace PYGAN_SIMD_LEVEL {

template <class To, class From>
PYGAN_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

struct bfloat16 {
  std::uint16_t bits;
};

struct float16 {
  std::uint16_t bits;
};

// Calls run(T()) with the one of Types that `dtype` names: with_type<float, double>(dtype, [&](auto element) { ... }).
// Python passes no other.
template <class T>
constexpr DType dtype_of_v = DType::float32;
template <>
constexpr DType dtype_of_v<double> = DType::float64;
template <>
constexpr DType dtype_of_v<bfloat16> = DType::bfloat16;
template <>
constexpr DType dtype_of_v<float16> = DType::float16;

template <class... Types, class Run>
void with_type(DType dtype, const Run& run) {
  ((dtype == dtype_of_v<Types> ? run(Types{}) : void()), ...);
}

// The type in which sums and formulas are computed: float32 at least.
template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

PYGAN_HD float load(float x) {
  return x;
}
PYGAN_HD double load(double x) {
  return x;
}
PYGAN_HD float load(bfloat16 x) {
  return bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

PYGAN_HD float load(float16 x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t rest = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  if (rest >= 0x0f800000u) return bit_cast<float>(sign | rest | 0x7f800000u);  // infinity or NaN
  // Multiplication by 2^112 moves the exponent to its place and normalises subnormal numbers.
  return bit_cast<float>(sign | bit_cast<std::uint32_t>(bit_cast<float>(rest) * 0x1p112f));
#endif
}

// store<T>(x) rounds to nearest, ties to even; NaN stays NaN.
template <class T>
PYGAN_HD T store(compute_t<T> x) {
  return x;
}

template <>
PYGAN_HD bfloat16 store<bfloat16>(float x) {
  const std::uint32_t u = bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const std::uint32_t nan = (u >> 16) | 0x40u;
  return {static_cast<std::uint16_t>(x != x ? nan : rounded)};
}

template <>
PYGAN_HD float16 store<float16>(float x) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(x))};
#else
  const std::uint32_t u = bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: let the float adder round at 2^-24
    const float aligned = bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (bit_cast<std::uint32_t>(aligned) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u;
  return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
#endif
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
