// Dropout with a mask that is a pure function of (seed, index of the element).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/simd.h"

namespace pygan {

struct DropoutArguments {
  const void* x;             // [size]
  void* y;                   // [size], may be x
  std::int64_t size;         // number of elements
  std::int64_t first;        // index of x[0] in the mask
  const std::int64_t* seed;  // [1], on the device of x
  double keep;               // probability of keeping an element, in (0, 1]; what is kept is divided by it
};

PYGAN_EACH_SIMD_LEVEL(void dropout_cpu(DType dtype, const DropoutArguments& arguments, int threads);)

namespace cuda {
void dropout(DType dtype, const DropoutArguments& arguments, int device, std::uintptr_t stream);
}  // namespace cuda
}  // namespace pygan
