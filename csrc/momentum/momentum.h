// Gradient descent with momentum over a list of tensors, in one pass over memory.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/simd.h"

namespace pygan {

struct MomentumTensor {
  void* parameter;       // [size] float32 or float64
  void* velocity;        // [size] the dtype of the parameter
  const void* gradient;  // [size] the dtype of the parameter, or bfloat16
  void* copy;            // [size] bfloat16, receives the rounded parameter; or null
  std::int64_t size;
};

// rates: [2] learning rate and momentum, in the parameters' dtype, on their device.
PYGAN_EACH_SIMD_LEVEL(void momentum_cpu(DType parameter, DType gradient, const MomentumTensor* tensors,
                                        std::int64_t count, const void* rates, int threads);)

namespace cuda {
void momentum(DType parameter, DType gradient, const MomentumTensor* tensors, std::int64_t count, const void* rates,
              int device, std::uintptr_t stream);
}  // namespace cuda
}  // namespace pygan
