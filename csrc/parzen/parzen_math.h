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

// Of functions that call the loops of a row, which for nvcc exist on the GPU only.
#if defined(__CUDACC__)
#define PYGAN_LOOPS __device__
#else
#define PYGAN_LOOPS
#endif

constexpr double kLog2e = 1.44269504088896340736;

template <class T>
PYGAN_HD T infinity() {
  return static_cast<T>(HUGE_VAL);
}

template <class T>
PYGAN_HD T largest() {
  return sizeof(T) == sizeof(float) ? static_cast<T>(FLT_MAX) : static_cast<T>(DBL_MAX);
}

template <class T>
PYGAN_HD double epsilon() {
  return sizeof(T) == sizeof(float) ? static_cast<double>(FLT_EPSILON) : DBL_EPSILON;
}

// 2^t for t <= 0, -inf included, at most 2 ULP; 0 where it is not above the smallest normal number, for nothing so
// small is seen in a sum whose largest term is 1. NaN, such as the difference of two infinite distances, gives 0.
template <class T>
PYGAN_HD T exp2_nonpositive(T t) {
  using E = Elementary<T>;
  using U = std::make_unsigned_t<typename E::Bits>;
  constexpr T ln2 = T(0.69314718055994530942);
  constexpr T smallest = T(1 - E::bias);
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == sizeof(float)) {  // one instruction, off by at most 2^-22
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
    return t > smallest ? power : T(0);
  }
#endif
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

// |x - s|^2 from |x|^2 = x_norm + rest, |s|^2 and 2 x . s. `rest` is what T does not hold of |x|^2: left out, it would
// shift all distances alike, an error that no sum averages away. Rounding may bring the result below 0, and then it
// is 0; NaN stays NaN. |x|^2 comes last: what is rounded before it is smaller than the sum of both norms, or than the
// result.
template <class T>
PYGAN_HD T squared_distance(T x_norm, T rest, T sample_norm, T twice_product) {
  const T d2 = ((sample_norm - twice_product) + rest) + x_norm;
  return d2 < 0 ? T(0) : d2;
}

// How far a squared distance from inner products of d values may be off, as a part of |x|^2 + |s|^2.
template <class T>
PYGAN_HD T product_error(std::int64_t d) {
  return static_cast<T>(epsilon<T>() * (8 + std::sqrt(static_cast<double>(d))));
}

// Distances of a row that are to be taken again: those from `above` to `below`, parts of the norms |x|^2 + |s|^2, that
// may be as near as `farthest`, and not those that may be as near as `covered`.
template <class T>
struct Lossy {
  const T* d2;
  const T* sample_norms;
  T x_norm, error, above, below, covered, farthest;

  PYGAN_HD T norms(std::int64_t i) const { return x_norm + sample_norms[i]; }
  PYGAN_HD T at_least(std::int64_t i) const { return d2[i] - error * norms(i); }
  PYGAN_HD T at_most(std::int64_t i) const { return d2[i] + error * norms(i); }
  PYGAN_HD bool operator()(std::int64_t i) const {
    return d2[i] > above * norms(i) && d2[i] <= below * norms(i) && at_least(i) <= farthest &&
           !(at_least(i) <= covered);
  }
};

// A distance much smaller than the norms has lost digits to cancellation, and is taken again from the differences where
// its term counts. Below a quarter of the norms that depends on the bandwidth, see farthest(). Between a quarter and a
// half it is only for the nearest samples, at most kFewTerms: in a longer sum the errors of single terms average out.
//
// Bandwidths come in rising order, and each takes again what the smaller ones did and more. So the distances that a
// bandwidth sees do not depend on the other bandwidths.
//
// Loops goes over the samples of a row, on the CPU or on the GPU: minimum(f) of f(i), count(f), where f(i) is true, and
// replace(f), which takes those distances from the differences.
template <class T, class Loops>
class Distances {
 public:
  // least: the smallest distance; if it is infinite or NaN, nothing is taken again.
  PYGAN_LOOPS Distances(const Row<T>& row, const Loops& loops, T least) : row_(row), loops_(loops), least_(least) {
    if (!(least < infinity<T>()) || first(kNone, kHalf, -largest<T>()) == infinity<T>()) return;
    const Lossy<T> every = lossy(kNone, kQuarter, -largest<T>(), infinity<T>());
    covered_ = loops_.minimum([=](std::int64_t i) { return every.at_most(i); });  // the nearest sample is not farther
    loops_.replace(lossy(kNone, kQuarter, -largest<T>(), covered_));
    nearest_ = nearest();
    for (T window = nearest_; nearest_ + window > nearest_; window /= 4) {
      const Lossy<T> few = lossy(kQuarter, kHalf, -largest<T>(), nearest_ + window);
      if (loops_.count(few) > kFewTerms) continue;
      loops_.replace(few);
      break;
    }
    least_ = nearest();
    first_ = first(kNone, kQuarter, covered_);
  }

  // Whether the distances are good for bandwidths up to the one of this rate.
  PYGAN_LOOPS bool are_good_for(double rate) const { return first_ == infinity<T>() || !(farthest(rate) >= first_); }

  // Makes the distances good for a bandwidth that is not smaller than those before, and returns the smallest distance.
  PYGAN_LOOPS T widen(double rate) {
    if (are_good_for(rate) || farthest(rate) <= covered_) return least_;
    loops_.replace(lossy(kNone, kQuarter, covered_, farthest(rate)));
    covered_ = farthest(rate);
    least_ = nearest();  // as before, unless products are worse than product_error, as those of TF32
    return least_;
  }

 private:
  static constexpr T kNone = -1, kQuarter = T(1) / 4, kHalf = T(1) / 2;
  static constexpr std::int64_t kFewTerms = 64;

  PYGAN_LOOPS Lossy<T> lossy(T above, T below, T covered, T farthest) const {
    const T error = product_error<T>(row_.d);
    return {row_.d2, row_.sample_norms, static_cast<T>(row_.x_norm), error, above, below, covered, farthest};
  }
  PYGAN_LOOPS T first(T above, T below, T covered) const {
    const Lossy<T> wanted = lossy(above, below, covered, infinity<T>());
    return loops_.minimum([=](std::int64_t i) { return wanted(i) ? wanted.at_least(i) : infinity<T>(); });
  }
  PYGAN_LOOPS T nearest() const {
    const T* d2 = row_.d2;
    return loops_.minimum([=](std::int64_t i) { return d2[i]; });
  }
  // Beyond this distance lossy terms do not count: together they are off by less than T can tell from the largest, 1.
  // Each of the n is off by at most exp(-reach) times the error of its exponent, or times 1. Grows as the rate falls.
  PYGAN_LOOPS T farthest(double rate) const {
    const double norms = 6 * row_.x_norm;  // at most, of a sample at a distance below a quarter of the norms
    const double error = rate * norms * static_cast<double>(product_error<T>(row_.d));
    const double reach = std::log(static_cast<double>(row_.n) / epsilon<T>() * (error < 1 ? error : 1));
    return nearest_ + static_cast<T>((reach > 1 ? reach : 1) / rate);
  }

  const Row<T>& row_;
  const Loops& loops_;
  T least_;
  T nearest_ = 0;            // the smallest distance before the first bandwidth
  T covered_ = 0;            // as far as lossy distances have been taken again
  T first_ = infinity<T>();  // the nearest lossy distance beyond what was covered before the first bandwidth
};

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
