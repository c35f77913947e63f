// One step of gradient descent with momentum, as the authors' code has it: v <- m v - r g, then p <- p + v.
#pragma once

#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

template <class T>
PYGAN_HD T next_velocity(T velocity, T gradient, T rate, T momentum) {
  return momentum * velocity - rate * gradient;
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
