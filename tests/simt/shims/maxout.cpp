#include "maxout/maxout.h"

#include "shim.h"

using namespace pygan;

extern "C" int maxout_pool(int dtype, const MaxoutPool* op, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::maxout_pool(DType(dtype), *op, device, stream); });
}

extern "C" int maxout_spread(int dtype, const MaxoutSpread* op, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::maxout_spread(DType(dtype), *op, device, stream); });
}

extern "C" int maxout_grad_input(int dtype, const MaxoutBackward* op, const void* weight, void* grad_x, int device,
                                 std::uintptr_t stream) {
  return guarded([&] { cuda::maxout_grad_input(DType(dtype), *op, weight, grad_x, device, stream); });
}

extern "C" int maxout_grad_weight(int dtype, const MaxoutBackward* op, const void* x, void* grad_weight,
                                  void* grad_bias, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::maxout_grad_weight(DType(dtype), *op, x, grad_weight, grad_bias, device, stream); });
}
