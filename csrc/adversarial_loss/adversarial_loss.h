// Adversarial losses and their gradients in one pass over the logits.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/simd.h"

namespace pygan {

// weight * mean_i softplus(sign * logits[i]), one of the at most two terms of a loss.
struct LossTerm {
  const void* logits;  // [size]
  void* gradient;      // [size] derivative of the loss by each logit, or null when not wanted
  std::int64_t size;   // 0: the term is left out
  int sign;            // +1 or -1
  int weight;          // +1 or -1
};

// loss: one number of the logits' dtype. Sums are kept in double and do not depend on the number of threads.
PYGAN_EACH_SIMD_LEVEL(void adversarial_loss_cpu(DType dtype, const LossTerm (&terms)[2], void* loss, int threads);)

namespace cuda {
// partials: double [adversarial_loss_blocks(sizes)], scratch.
std::int64_t adversarial_loss_blocks(std::int64_t size);
void adversarial_loss(DType dtype, const LossTerm (&terms)[2], double* partials, void* loss, int device,
                      std::uintptr_t stream);
}  // namespace cuda
}  // namespace pygan
