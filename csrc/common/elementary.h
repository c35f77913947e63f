// exp and log1p without branches or library calls, so that compilers can put them into vector registers. Accuracy comes
// from the reduction, not from fitted tables: the polynomials are Taylor's, long enough for the reduced range.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

template <class T>
struct Elementary;

template <>
struct Elementary<float> {
  using Bits = std::int32_t;
  static constexpr float log2e = 1.44269504088896341f;
  static constexpr float ln2_high = 0.693359375f;  // 9 bits: its product with any exponent is exact
  static constexpr float ln2_low = -2.12194440054690583e-4f;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  static constexpr float smallest = -110.0f;   // exp is 0 from here on
  static constexpr float headroom = 0x1p64f;
  static constexpr int mantissa = 23, bias = 127, exp_terms = 7, log_terms = 7;
};

template <>
struct Elementary<double> {
  using Bits = std::int64_t;
  static constexpr double log2e = 1.44269504088896340736;
  static constexpr double ln2_high = 0.693147180369123816490;  // 33 bits
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr double round = 6755399441055744.0;
  static constexpr double smallest = -760.0;
  static constexpr double headroom = 0x1p128;
  static constexpr int mantissa = 52, bias = 1023, exp_terms = 13, log_terms = 17;
};

PYGAN_HD constexpr double reciprocal_factorial(int n) {
  double f = 1;
  for (int i = 2; i <= n; ++i) f *= i;
  return 1 / f;
}

// Of 2 atanh(s / 2) = sum_n s^(2n + 1) / (4^n (2n + 1)), the n-th coefficient.
PYGAN_HD constexpr double atanh_term(int n) {
  double power = 1;
  for (int i = 0; i < n; ++i) power *= 4;
  return 1 / (power * (2 * n + 1));
}

// exp(t) for t <= 0, -inf included; at most 1.25 ULP, also among subnormal results. NaN gives an arbitrary number.
template <class T>
PYGAN_HD T exp_nonpositive(T t) {
  using E = Elementary<T>;
  using U = std::make_unsigned_t<typename E::Bits>;
  t = t > E::smallest ? t : E::smallest;
  const T shifted = t * E::log2e + E::round;  // t / ln 2 rounded to an integer k, kept in the low bits
  const T k = shifted - E::round;
  const T r = (t - k * E::ln2_high) - k * E::ln2_low;
  T p = E::headroom * T(reciprocal_factorial(E::exp_terms));
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 16
#endif
  for (int n = E::exp_terms - 1; n >= 0; --n) p = p * r + E::headroom * T(reciprocal_factorial(n));
  // k is added to the exponent while it is sure to stay normal; the last product alone may round to a subnormal.
  return bit_cast<T>(bit_cast<U>(p) + (bit_cast<U>(shifted) << E::mantissa)) * (1 / E::headroom);
}

// log(1 + e) for e in [0, 1], by log(1 + e) = 2 atanh(s / 2), s = 2 e / (2 + e); at most 2 ULP, also for the smallest
// e.
template <class T>
PYGAN_HD T log1p_unit(T e) {
  using E = Elementary<T>;
  const T s = e / (1 + T(0.5) * e);
  const T z = s * s;
  T p = T(atanh_term(E::log_terms));
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 32
#endif
  for (int n = E::log_terms - 1; n >= 1; --n) p = p * z + T(atanh_term(n));
  return s + s * z * p;
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
