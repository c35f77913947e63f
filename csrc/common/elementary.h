// exp and log1p without branches or library calls, so that compilers can put them into vector registers. Accuracy comes
// from the reduction, not from fitted tables: the polynomials are Taylor's, long enough for the reduced range.
#pragma once

#include <cmath>
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

// a * b + c, rounded once where the machine has the instruction and twice where a call of the library would be needed.
template <class T>
PYGAN_HD T multiply_add(T a, T b, T c) {
#if defined(__FMA__) || defined(__CUDA_ARCH__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Series::term(n) + Series::term(n + 1) x + ... + Series::term(last) x^(last - n) by Horner's rule. A recursion,
// because in a loop nvcc leaves the coefficients, with their divisions, to be computed on the GPU again and again.
template <class Series, int n, int last, class T>
PYGAN_HD T polynomial(T x) {
  constexpr T term = static_cast<T>(Series::term(n));
  if constexpr (n == last) {
    return term;
  } else {
    return multiply_add(polynomial<Series, n + 1, last>(x), x, term);
  }
}

// exp(r) = sum_n r^n / n!
struct ExpSeries {
  PYGAN_HD static constexpr double term(int n) {
    double f = 1;
    for (int i = 2; i <= n; ++i) f *= i;
    return 1 / f;
  }
};

template <class T>
struct ExpSeriesWithHeadroom {
  PYGAN_HD static constexpr T term(int n) { return Elementary<T>::headroom * static_cast<T>(ExpSeries::term(n)); }
};

// 2 atanh(s / 2) = sum_n s^(2n + 1) / (4^n (2n + 1))
struct AtanhSeries {
  PYGAN_HD static constexpr double term(int n) {
    double power = 1;
    for (int i = 0; i < n; ++i) power *= 4;
    return 1 / (power * (2 * n + 1));
  }
};

// exp(t) for t <= 0, -inf included; at most 1.25 ULP, also among subnormal results. NaN gives an arbitrary number.
template <class T>
PYGAN_HD T exp_nonpositive(T t) {
  using E = Elementary<T>;
  using U = std::make_unsigned_t<typename E::Bits>;
  t = t > E::smallest ? t : E::smallest;
  const T shifted = t * E::log2e + E::round;  // t / ln 2 rounded to an integer k, kept in the low bits
  const T k = shifted - E::round;
  const T r = (t - k * E::ln2_high) - k * E::ln2_low;
  const T p = polynomial<ExpSeriesWithHeadroom<T>, 0, E::exp_terms>(r);
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
  const T p = polynomial<AtanhSeries, 1, E::log_terms>(z);
  return s + s * z * p;
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
