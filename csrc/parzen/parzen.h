// The Parzen window's inner sum, log sum_i exp(-|x - s_i|^2 / (2 sigma^2)), for all sigmas in one pass over the
// distances, and its derivative. The inner products come from outside, a tile at a time; these functions do the rest.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/simd.h"

namespace pygan {

// Points against samples. Both were moved by -centre and multiplied by `scale`, a power of two, before their inner
// products were taken: far from the origin those would otherwise cancel, and with the largest sigma near 1/2 no
// distance overflows that does not overflow in the result. dtype is that of x: float32 or float64.
struct ParzenTile {
  const void* x;             // [rows, d] points, as given
  const void* samples;       // [columns, d] samples, as given
  const double* x_norms;     // [rows] squared norms, moved and scaled
  const void* sample_norms;  // [columns], of dtype
  void* products;            // [rows, columns] inner products, moved and scaled; overwritten
  const double* rates;       // [sigmas] 1 / (2 sigma^2), scaled; falling
  const double* scale;       // [1]
  double product_unit;       // by which the products are to be multiplied
  std::int64_t rows, columns, d, sigmas;
  std::int64_t stride;  // from one sigma to the next in the [sigmas, ...] arrays below, which start at the tile's row
};

// The same sums without tiles in global memory, by one kernel. x and samples are of one dtype, float32 or float64.
// Differences are multiplied by `scale`, a power of two, before they are squared: one above 1 costs time, and is needed
// only where squares would underflow.
struct ParzenFused {
  const void* x;        // [n, d]
  const void* samples;  // [count, d]
  const double* rates;  // [sigmas] 1 / (2 sigma^2), scaled
  const double* scale;  // [1]
  double* log_sums;     // [parts, sigmas, n], each over one part of the samples
  std::int64_t n, count, d, sigmas, parts;
};

PYGAN_EACH_SIMD_LEVEL(
    // moved = (rows - centre) * scale: [n, d]; norms: [n] their squared norms.
    void parzen_centre_cpu(DType dtype, const void* rows, const void* centre, const double* scale, std::int64_t n,
                           std::int64_t d, void* moved, double* norms, int threads);
    // Adds the tile's terms to the partial sums peak, sum: [sigmas, rows], which start as (-inf, 0).
    void parzen_accumulate_cpu(DType dtype, const ParzenTile& tile, double* peak, double* sum, int threads);
    // products become the weights w[j, i] = sum_s grad[s, j] / sigma_s^2 p[s, j, i] with the terms' shares p of the
    // sums log_sum: [sigmas, rows];
    // mean_square[s, j] += sum_i p[s, j, i] |x_j - s_i|^2 (scaled).
    void parzen_weights_cpu(DType dtype, const ParzenTile& tile, const double* grad, const double* log_sum,
                            double* mean_square, int threads);)

namespace cuda {
void parzen_centre(DType dtype, const void* rows, const void* centre, const double* scale, std::int64_t n,
                   std::int64_t d, void* moved, double* norms, int device, std::uintptr_t stream);
// moved [n, d], times unit, as float16 in two halves of 11 bits: halves [n, sections, d] has the low one in section
// low_section and the high one in the others.
void parzen_split(const float* moved, std::int64_t n, std::int64_t d, double unit, int sections, int low_section,
                  void* halves, int device, std::uintptr_t stream);
void parzen_accumulate(DType dtype, const ParzenTile& tile, double* peak, double* sum, int device,
                       std::uintptr_t stream);
void parzen_weights(DType dtype, const ParzenTile& tile, const double* grad, const double* log_sum, double* mean_square,
                    int device, std::uintptr_t stream);
// Into how many parts parzen_fused should cut the samples so that few points, too, keep the device busy: at most 65535.
std::int64_t parzen_fused_parts(std::int64_t n, std::int64_t count, std::int64_t sigmas, int device);
void parzen_fused(DType dtype, const ParzenFused& op, int device, std::uintptr_t stream);
}  // namespace cuda
}  // namespace pygan
