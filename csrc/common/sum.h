// A sum that does not lose digits, however many numbers it has.
#pragma once

#include <cmath>

#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

// A sum of numbers >= 0 with what rounding took from it: exact to about an ULP.
template <class T>
struct Sum {
  T total, lost;

  PYGAN_HD void add(T value) {
    const T next = total + value;
    lost += value - (next - total);
    total = next;
  }
  PYGAN_HD void scale(T factor) {
    total *= factor;
    lost *= factor;
  }
  PYGAN_HD T value() const { return total < static_cast<T>(HUGE_VAL) ? total + lost : total; }
};

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
