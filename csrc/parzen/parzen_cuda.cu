#include "common/block.h"
#include "common/cuda.h"
#include "parzen/parzen.h"
#include "parzen/parzen_math.h"

namespace pygan {
namespace cuda {
namespace {

using namespace PYGAN_SIMD_LEVEL;

constexpr int kThreads = 256;  // one block for a row
constexpr std::int64_t kMaxSplitBlocks = 4096;
constexpr int kSigmaGroup = 8;  // sigmas whose partial sums a thread keeps in registers

// What Distances of parzen_math.h asks for, by the whole block. Here as everywhere, thread t alone touches the
// distances t, t + kThreads, ... of its block's row.
template <class T>
struct RowLoops {
  const Row<T>& row;

  template <class Value>
  __device__ T minimum(Value value) const {
    T least = infinity<T>();
    for (std::int64_t i = threadIdx.x; i < row.n; i += kThreads) {
      const T next = value(i);
      least = next < least ? next : least;
    }
    return block_minimum<kThreads>(least);
  }

  template <class Wanted>
  __device__ std::int64_t count(Wanted wanted) const {
    std::int64_t found = 0;
    for (std::int64_t i = threadIdx.x; i < row.n; i += kThreads) found += wanted(i);
    return block_sum<kThreads>(found);
  }

  // A warp for each distance.
  template <class Wanted>
  __device__ void replace(Wanted wanted) const {
    const int lane = threadIdx.x % kWarp;
    for (std::int64_t base = threadIdx.x - lane; base < row.n; base += kThreads) {
      const std::int64_t i = base + lane;
      unsigned rest = __ballot_sync(kAllLanes, i < row.n && wanted(i));
      for (int owner = 0; rest != 0; ++owner, rest >>= 1) {
        if ((rest & 1u) == 0) continue;
        const T* s = row.samples + (base + owner) * row.d;
        double sum = 0;
        for (std::int64_t k = lane; k < row.d; k += kWarp) {
          const double difference = (static_cast<double>(row.x[k]) - static_cast<double>(s[k])) * row.scale;
          sum += difference * difference;
        }
        for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
        if (lane == owner) row.d2[i] = static_cast<T>(sum);
      }
    }
  }
};

// As its namesake in parzen_cpu.cpp: inner products become squared distances; returns their minimum or NaN.
template <class T>
__device__ T squared_distances(const Row<T>& row, const RowLoops<T>& loops, double product_unit) {
  const T x_norm = static_cast<T>(row.x_norm);
  const T rest = static_cast<T>(row.x_norm - static_cast<double>(x_norm));
  const T twice = static_cast<T>(2 * product_unit);
  T* d2 = row.d2;
  T zero = 0, least = infinity<T>();
  for (std::int64_t i = threadIdx.x; i < row.n; i += kThreads) {
    const T value = squared_distance(x_norm, rest, row.sample_norms[i], twice * d2[i]);
    d2[i] = value;
    zero += value * 0;
    least = value < least ? value : least;
  }
  if (block_sum<kThreads>(zero) == 0) return block_minimum<kThreads>(least);
  loops.replace([=](std::int64_t i) { return !(d2[i] < infinity<T>()); });
  if (loops.count([=](std::int64_t i) { return d2[i] != d2[i]; }) != 0) return -infinity<T>() + infinity<T>();
  return loops.minimum([=](std::int64_t i) { return d2[i]; });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    centre_kernel(const T* rows, const T* centre, const double* scale, std::int64_t d, T* moved, double* norms) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * d;
  const T factor = static_cast<T>(*scale);
  double norm = 0;
  for (std::int64_t k = threadIdx.x; k < d; k += kThreads) {
    const T value = (rows[first + k] - centre[k]) * factor;
    moved[first + k] = value;
    norm += static_cast<double>(value) * static_cast<double>(value);
  }
  norm = block_sum<kThreads>(norm);
  if (threadIdx.x == 0) norms[blockIdx.x] = norm;
}

// Writes each number of `moved` [n, d], times `unit`, as float16: high, and what it leaves behind, low. A row of
// `halves` has `sections` parts of d numbers; number `low_section` holds low, the others high.
__global__ void __launch_bounds__(kThreads) split_kernel(const float* moved, std::int64_t size, std::int64_t d,
                                                         float unit, int sections, int low_section, float16* halves) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += stride) {
    const float value = moved[i] * unit;
    const float16 high = store<float16>(value);
    const float16 low = store<float16>(value - load(high));
    float16* first = halves + i / d * d * sections + i % d;
    for (int section = 0; section < sections; ++section) first[section * d] = section == low_section ? low : high;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) accumulate_kernel(ParzenTile tile, double* peak, double* sum) {
  const std::int64_t j = blockIdx.x;
  const Row<T> row = tile_row<T>(tile, j);
  const RowLoops<T> loops{row};
  Distances<T, RowLoops<T>> distances(row, loops, squared_distances(row, loops, tile.product_unit));
  const bool is_same_for_all = distances.are_good_for(tile.rates[tile.sigmas - 1]);
  std::int64_t sigmas = 0;
  for (std::int64_t group = 0; group < tile.sigmas; group += sigmas) {
    const T least = distances.widen(tile.rates[group]);
    if (least == infinity<T>()) return;  // every term is 0
    sigmas = is_same_for_all ? ceil_div(tile.sigmas - group, ceil_div(tile.sigmas - group, kSigmaGroup)) : 1;
    T rates[kSigmaGroup], partial[kSigmaGroup];
    for (int s = 0; s < kSigmaGroup; ++s) {
      rates[s] = s < sigmas ? binary_rate<T>(tile.rates[group + s]) : T(0);
      partial[s] = 0;
    }
    for (std::int64_t i = threadIdx.x; i < row.n; i += kThreads) {
      const T nearer = least - row.d2[i];
#pragma unroll
      for (int s = 0; s < kSigmaGroup; ++s) {
        if (s < sigmas) partial[s] += exp2_nonpositive(nearer * rates[s]);
      }
    }
#pragma unroll
    for (int s = 0; s < kSigmaGroup; ++s) {
      if (s >= sigmas) break;
      const double total = block_sum<kThreads>(static_cast<double>(partial[s]));
      if (threadIdx.x != 0) continue;
      const std::int64_t at = (group + s) * tile.stride + j;
      const LogSum merged =
          merge({peak[at], sum[at]}, {exponent(tile.rates[group + s], static_cast<double>(least)), total});
      peak[at] = merged.peak;
      sum[at] = merged.sum;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    weights_kernel(ParzenTile tile, const double* grad, const double* log_sum, double* mean_square) {
  const std::int64_t j = blockIdx.x;
  const Row<T> row = tile_row<T>(tile, j);
  const RowLoops<T> loops{row};
  Distances<T, RowLoops<T>> distances(row, loops, squared_distances(row, loops, tile.product_unit));
  const T least = distances.widen(tile.rates[tile.sigmas - 1]);
  for (std::int64_t s = 0; s < tile.sigmas; ++s) {  // the terms' mean squares, while the distances are still there
    const std::int64_t at = s * tile.stride + j;
    const T rate = binary_rate<T>(tile.rates[s]);
    double square = 0;
    for (std::int64_t i = threadIdx.x; i < row.n; i += kThreads) {
      const T term = exp2_nonpositive((least - row.d2[i]) * rate);
      square += term > 0 ? static_cast<double>(term) * static_cast<double>(row.d2[i]) : 0.0;
    }
    square = block_sum<kThreads>(square);
    if (threadIdx.x == 0)
      mean_square[at] += share_of_largest(tile.rates[s], static_cast<double>(least), log_sum[at]) * square;
  }
  for (std::int64_t i = threadIdx.x; i < row.n; i += kThreads) {
    T weight = 0;
    for (std::int64_t s = 0; s < tile.sigmas; ++s) {
      const std::int64_t at = s * tile.stride + j;
      const double share = share_of_largest(tile.rates[s], static_cast<double>(least), log_sum[at]);
      const T term = exp2_nonpositive((least - row.d2[i]) * binary_rate<T>(tile.rates[s]));
      weight += static_cast<T>(grad[at] * 2 * tile.rates[s] * share) * term;
    }
    row.d2[i] = weight;
  }
}

// A row is a block, and grids have at most 2^31 - 1 blocks: more rows than that never come in one tile.
template <class T>
void centre(const T* rows, const T* middle, const double* scale, std::int64_t n, std::int64_t d, T* moved,
            double* norms, cudaStream_t stream) {
  PYGAN_LAUNCH((centre_kernel<T>), static_cast<unsigned>(n), kThreads, 0, stream, rows, middle, scale, d, moved, norms);
  check_launch("parzen centre_kernel");
}

template <class T>
void accumulate(const ParzenTile& tile, double* peak, double* sum, cudaStream_t stream) {
  PYGAN_LAUNCH((accumulate_kernel<T>), static_cast<unsigned>(tile.rows), kThreads, 0, stream, tile, peak, sum);
  check_launch("parzen accumulate_kernel");
}

template <class T>
void weights(const ParzenTile& tile, const double* grad, const double* log_sum, double* mean_square,
             cudaStream_t stream) {
  PYGAN_LAUNCH((weights_kernel<T>), static_cast<unsigned>(tile.rows), kThreads, 0, stream, tile, grad, log_sum,
               mean_square);
  check_launch("parzen weights_kernel");
}

}  // namespace

void parzen_centre(DType dtype, const void* rows, const void* middle, const double* scale, std::int64_t n,
                   std::int64_t d, void* moved, double* norms, int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  if (dtype == DType::float64) {
    return centre(static_cast<const double*>(rows), static_cast<const double*>(middle), scale, n, d,
                  static_cast<double*>(moved), norms, s);
  }
  centre(static_cast<const float*>(rows), static_cast<const float*>(middle), scale, n, d, static_cast<float*>(moved),
         norms, s);
}

void parzen_split(const float* moved, std::int64_t n, std::int64_t d, double unit, int sections, int low_section,
                  void* halves, int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const std::int64_t wanted = ceil_div(n * d, kThreads);
  if (wanted == 0) return;
  const unsigned blocks = static_cast<unsigned>(wanted < kMaxSplitBlocks ? wanted : kMaxSplitBlocks);
  PYGAN_LAUNCH(split_kernel, blocks, kThreads, 0, reinterpret_cast<cudaStream_t>(stream), moved, n * d, d,
               static_cast<float>(unit), sections, low_section, static_cast<float16*>(halves));
  check_launch("parzen split_kernel");
}

void parzen_accumulate(DType dtype, const ParzenTile& tile, double* peak, double* sum, int device,
                       std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  if (dtype == DType::float64) return accumulate<double>(tile, peak, sum, s);
  accumulate<float>(tile, peak, sum, s);
}

void parzen_weights(DType dtype, const ParzenTile& tile, const double* grad, const double* log_sum, double* mean_square,
                    int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  if (dtype == DType::float64) return weights<double>(tile, grad, log_sum, mean_square, s);
  weights<float>(tile, grad, log_sum, mean_square, s);
}

}  // namespace cuda
}  // namespace pygan
