// The matrix products of a layer whose activations are mostly zeros, by visiting only what is not zero. On the CPU.
//
// A zero adds nothing, whatever it meets: 0 * infinity is left out. Sums are kept in float32 at least, in an order that
// does not depend on the number of threads, and rounded once.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/simd.h"

namespace pygan {

// The operand that is mostly zeros.
struct SparseOperand {
  const void* values;  // [n, m]
  std::int64_t n, m;
};

// A matrix in memory, by the distance between its rows and between its columns, in elements.
struct Strided {
  const void* data;
  std::int64_t row_stride, column_stride;
};

// How many of the n numbers are not zero.
PYGAN_EACH_SIMD_LEVEL(std::int64_t count_live_cpu(DType dtype, const void* values, std::int64_t n, int threads);)
// out [n, columns] = values matrix + bias: matrix [m, columns], bias [columns] or null
PYGAN_EACH_SIMD_LEVEL(void sparse_times_cpu(DType dtype, const SparseOperand& left, const Strided& matrix,
                                            const void* bias, std::int64_t columns, void* out, int threads);)
// out [m, columns] = values^T x: x [n, columns]
PYGAN_EACH_SIMD_LEVEL(void sparse_outer_cpu(DType dtype, const SparseOperand& left, const void* x, std::int64_t columns,
                                            void* out, int threads);)

}  // namespace pygan
