#include "adversarial_loss/adversarial_loss.h"

#include "shim.h"

using namespace pygan;

extern "C" int64_t adversarial_loss_blocks(int64_t size) {
  return cuda::adversarial_loss_blocks(size);
}

extern "C" int adversarial_loss(int dtype, const LossTerm* terms, double* partials, void* loss, int device,
                                std::uintptr_t stream) {
  const LossTerm both[2] = {terms[0], terms[1]};
  return guarded([&] { cuda::adversarial_loss(DType(dtype), both, partials, loss, device, stream); });
}
