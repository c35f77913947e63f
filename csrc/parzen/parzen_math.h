// The arithmetic of log sum_i exp(-rate |x - s_i|^2), rate = 1 / (2 sigma^2): squared distances from inner products,
// powers of two for the terms, and the merge of two partial sums.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "common/dtype.h"
#include "common/elementary.h"
#include "common/host_device.h"
#include "parzen/parzen.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

constexpr double kLog2e = 1.44269504088896340736;

template <class T>
PYGAN_HD T infinity() {
  return static_cast<T>(HUGE_VAL);
}

// 2^t for t <= 0, -inf included, at most 2 ULP; 0 where it is not above the smallest normal number, for nothing so
// small is seen in a sum whose largest term is 1. NaN, such as the difference of two infinite distances, gives 0.
template <class T>
PYGAN_HD T exp2_nonpositive(T t) {
  using E = Elementary<T>;
  using U = std::make_unsigned_t<typename E::Bits>;
  constexpr T ln2 = T(0.69314718055994530942);
  constexpr T smallest = T(1 - E::bias);
  const T clamped = t > smallest ? t : smallest;
  const T shifted = clamped + E::round;
  const T r = (clamped - (shifted - E::round)) * ln2;
  const T p = polynomial<ExpSeries, 0, E::exp_terms>(r);
  const T power = bit_cast<T>(bit_cast<U>(p) + (bit_cast<U>(shifted) << E::mantissa));  // the exponents add up
  return t > smallest ? power : T(0);
}

// -rate d2. At distance 0 that is 0 also where the rate overflows; NaN stays NaN.
PYGAN_HD double exponent(double rate, double d2) {
  return d2 == 0 && rate > 0 ? 0 : -rate * d2;
}

// The rate for powers of two in T. It is finite, so that a difference of 0 gives the term 1; NaN stays NaN.
template <class T>
PYGAN_HD T binary_rate(double rate) {
  constexpr double largest = sizeof(T) == sizeof(float) ? FLT_MAX : DBL_MAX;
  return static_cast<T>(rate * kLog2e > largest ? largest : rate * kLog2e);
}

// A point of a tile, with the tile's samples.
template <class T>
struct Row {
  const T* x;             // [d]
  const T* samples;       // [n, d]
  const T* sample_norms;  // [n]
  double x_norm;
  T* d2;  // [n] inner products, then squared distances
  std::int64_t n, d;
  double scale;
};

template <class T>
PYGAN_HD Row<T> tile_row(const ParzenTile& tile, std::int64_t j) {
  return {static_cast<const T*>(tile.x) + j * tile.d,
          static_cast<const T*>(tile.samples),
          static_cast<const T*>(tile.sample_norms),
          tile.x_norms[j],
          static_cast<T*>(tile.products) + j * tile.columns,
          tile.columns,
          tile.d,
          *tile.scale};
}

PYGAN_HD double smallest(const double* rates, std::int64_t n) {
  double least = rates[0];
  for (std::int64_t s = 1; s < n; ++s) least = rates[s] < least ? rates[s] : least;
  return least;
}

// |x - s|^2 from |x|^2 = x_norm + rest, |s|^2 and 2 x . s. `rest` is what T does not hold of |x|^2: left out, it would
// shift all distances alike, an error that no sum averages away. Rounding may bring the result below 0, and then it
// is 0; NaN stays NaN.
template <class T>
PYGAN_HD T squared_distance(T x_norm, T rest, T sample_norm, T twice_product) {
  const T d2 = ((x_norm + sample_norm) - twice_product) + rest;
  return d2 < 0 ? T(0) : d2;
}

// A distance much smaller than the norms has lost digits to cancellation, and is taken again from the differences where
// its term counts: always below a quarter of the norms; below a half only while few terms carry the sum, for in a long
// sum the errors of single terms average out.
struct Lossy {
  double part;   // of |x|^2 + |s|^2, below which a distance is lossy
  double reach;  // nats below the largest term within which a term counts
};
constexpr Lossy kAlwaysDirect = {1.0 / 4, 16};
constexpr Lossy kSeldomDirect = {1.0 / 2, 4};
constexpr std::int64_t kFewTerms = 64;

template <class T>
PYGAN_HD bool is_lossy(T d2, T norms, T farthest, T part) {
  return d2 <= farthest && d2 <= part * norms;
}

// The logarithm of a sum of exponentials as peak + log(sum), with the largest exponent kept apart.
struct LogSum {
  double peak;  // -inf for the empty sum
  double sum;   // 0 for the empty sum
};

// The merge is commutative; (-inf, 0) is its neutral element; NaN in either part stays.
PYGAN_HD LogSum merge(LogSum a, LogSum b) {
  if (a.peak == -infinity<double>()) return b;
  if (b.peak == -infinity<double>()) return a;
  const bool a_is_larger = a.peak > b.peak;
  const LogSum& high = a_is_larger ? a : b;
  const LogSum& low = a_is_larger ? b : a;
  return {high.peak, high.sum + low.sum * std::exp(low.peak - high.peak)};
}

// The share of the term at squared distance d2 in the whole sum; 0 where every term is 0.
PYGAN_HD double share_of_largest(double rate, double d2, double log_sum) {
  return log_sum == -infinity<double>() ? 0 : std::exp(exponent(rate, d2) - log_sum);
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
