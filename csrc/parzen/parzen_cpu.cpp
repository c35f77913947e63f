#include "common/parallel.h"
#include "parzen/parzen.h"
#include "parzen/parzen_math.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kRowsPerChunk = 4;  // points that a thread takes at a time
constexpr std::int64_t kBlock = 256;       // terms that are summed in T before double takes over
constexpr std::int64_t kLanes = 16;        // partial sums of a block, whatever the width of the vectors

// |x - s_i|^2 from the differences. Four sums side by side hide the latency of the additions.
template <class T>
T direct_distance(const Row<T>& row, std::int64_t i) {
  const T* x = row.x;
  const T* s = row.samples + i * row.d;
  const double scale = row.scale;
  const auto square = [=](std::int64_t k) {
    const double difference = (static_cast<double>(x[k]) - static_cast<double>(s[k])) * scale;
    return difference * difference;
  };
  const std::int64_t quarter = row.d / 4;
  double a = 0, b = 0, c = 0, e = 0;
#pragma omp simd reduction(+ : a, b, c, e)
  for (std::int64_t k = 0; k < quarter; ++k) {
    a += square(k);
    b += square(k + quarter);
    c += square(k + 2 * quarter);
    e += square(k + 3 * quarter);
  }
  for (std::int64_t k = 4 * quarter; k < row.d; ++k) a += square(k);
  return static_cast<T>((a + b) + (c + e));
}

// What Distances of parzen_math.h asks for.
template <class T>
struct RowLoops {
  const Row<T>& row;

  template <class Value>
  T minimum(const Value& value) const {
    T least = infinity<T>();
#pragma omp simd reduction(min : least)
    for (std::int64_t i = 0; i < row.n; ++i) {
      const T next = value(i);
      least = next < least ? next : least;
    }
    return least;
  }

  template <class Wanted>
  std::int64_t count(const Wanted& wanted, std::int64_t begin, std::int64_t end) const {
    std::int32_t found = 0;
#pragma omp simd reduction(+ : found)
    for (std::int64_t i = begin; i < end; ++i) found += wanted(i);
    return found;
  }
  template <class Wanted>
  std::int64_t count(const Wanted& wanted) const {
    return count(wanted, 0, row.n);
  }

  template <class Wanted>
  void replace(const Wanted& wanted) const {
    for (std::int64_t begin = 0; begin < row.n; begin += kBlock) {
      const std::int64_t end = begin + kBlock < row.n ? begin + kBlock : row.n;
      if (count(wanted, begin, end) == 0) continue;
      for (std::int64_t i = begin; i < end; ++i) {
        if (wanted(i)) row.d2[i] = direct_distance(row, i);
      }
    }
  }
};

// Turns the row's inner products into squared distances and returns their minimum, NaN if any is NaN.
template <class T>
T squared_distances(const Row<T>& row, double product_unit) {
  const T x_norm = static_cast<T>(row.x_norm);
  const T rest = static_cast<T>(row.x_norm - static_cast<double>(x_norm));
  const T twice = static_cast<T>(2 * product_unit);
  const T* sample_norms = row.sample_norms;
  T* d2 = row.d2;
  T least = infinity<T>();
  T zero = 0;  // NaN after the loop if any distance is infinite or NaN
#pragma omp simd reduction(min : least) reduction(+ : zero)
  for (std::int64_t i = 0; i < row.n; ++i) {
    const T value = squared_distance(x_norm, rest, sample_norms[i], twice * d2[i]);
    d2[i] = value;
    least = value < least ? value : least;
    zero += value * 0;
  }
  if (zero == 0) return least;
  for (std::int64_t i = 0; i < row.n; ++i) {
    if (d2[i] < infinity<T>()) continue;
    d2[i] = direct_distance(row, i);
    if (d2[i] != d2[i]) return d2[i];
    least = d2[i] < least ? d2[i] : least;
  }
  return least;
}

// term(0) + ... + term(n - 1) in kLanes sums side by side, so that rounding does not depend on the vectors' width.
template <class T, class Term>
T lane_sum(std::int64_t n, const Term& term) {
  T lanes[kLanes] = {};
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t begin = 0; begin < whole; begin += kLanes) {
#pragma omp simd
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(begin + lane);
  }
  for (std::int64_t i = whole; i < n; ++i) lanes[i - whole] += term(i);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

template <class Body>
void for_each_row(std::int64_t rows, int threads, const Body& body) {
  parallel_chunks((rows + kRowsPerChunk - 1) / kRowsPerChunk, threads, [&](std::int64_t chunk) {
    const std::int64_t end = (chunk + 1) * kRowsPerChunk;
    for (std::int64_t j = chunk * kRowsPerChunk; j < (end < rows ? end : rows); ++j) body(j);
  });
}

template <class T>
void centre(const T* rows, const T* centre, T scale, std::int64_t n, std::int64_t d, T* moved, double* norms,
            int threads) {
  for_each_row(n, threads, [=](std::int64_t j) {
    double norm = 0;
#pragma omp simd reduction(+ : norm)
    for (std::int64_t k = 0; k < d; ++k) {
      const T value = (rows[j * d + k] - centre[k]) * scale;
      moved[j * d + k] = value;
      norm += static_cast<double>(value) * static_cast<double>(value);
    }
    norms[j] = norm;
  });
}

template <class T>
void accumulate(const ParzenTile& tile, double* peak, double* sum, int threads) {
  for_each_row(tile.rows, threads, [&](std::int64_t j) {
    const Row<T> row = tile_row<T>(tile, j);
    const RowLoops<T> loops{row};
    Distances<T, RowLoops<T>> distances(row, loops, squared_distances(row, tile.product_unit));
    for (std::int64_t s = 0; s < tile.sigmas; ++s) {
      const T least = distances.widen(tile.rates[s]);
      if (least == infinity<T>()) return;  // every term is 0
      const T rate = binary_rate<T>(tile.rates[s]);
      double terms = 0;
      for (std::int64_t begin = 0; begin < row.n; begin += kBlock) {
        const std::int64_t n = row.n - begin < kBlock ? row.n - begin : kBlock;
        const T* d2 = row.d2 + begin;
        const auto term = [=](std::int64_t i) { return exp2_nonpositive((least - d2[i]) * rate); };
        terms += static_cast<double>(lane_sum<T>(n, term));
      }
      const std::int64_t at = s * tile.stride + j;
      const LogSum total = merge({peak[at], sum[at]}, {exponent(tile.rates[s], static_cast<double>(least)), terms});
      peak[at] = total.peak;
      sum[at] = total.sum;
    }
  });
}

template <class T>
void weights(const ParzenTile& tile, const double* grad, const double* log_sum, double* mean_square, int threads) {
  for_each_row(tile.rows, threads, [&](std::int64_t j) {
    const Row<T> row = tile_row<T>(tile, j);
    const RowLoops<T> loops{row};
    Distances<T, RowLoops<T>> distances(row, loops, squared_distances(row, tile.product_unit));
    const T least = distances.widen(tile.rates[tile.sigmas - 1]);
    for (std::int64_t begin = 0; begin < row.n; begin += kBlock) {
      const std::int64_t n = row.n - begin < kBlock ? row.n - begin : kBlock;
      T* d2 = row.d2 + begin;
      T weight[kBlock] = {};
      for (std::int64_t s = 0; s < tile.sigmas; ++s) {
        const std::int64_t at = s * tile.stride + j;
        const double share = share_of_largest(tile.rates[s], static_cast<double>(least), log_sum[at]);
        const T factor = static_cast<T>(grad[at] * 2 * tile.rates[s] * share);
        const T rate = binary_rate<T>(tile.rates[s]);
        const T square = lane_sum<T>(n, [=, &weight](std::int64_t i) {
          const T term = exp2_nonpositive((least - d2[i]) * rate);
          weight[i] += factor * term;
          return term > 0 ? term * d2[i] : T(0);  // d2 may be infinite
        });
        mean_square[at] += share * static_cast<double>(square);
      }
      for (std::int64_t i = 0; i < n; ++i) d2[i] = weight[i];
    }
  });
}

}  // namespace

void parzen_centre_cpu(DType dtype, const void* rows, const void* c, const double* scale, std::int64_t n,
                       std::int64_t d, void* moved, double* norms, int threads) {
  if (dtype == DType::float64) {
    return centre(static_cast<const double*>(rows), static_cast<const double*>(c), *scale, n, d,
                  static_cast<double*>(moved), norms, threads);
  }
  centre(static_cast<const float*>(rows), static_cast<const float*>(c), static_cast<float>(*scale), n, d,
         static_cast<float*>(moved), norms, threads);
}

void parzen_accumulate_cpu(DType dtype, const ParzenTile& tile, double* peak, double* sum, int threads) {
  if (dtype == DType::float64) return accumulate<double>(tile, peak, sum, threads);
  accumulate<float>(tile, peak, sum, threads);
}

void parzen_weights_cpu(DType dtype, const ParzenTile& tile, const double* grad, const double* log_sum,
                        double* mean_square, int threads) {
  if (dtype == DType::float64) return weights<double>(tile, grad, log_sum, mean_square, threads);
  weights<float>(tile, grad, log_sum, mean_square, threads);
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
