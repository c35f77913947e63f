// Reductions over the threads of a block.
#pragma once

#include "common/cuda.h"

namespace pygan {
namespace cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Folds the values of all kThreads threads in a fixed order; every thread gets the result. The whole block must come.
template <int kThreads, class V, class Fold>
__device__ V block_fold(V value, Fold fold) {
  PYGAN_SHARED(V, of_warp, [kThreads / kWarp]);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = fold(value, __shfl_xor_sync(kAllLanes, value, offset));
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) value = fold(value, of_warp[warp]);
  __syncthreads();  // before the next fold writes
  return value;
}

template <int kThreads, class V>
__device__ V block_sum(V value) {
  return block_fold<kThreads>(value, [](V a, V b) { return a + b; });
}

template <int kThreads, class V>
__device__ V block_minimum(V value) {
  return block_fold<kThreads>(value, [](V a, V b) { return b < a ? b : a; });
}

}  // namespace cuda
}  // namespace pygan
