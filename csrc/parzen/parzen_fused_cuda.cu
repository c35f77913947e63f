// The Parzen sums in one kernel: squared distances from differences in registers, and an online logsumexp over them for
// every sigma, so that neither products nor distances ever reach global memory.
#include "common/block.h"
#include "common/cuda.h"
#include "common/sum.h"
#include "parzen/parzen.h"
#include "parzen/parzen_math.h"

namespace pygan {
namespace cuda {
namespace {

using namespace PYGAN_SIMD_LEVEL;

constexpr int kThreads = 128;
constexpr int kLanes = 16;                   // threads that share their rows, half a warp
constexpr int kRowStep = kThreads / kLanes;  // from one row of a thread to its next
constexpr int kRowsEach = 8;                 // rows of a thread
constexpr int kRows = kRowStep * kRowsEach;  // points of a block
template <class T>
constexpr int kColumnsEach = 16 / sizeof(T);  // columns of a thread, as many as registers hold
template <class T>
constexpr int kColumns = kLanes * kColumnsEach<T>;  // samples of a tile
constexpr int kDepth = 32;                          // values of a row that are in shared memory at a time
constexpr int kSigmas = 16;                         // of a block

template <class T>
struct alignas(16) Four {
  T value[4];
};

// Part of a matrix, with one Four too many in a row, which puts the rows of eight threads into different banks.
template <class T>
using TileRow = Four<T>[kDepth / 4 + 1];

// NaN wins.
template <class T>
__device__ T minimum(T a, T b) {
  return b < a || b != b ? b : a;
}

// tile = rows [top, end) and values [k, d) of matrix: [end, d], as far as they fit, times factor, and 0 beyond.
template <class T>
__device__ void load(const T* matrix, std::int64_t top, std::int64_t end, std::int64_t k, std::int64_t d, T factor,
                     int rows, TileRow<T>* tile) {
  const int column = threadIdx.x % kDepth;
  for (int row = threadIdx.x / kDepth; row < rows; row += kThreads / kDepth) {
    const bool is_inside = top + row < end && k + column < d;
    tile[row][column / 4].value[column % 4] = is_inside ? matrix[(top + row) * d + k + column] * factor : T(0);
  }
}

// Adds the squared differences of the first 4 * fours values in shared memory to the thread's pairs.
template <bool kMagnify, class T>
__device__ void add_squares(const TileRow<T>* points, const TileRow<T>* samples, int fours, T magnify,
                            Sum<T> (&d2)[kRowsEach][kColumnsEach<T>]) {
  const int row = threadIdx.x / kLanes, column = threadIdx.x % kLanes;
  T part[kRowsEach][kColumnsEach<T>] = {};
#pragma unroll 1
  for (int k = 0; k < fours; ++k) {
    Four<T> s[kColumnsEach<T>];
#pragma unroll
    for (int j = 0; j < kColumnsEach<T>; ++j) s[j] = samples[column + j * kLanes][k];
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      const Four<T> x = points[row + i * kRowStep][k];
#pragma unroll
      for (int j = 0; j < kColumnsEach<T>; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          T difference = x.value[v] - s[j].value[v];
          if (kMagnify) difference *= magnify;
          part[i][j] = multiply_add(difference, difference, part[i][j]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) {
#pragma unroll
    for (int j = 0; j < kColumnsEach<T>; ++j) d2[i][j].add(part[i][j]);
  }
}

// Folds the values of each row over the kLanes threads that share it; a thread gets the result of row number lane / 2.
// Half of the rows that are left change places in each step, so this takes kRowsEach shuffles, not four for each row.
template <class T, class Fold>
__device__ T fold_rows(T (&values)[kRowsEach], Fold fold) {
  static_assert(kLanes == 2 * kRowsEach, "two threads for a row are left at the end");
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int half = kRowsEach / 2; half > 0; half /= 2) {
    const bool is_upper = (lane & (2 * half)) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T given = is_upper ? values[i] : values[i + half];
      const T kept = is_upper ? values[i + half] : values[i];
      values[i] = fold(kept, __shfl_xor_sync(kAllLanes, given, 2 * half));
    }
  }
  return fold(values[0], __shfl_xor_sync(kAllLanes, values[0], 1));
}

// A block has kRows points (x), one part of the samples (y) and kSigmas sigmas (z).
template <class T>
__global__ void __launch_bounds__(kThreads) fused_kernel(ParzenFused op) {
  PYGAN_SHARED(TileRow<T>, points, [kRows]);
  PYGAN_SHARED(TileRow<T>, samples, [kColumns<T>]);
  PYGAN_SHARED(T, rates, [kSigmas]);
  PYGAN_SHARED(Sum<T>, sums, [kSigmas][kRows]);  // each touched by one thread only

  const std::int64_t top = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const std::int64_t share = ceil_div(ceil_div(op.count, kColumns<T>), gridDim.y) * kColumns<T>;
  const std::int64_t begin = blockIdx.y * share;
  const std::int64_t end = begin + share < op.count ? begin + share : op.count;
  const std::int64_t group = static_cast<std::int64_t>(blockIdx.z) * kSigmas;
  const int sigmas = static_cast<int>(op.sigmas - group < kSigmas ? op.sigmas - group : kSigmas);

  const int lane = threadIdx.x % kLanes;
  const int row = threadIdx.x / kLanes + lane / 2 * kRowStep;  // the one that fold_rows gives this thread
  const bool keeps = lane % 2 == 0;                            // its sums
  if (keeps) {
    for (int s = 0; s < sigmas; ++s) sums[s][row] = {0, 0};
  }
  if (threadIdx.x < static_cast<unsigned>(sigmas)) rates[threadIdx.x] = binary_rate<T>(op.rates[group + threadIdx.x]);
  __syncthreads();

  // A number times a large scale might overflow where the difference of two does not.
  const T shrink = static_cast<T>(*op.scale < 1 ? *op.scale : 1);
  const T magnify = static_cast<T>(*op.scale > 1 ? *op.scale : 1);
  T least = infinity<T>();  // squared distance of `row` so far; its sums are relative to it
  for (std::int64_t left = begin; left < end; left += kColumns<T>) {
    Sum<T> d2[kRowsEach][kColumnsEach<T>] = {};
    for (std::int64_t k = 0; k < op.d; k += kDepth) {
      load(static_cast<const T*>(op.x), top, op.n, k, op.d, shrink, kRows, points);
      load(static_cast<const T*>(op.samples), left, end, k, op.d, shrink, kColumns<T>, samples);
      __syncthreads();
      const int fours = static_cast<int>(op.d - k < kDepth ? ceil_div(op.d - k, 4) : kDepth / 4);
      magnify == 1 ? add_squares<false>(points, samples, fours, magnify, d2)
                   : add_squares<true>(points, samples, fours, magnify, d2);
      __syncthreads();  // before the next values are loaded
    }

    T distance[kRowsEach][kColumnsEach<T>], nearest[kRowsEach];
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      nearest[i] = infinity<T>();
#pragma unroll
      for (int j = 0; j < kColumnsEach<T>; ++j) {
        distance[i][j] = left + lane + j * kLanes < end ? d2[i][j].value() : infinity<T>();
        nearest[i] = minimum(nearest[i], distance[i][j]);
      }
    }
    const T before = least;
    least = minimum(least, fold_rows(nearest, [](T a, T b) { return minimum(a, b); }));
    const T fall = least - before;
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) nearest[i] = __shfl_sync(kAllLanes, least, 2 * i, kLanes);

#pragma unroll 1
    for (int s = 0; s < sigmas; ++s) {
      const T rate = rates[s];
      T terms[kRowsEach] = {};
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) {
#pragma unroll
        for (int j = 0; j < kColumnsEach<T>; ++j) {
          terms[i] += exp2_nonpositive((nearest[i] - distance[i][j]) * rate);
        }
      }
      const T total = fold_rows(terms, [](T a, T b) { return a + b; });
      if (!keeps) continue;
      sums[s][row].scale(exp2_nonpositive(fall * rate));
      sums[s][row].add(total);
    }
  }

  if (!keeps || top + row >= op.n) return;
  for (int s = 0; s < sigmas; ++s) {
    const double sum = static_cast<double>(sums[s][row].total) + static_cast<double>(sums[s][row].lost);
    op.log_sums[(blockIdx.y * op.sigmas + group + s) * op.n + top + row] =
        exponent(op.rates[group + s], static_cast<double>(least)) + std::log(sum);
  }
}

template <class T>
void fused(const ParzenFused& op, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(op.n, kRows)), static_cast<unsigned>(op.parts),
                  static_cast<unsigned>(ceil_div(op.sigmas, kSigmas)));
  PYGAN_LAUNCH((fused_kernel<T>), grid, kThreads, 0, stream, op);
  check_launch("parzen fused_kernel");
}

}  // namespace

std::int64_t parzen_fused_parts(std::int64_t n, std::int64_t count, std::int64_t sigmas, int device) {
  constexpr std::int64_t kBlocksEach = 8;        // that keep a multiprocessor busy
  constexpr std::int64_t kSamplesOfPart = 1024;  // at least, so that the merge costs nothing
  int multiprocessors = 0;
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  const std::int64_t blocks = ceil_div(n, kRows) * ceil_div(sigmas, kSigmas);
  const std::int64_t wanted = ceil_div(kBlocksEach * multiprocessors, blocks);
  const std::int64_t most = ceil_div(count, kSamplesOfPart);
  return wanted < most ? wanted : most;
}

void parzen_fused(DType dtype, const ParzenFused& op, int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  if (dtype == DType::float64) return fused<double>(op, s);
  fused<float>(op, s);
}

}  // namespace cuda
}  // namespace pygan
