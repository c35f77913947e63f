#include "momentum/momentum.h"

#include "shim.h"

using namespace pygan;

extern "C" int momentum(int parameter, int gradient, const MomentumTensor* tensors, int64_t count, const void* rates,
                        int device, std::uintptr_t stream) {
  return guarded([&] { cuda::momentum(DType(parameter), DType(gradient), tensors, count, rates, device, stream); });
}
