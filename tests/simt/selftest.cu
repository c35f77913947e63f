// Kernels that the SIMT host is tested with. Each is right with bug = 0; every other value plants one mistake that a
// real kernel might hold, and cases_selftest.py states which tool must report it.
#include <cstdint>

namespace {

// Row sums: one block a row, a warp reduction, partial sums through shared memory; rows by a grid stride.
__global__ void row_sum(const float* x, int64_t rows, int64_t columns, float* out, int bug) {
  PYGAN_SHARED(float, partial, [2]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (bug == 6 && threadIdx.x >= columns) return;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = 0;
    for (int64_t j = threadIdx.x; j < columns + (bug == 3); j += blockDim.x) sum += x[row * columns + j];
    for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(bug == 7 ? 0xffffu : 0xffffffffu, sum, offset);
    if (lane == 0) partial[warp + (bug == 4)] = sum;
    if (bug != 1) __syncthreads();
    if (threadIdx.x == 0) out[row] = partial[0] + partial[1];
    if (bug != 2) __syncthreads();
  }
}

// Each warp reverses its own 32 elements through dynamic shared memory.
__global__ void reverse32(const float* x, int64_t n, float* out, int bug) {
  PYGAN_DYN_SHARED(float, tile);
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x - lane;
  const int64_t begin = int64_t(blockIdx.x) * blockDim.x + first;
  if (begin >= n) return;  // whole warps leave, and no block barrier follows
  tile[first + (bug == 3 ? lane + 1 : lane)] = x[begin + lane];
  if (bug == 2) {
    (void)__shfl_xor_sync(0xffffffffu, 0, 1);  // a shuffle orders no memory
  } else if (bug != 1) {
    __syncwarp();
  }
  out[begin + lane] = tile[first + 31 - lane];
}

// The last block to finish adds the other blocks' partial sums.
__global__ void total(const float* x, int64_t n, float* partial, unsigned* ticket, float* out, int bug) {
  PYGAN_SHARED(float, sum, );
  PYGAN_SHARED(bool, last, );
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    if (bug == 3)
      sum += x[i];
    else
      atomicAdd(&sum, x[i]);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    if (bug == 5) __threadfence();  // too early
    partial[blockIdx.x] = sum;
    if (bug != 1 && bug != 5) __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    if (bug != 4) __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum_of_all = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum_of_all += partial[b];
    out[0] = sum_of_all;
  }
  if (bug == 2 && threadIdx.x == 0) out[1] += sum;  // a race between blocks
}

// Divergence: barriers and warp operations that not all threads reach together.
__global__ void divergent(int* out, int bug) {
  PYGAN_SHARED(int, value, [64]);
  const int t = threadIdx.x;
  value[t] = t;
  if (bug == 1) {  // the same barrier twice in the source is two barriers
    if (t < 32)
      __syncthreads();
    else
      __syncthreads();
  } else if (bug == 2) {  // half a warp never comes
    if (t % 32 < 16) value[t] = __shfl_down_sync(0xffffffffu, t, 1);
    __syncthreads();
  } else if (bug == 3) {  // a mask that leaves out its caller
    value[t] = __shfl_sync(0xfffffffeu, t, 1);
    __syncthreads();
  } else {
    if (t % 32 < 16) value[t] = __shfl_xor_sync(0x0000ffffu, t, 1);  // a legal partial mask
    __syncthreads();
  }
  out[t] = value[63 - t] + __syncthreads_count(t % 3 == 0);
  if (t % 32 == 5) out[t] = static_cast<int>(__popc(__ballot_sync(1u << 5, true)));
}

// Reads shared memory that nobody has written, and loads vectors.
__global__ void scale4(const float* x, int64_t n, float factor, float* out, int bug) {
  PYGAN_SHARED(float, scale, );
  if (threadIdx.x == 0 && bug != 1) scale = factor;
  __syncthreads();
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (4 * i + 3 >= n) return;
  const float4 v = *reinterpret_cast<const float4*>(x + 4 * i + (bug == 2));
  *reinterpret_cast<float4*>(out + 4 * i) = make_float4(scale * v.x, scale * v.y, scale * v.z, scale * v.w);
}

// One element a thread, at offsets that need 64 bits.
__global__ void fill(float* out, int64_t n, int bug) {
  const int64_t i =
      bug == 1 ? int64_t(blockIdx.x * blockDim.x + threadIdx.x) : int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = 1;
}

}  // namespace

extern "C" int run_row_sum(const float* x, int64_t rows, int64_t columns, float* out, unsigned grid, int bug) {
  PYGAN_LAUNCH(row_sum, grid, 64, 0, nullptr, x, rows, columns, out, bug);
  return cudaGetLastError();
}
extern "C" int run_reverse32(const float* x, int64_t n, float* out, int bug) {
  const unsigned grid = static_cast<unsigned>((n + 63) / 64);
  PYGAN_LAUNCH(reverse32, grid, 64, 64 * sizeof(float), nullptr, x, n, out, bug);
  return cudaGetLastError();
}
extern "C" int run_total(const float* x, int64_t n, float* partial, unsigned* ticket, float* out, unsigned grid,
                         int bug) {
  PYGAN_LAUNCH(total, grid, 64, 0, nullptr, x, n, partial, ticket, out, bug);
  return cudaGetLastError();
}
extern "C" int run_divergent(int* out, int bug) {
  PYGAN_LAUNCH(divergent, 1, 64, 0, nullptr, out, bug);
  return cudaGetLastError();
}
extern "C" int run_scale4(const float* x, int64_t n, float factor, float* out, int bug) {
  PYGAN_LAUNCH(scale4, static_cast<unsigned>((n / 4 + 63) / 64), 64, 0, nullptr, x, n, factor, out, bug);
  return cudaGetLastError();
}
extern "C" int run_fill(float* out, int64_t n, unsigned block, size_t shared_bytes, int bug) {
  PYGAN_LAUNCH(fill, static_cast<unsigned>((n + block - 1) / block), block, shared_bytes, nullptr, out, n, bug);
  return cudaGetLastError();
}
