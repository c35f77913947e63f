// The rule of the maximum, per piece.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

// Whether `value`, of a later piece, takes the place of `best`: ties stay with the first piece, and so does the first
// NaN. Written with & so that loops over many units need no branch.
template <class T>
PYGAN_HD bool beats(T value, T best) {
  return !(value <= best) & (best == best);
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
