#include "common/cuda.h"
#include "maxout/maxout.h"
#include "maxout/maxout_math.h"

namespace pygan {
namespace cuda {
namespace {

using namespace PYGAN_SIMD_LEVEL;
using std::int64_t;

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 16;
constexpr int kColumns = 128;  // columns of x per block of the gradients, one to a thread
constexpr int kSums = 16;      // pieces whose sums one block of the weight gradient holds

unsigned blocks_for(int64_t threads) {
  const int64_t blocks = ceil_div(threads, kThreads);
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

__device__ int64_t first_thread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__device__ int64_t all_threads() {
  return static_cast<int64_t>(gridDim.x) * kThreads;
}

template <class T>
__global__ void __launch_bounds__(kThreads) pool_kernel(MaxoutPool op) {
  const T* z = static_cast<const T*>(op.z);
  T* y = static_cast<T*>(op.y);
  const int64_t size = op.outer * op.units * op.inner;
  for (int64_t i = first_thread(); i < size; i += all_threads()) {
    const T* first = z + i / op.inner * op.pieces * op.inner + i % op.inner;
    T best = first[0];
    int64_t winner = 0;
    for (int64_t p = 1; p < op.pieces; ++p) {
      const T value = first[p * op.inner];
      if (beats(load(value), load(best))) {
        best = value;
        winner = p;
      }
    }
    y[i] = best;
    op.index[i] = static_cast<std::uint8_t>(winner);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) spread_kernel(MaxoutSpread op) {
  const T* grad = static_cast<const T*>(op.grad);
  T* grad_z = static_cast<T*>(op.grad_z);
  const int64_t size = op.outer * op.units * op.pieces * op.inner;
  for (int64_t i = first_thread(); i < size; i += all_threads()) {
    const int64_t piece = i / op.inner % op.pieces;
    const int64_t at = i / op.inner / op.pieces * op.inner + i % op.inner;
    grad_z[i] = op.index[at] == piece ? grad[at] : T{};
  }
}

// Block x: a row of the output (grid-stride over rows); block y: kColumns columns.
template <class T>
__global__ void __launch_bounds__(kColumns) grad_input_kernel(MaxoutBackward op, const T* weight, T* grad_x) {
  using C = compute_t<T>;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kColumns + threadIdx.x;
  if (column >= op.in) return;
  for (int64_t b = blockIdx.x; b < op.batch; b += gridDim.x) {
    const T* grad = static_cast<const T*>(op.grad) + b * op.units;
    const std::uint8_t* index = op.index + b * op.units;
    C sum = 0;
    for (int64_t u = 0; u < op.units; ++u) {
      if (index[u] >= op.pieces) continue;
      sum += load(grad[u]) * load(weight[(u * op.pieces + index[u]) * op.in + column]);
    }
    grad_x[b * op.in + column] = store<T>(sum);
  }
}

// Block x: a unit and kSums of its pieces (grid-stride); block y: kColumns columns. The bias is one more column, in
// which every example holds 1. Each thread sums alone, in the order of the batch.
template <class T>
__global__ void __launch_bounds__(kColumns)
    grad_weight_kernel(MaxoutBackward op, const T* x, T* grad_weight, T* grad_bias) {
  using C = compute_t<T>;
  PYGAN_SHARED(C, sums, [kSums][kColumns]);
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kColumns + threadIdx.x;
  const bool is_bias = column == op.in;
  if (column > op.in || (is_bias && grad_bias == nullptr)) return;
  const T* grad = static_cast<const T*>(op.grad);
  const int64_t groups = ceil_div(op.pieces, kSums);
  for (int64_t item = blockIdx.x; item < op.units * groups; item += gridDim.x) {
    const int64_t unit = item / groups, begin = item % groups * kSums;
    const int64_t pieces = op.pieces - begin < kSums ? op.pieces - begin : kSums;
    for (int64_t p = 0; p < pieces; ++p) sums[p][threadIdx.x] = 0;
    for (int64_t b = 0; b < op.batch; ++b) {
      const int64_t piece = op.index[b * op.units + unit] - begin;
      if (piece < 0 || piece >= pieces) continue;
      const C value = is_bias ? C(1) : load(x[b * op.in + column]);
      sums[piece][threadIdx.x] += load(grad[b * op.units + unit]) * value;
    }
    for (int64_t p = 0; p < pieces; ++p) {
      const int64_t row = unit * op.pieces + begin + p;
      if (is_bias) {
        grad_bias[row] = store<T>(sums[p][threadIdx.x]);
      } else {
        grad_weight[row * op.in + column] = store<T>(sums[p][threadIdx.x]);
      }
    }
  }
}

dim3 grid_for(int64_t rows, int64_t columns) {
  return dim3(static_cast<unsigned>(rows < kMaxBlocks ? rows : kMaxBlocks),
              static_cast<unsigned>(ceil_div(columns, kColumns)));
}

}  // namespace

void maxout_pool(DType dtype, const MaxoutPool& op, int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  with_type<float, double, bfloat16, float16>(dtype, [&](auto element) {
    using T = decltype(element);
    const unsigned blocks = blocks_for(op.outer * op.units * op.inner);
    PYGAN_LAUNCH((pool_kernel<T>), blocks, kThreads, 0, reinterpret_cast<cudaStream_t>(stream), op);
    check_launch("maxout pool_kernel");
  });
}

void maxout_spread(DType dtype, const MaxoutSpread& op, int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  with_type<float, double, bfloat16, float16>(dtype, [&](auto element) {
    using T = decltype(element);
    const unsigned blocks = blocks_for(op.outer * op.units * op.pieces * op.inner);
    PYGAN_LAUNCH((spread_kernel<T>), blocks, kThreads, 0, reinterpret_cast<cudaStream_t>(stream), op);
    check_launch("maxout spread_kernel");
  });
}

void maxout_grad_input(DType dtype, const MaxoutBackward& op, const void* weight, void* grad_x, int device,
                       std::uintptr_t stream) {
  const DeviceGuard guard(device);
  with_type<float, double, bfloat16, float16>(dtype, [&](auto element) {
    using T = decltype(element);
    PYGAN_LAUNCH((grad_input_kernel<T>), grid_for(op.batch, op.in), kColumns, 0, reinterpret_cast<cudaStream_t>(stream),
                 op, static_cast<const T*>(weight), static_cast<T*>(grad_x));
    check_launch("maxout grad_input_kernel");
  });
}

void maxout_grad_weight(DType dtype, const MaxoutBackward& op, const void* x, void* grad_weight, void* grad_bias,
                        int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  with_type<float, double, bfloat16, float16>(dtype, [&](auto element) {
    using T = decltype(element);
    const dim3 grid = grid_for(op.units * ceil_div(op.pieces, kSums), op.in + 1);
    PYGAN_LAUNCH((grad_weight_kernel<T>), grid, kColumns, 0, reinterpret_cast<cudaStream_t>(stream), op,
                 static_cast<const T*>(x), static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
    check_launch("maxout grad_weight_kernel");
  });
}

}  // namespace cuda
}  // namespace pygan
