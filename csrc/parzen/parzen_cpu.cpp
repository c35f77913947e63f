#include "common/parallel.h"
#include "parzen/parzen.h"
#include "parzen/parzen_math.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kRowsPerChunk = 4;  // points that a thread takes at a time
constexpr std::int64_t kBlock = 256;       // terms that are summed in T before double takes over
constexpr std::int64_t kLanes = 16;        // partial sums of a block, whatever the width of the vectors
constexpr std::int64_t kSigmaGroup = 32;   // sigmas whose partial results fit on the stack

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

template <class T>
T minimum(const T* values, std::int64_t n) {
  T least = infinity<T>();
#pragma omp simd reduction(min : least)
  for (std::int64_t i = 0; i < n; ++i) least = values[i] < least ? values[i] : least;
  return least;
}

// How many of the n pairs from `begin` on have lost digits and count, see parzen_math.h.
template <class T>
std::int64_t count_lossy(const Row<T>& row, std::int64_t begin, std::int64_t n, T farthest, T part) {
  const T x_norm = static_cast<T>(row.x_norm);
  std::int32_t count = 0;
#pragma omp simd reduction(+ : count)
  for (std::int64_t i = begin; i < begin + n; ++i) {
    count += is_lossy(row.d2[i], x_norm + row.sample_norms[i], farthest, part);
  }
  return count;
}

template <class T>
void replace_lossy(const Row<T>& row, T farthest, T part) {
  if (count_lossy(row, 0, row.n, farthest, part) == 0) return;
  const T x_norm = static_cast<T>(row.x_norm);
  for (std::int64_t begin = 0; begin < row.n; begin += kBlock) {
    const std::int64_t n = row.n - begin < kBlock ? row.n - begin : kBlock;
    if (count_lossy(row, begin, n, farthest, part) == 0) continue;
    for (std::int64_t i = begin; i < begin + n; ++i) {
      if (is_lossy(row.d2[i], x_norm + row.sample_norms[i], farthest, part)) row.d2[i] = direct_distance(row, i);
    }
  }
}

// Turns the row's inner products into squared distances and returns their minimum, NaN if any is NaN.
template <class T>
T squared_distances(const Row<T>& row, double smallest_rate, double product_unit) {
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
  if (zero != 0) {
    for (std::int64_t i = 0; i < row.n; ++i) {
      if (row.d2[i] < infinity<T>()) continue;
      row.d2[i] = direct_distance(row, i);
      if (row.d2[i] != row.d2[i]) return row.d2[i];
    }
    least = minimum(row.d2, row.n);
  }
  if (least == infinity<T>()) return least;
  replace_lossy(row, least + static_cast<T>(kAlwaysDirect.reach / smallest_rate), T(kAlwaysDirect.part));
  T window = static_cast<T>(kSeldomDirect.reach / smallest_rate);
  while (least + window > least && count_lossy(row, 0, row.n, least + window, T(kSeldomDirect.part)) > kFewTerms)
    window /= 4;
  replace_lossy(row, least + window, T(kSeldomDirect.part));
  return minimum(row.d2, row.n);
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
  const double smallest_rate = smallest(tile.rates, tile.sigmas);
  for_each_row(tile.rows, threads, [&](std::int64_t j) {
    const Row<T> row = tile_row<T>(tile, j);
    const T least = squared_distances(row, smallest_rate, tile.product_unit);
    if (least == infinity<T>()) return;  // every term is 0
    for (std::int64_t group = 0; group < tile.sigmas; group += kSigmaGroup) {
      const std::int64_t sigmas = tile.sigmas - group < kSigmaGroup ? tile.sigmas - group : kSigmaGroup;
      const double* rates = tile.rates + group;
      double sums[kSigmaGroup] = {};
      for (std::int64_t begin = 0; begin < row.n; begin += kBlock) {
        const std::int64_t n = row.n - begin < kBlock ? row.n - begin : kBlock;
        const T* d2 = row.d2 + begin;
        for (std::int64_t s = 0; s < sigmas; ++s) {
          const T rate = binary_rate<T>(rates[s]);
          const auto term = [=](std::int64_t i) { return exp2_nonpositive((least - d2[i]) * rate); };
          sums[s] += static_cast<double>(lane_sum<T>(n, term));
        }
      }
      for (std::int64_t s = 0; s < sigmas; ++s) {
        const std::int64_t at = (group + s) * tile.stride + j;
        const LogSum total = merge({peak[at], sum[at]}, {exponent(rates[s], static_cast<double>(least)), sums[s]});
        peak[at] = total.peak;
        sum[at] = total.sum;
      }
    }
  });
}

template <class T>
void weights(const ParzenTile& tile, const double* grad, const double* log_sum, double* mean_square, int threads) {
  const double smallest_rate = smallest(tile.rates, tile.sigmas);
  for_each_row(tile.rows, threads, [&](std::int64_t j) {
    const Row<T> row = tile_row<T>(tile, j);
    const T least = squared_distances(row, smallest_rate, tile.product_unit);
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
