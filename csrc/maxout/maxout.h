// Maxout: the maximum over the pieces of each unit, and gradients that pass through the one piece that won.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/simd.h"

namespace pygan {

constexpr std::int64_t kMaxPieces = 256;  // the winner's index is one byte

// y = max_p z[:, :, p, :]. Ties go to the first piece; the first NaN wins.
struct MaxoutPool {
  const void* z;        // [outer, units, pieces, inner]
  void* y;              // [outer, units, inner]
  std::uint8_t* index;  // [outer, units, inner], the piece that won
  std::int64_t outer, units, pieces, inner;
};

// The gradient of the maximum with respect to z: `grad` where a piece won, zero elsewhere.
struct MaxoutSpread {
  const void* grad;           // [outer, units, inner]
  const std::uint8_t* index;  // [outer, units, inner]
  void* grad_z;               // [outer, units, pieces, inner]
  std::int64_t outer, units, pieces, inner;
};

// On the CPU every index is below `pieces`; on CUDA, where nobody has looked, a larger one takes no gradient.
// Gradients of y[b, u] = x[b] . weight[u, index[b, u]] + bias[u, index[b, u]], through the winning pieces only.
struct MaxoutBackward {
  const void* grad;           // [batch, units]
  const std::uint8_t* index;  // [batch, units]
  std::int64_t batch, in, units, pieces;
};

// Sums are kept in float32 at least, and rounded once.
PYGAN_EACH_SIMD_LEVEL(void maxout_pool_cpu(DType dtype, const MaxoutPool& pool, int threads);)
PYGAN_EACH_SIMD_LEVEL(void maxout_spread_cpu(DType dtype, const MaxoutSpread& spread, int threads);)
// weight [units, pieces, in] -> grad_x [batch, in]
PYGAN_EACH_SIMD_LEVEL(void maxout_grad_input_cpu(DType dtype, const MaxoutBackward& backward, const void* weight,
                                                 void* grad_x, int threads);)
// x [batch, in] -> grad_weight [units, pieces, in], grad_bias [units, pieces] or null
PYGAN_EACH_SIMD_LEVEL(void maxout_grad_weight_cpu(DType dtype, const MaxoutBackward& backward, const void* x,
                                                  void* grad_weight, void* grad_bias, int threads);)

namespace cuda {
void maxout_pool(DType dtype, const MaxoutPool& pool, int device, std::uintptr_t stream);
void maxout_spread(DType dtype, const MaxoutSpread& spread, int device, std::uintptr_t stream);
void maxout_grad_input(DType dtype, const MaxoutBackward& backward, const void* weight, void* grad_x, int device,
                       std::uintptr_t stream);
void maxout_grad_weight(DType dtype, const MaxoutBackward& backward, const void* x, void* grad_weight, void* grad_bias,
                        int device, std::uintptr_t stream);
}  // namespace cuda
}  // namespace pygan
