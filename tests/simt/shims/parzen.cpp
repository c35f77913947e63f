#include "parzen/parzen.h"

#include "shim.h"

using namespace pygan;

extern "C" int parzen_centre(int dtype, const void* rows, const void* centre, const double* scale, int64_t n, int64_t d,
                             void* moved, double* norms, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::parzen_centre(DType(dtype), rows, centre, scale, n, d, moved, norms, device, stream); });
}

extern "C" int parzen_split(const float* moved, int64_t n, int64_t d, double unit, int sections, int low_section,
                            void* halves, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::parzen_split(moved, n, d, unit, sections, low_section, halves, device, stream); });
}

extern "C" int parzen_accumulate(int dtype, const ParzenTile* tile, double* peak, double* sum, int device,
                                 std::uintptr_t stream) {
  return guarded([&] { cuda::parzen_accumulate(DType(dtype), *tile, peak, sum, device, stream); });
}

extern "C" int parzen_weights(int dtype, const ParzenTile* tile, const double* grad, const double* log_sum,
                              double* mean_square, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::parzen_weights(DType(dtype), *tile, grad, log_sum, mean_square, device, stream); });
}

extern "C" int parzen_fused_parts(int64_t n, int64_t count, int64_t sigmas, int device, int64_t* parts) {
  return guarded([&] { *parts = cuda::parzen_fused_parts(n, count, sigmas, device); });
}

extern "C" int parzen_fused(int dtype, const ParzenFused* op, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::parzen_fused(DType(dtype), *op, device, stream); });
}
