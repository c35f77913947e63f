// The Python module pygan._core: the only file that knows pybind11. Tensors arrive as addresses, sizes and a dtype
// code; device is -1 for the CPU or the index of a CUDA device; stream is a cudaStream_t as an integer.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "adversarial_loss/adversarial_loss.h"
#include "common/check.h"
#include "common/dtype.h"
#include "common/simd.h"
#include "dropout/dropout.h"
#include "maxout/maxout.h"
#include "momentum/momentum.h"
#include "parzen/parzen.h"
#include "sparse_products/sparse_products.h"

namespace py = pybind11;

namespace pygan {
namespace {

using Address = std::uintptr_t;

template <class T = void>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

DType dtype_of(int code, int device) {
  check(code >= 0 && code <= 3, "dtype code must be 0, 1, 2 or 3, got ", code);
  check(device >= 0 || code != static_cast<int>(DType::float16), "float16 is not supported on the CPU");
#if !defined(PYGAN_WITH_CUDA)
  check(device < 0, "pygan was built without CUDA, got device ", device);
#endif
  return static_cast<DType>(code);
}

// Calls a family's CUDA launcher or its CPU loops, by the `device`, `stream` and `threads` of the calling function.
#if defined(PYGAN_WITH_CUDA)
#define PYGAN_RUN(family, ...) \
  (device >= 0 ? cuda::family(__VA_ARGS__, device, stream) : PYGAN_SIMD_CALL(family##_cpu, __VA_ARGS__, threads))
#else
#define PYGAN_RUN(family, ...) ((void)stream, PYGAN_SIMD_CALL(family##_cpu, __VA_ARGS__, threads))
#endif

// ---- adversarial losses ----

std::int64_t adversarial_loss_scratch(std::int64_t size) {
#if defined(PYGAN_WITH_CUDA)
  return cuda::adversarial_loss_blocks(size);
#else
  (void)size;
  return 0;
#endif
}

// Not PYGAN_RUN: the CUDA launcher alone takes scratch, which is 0 on the CPU.
void run_loss(const LossTerm (&terms)[2], Address scratch, Address loss, DType dtype, int device, Address stream,
              int threads) {
#if defined(PYGAN_WITH_CUDA)
  if (device >= 0) {
    return cuda::adversarial_loss(dtype, terms, pointer<double>(scratch), pointer(loss), device, stream);
  }
#endif
  (void)scratch, (void)device, (void)stream;
  PYGAN_SIMD_CALL(adversarial_loss_cpu, dtype, terms, pointer(loss), threads);
}

// real_gradient, fake_gradient: 0 when not wanted.
void discriminator_loss(Address real, std::int64_t n_real, Address fake, std::int64_t n_fake, Address real_gradient,
                        Address fake_gradient, Address scratch, Address loss, int dtype, int device, Address stream,
                        int threads) {
  const LossTerm terms[2] = {{pointer(real), pointer(real_gradient), n_real, -1, +1},
                             {pointer(fake), pointer(fake_gradient), n_fake, +1, +1}};
  run_loss(terms, scratch, loss, dtype_of(dtype, device), device, stream, threads);
}

void generator_loss(Address fake, std::int64_t n, bool saturating, Address gradient, Address scratch, Address loss,
                    int dtype, int device, Address stream, int threads) {
  const LossTerm terms[2] = {{pointer(fake), pointer(gradient), n, saturating ? +1 : -1, saturating ? -1 : +1},
                             {nullptr, nullptr, 0, +1, +1}};
  run_loss(terms, scratch, loss, dtype_of(dtype, device), device, stream, threads);
}

// ---- dropout ----

void dropout(Address x, Address y, std::int64_t size, std::int64_t first, Address seed, double keep, int dtype,
             int device, Address stream, int threads) {
  const DropoutArguments arguments = {pointer(x), pointer(y), size, first, pointer<std::int64_t>(seed), keep};
  PYGAN_RUN(dropout, dtype_of(dtype, device), arguments);
}

// ---- momentum ----

// copies: empty, or one address for each parameter.
void momentum(const std::vector<Address>& parameters, const std::vector<Address>& velocities,
              const std::vector<Address>& gradients, const std::vector<Address>& copies,
              const std::vector<std::int64_t>& sizes, Address rates, int parameter_dtype, int gradient_dtype,
              int device, Address stream, int threads) {
  std::vector<MomentumTensor> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back({pointer(parameters[i]), pointer(velocities[i]), pointer(gradients[i]),
                       copies.empty() ? nullptr : pointer(copies[i]), sizes[i]});
  }
  PYGAN_RUN(momentum, dtype_of(parameter_dtype, device), dtype_of(gradient_dtype, device), tensors.data(),
            static_cast<std::int64_t>(tensors.size()), pointer(rates));
}

// ---- maxout ----

// The winners of a gradient, [count] bytes. On CUDA a look at them would wait for the device.
const std::uint8_t* winners(Address index, std::int64_t count, std::int64_t pieces, int device) {
  const auto* values = pointer<std::uint8_t>(index);
  if (device >= 0) return values;
  int largest = -1;
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) largest = values[i] > largest ? values[i] : largest;
  check(largest < pieces, "maxout: index must be below the number of pieces, ", pieces, ", got ", largest);
  return values;
}

void maxout_pool(Address z, Address y, Address index, std::int64_t outer, std::int64_t units, std::int64_t pieces,
                 std::int64_t inner, int dtype, int device, Address stream, int threads) {
  const MaxoutPool op{pointer(z), pointer(y), pointer<std::uint8_t>(index), outer, units, pieces, inner};
  PYGAN_RUN(maxout_pool, dtype_of(dtype, device), op);
}

void maxout_spread(Address grad, Address index, Address grad_z, std::int64_t outer, std::int64_t units,
                   std::int64_t pieces, std::int64_t inner, int dtype, int device, Address stream, int threads) {
  const auto* winner = winners(index, outer * units * inner, pieces, device);
  const MaxoutSpread op{pointer(grad), winner, pointer(grad_z), outer, units, pieces, inner};
  PYGAN_RUN(maxout_spread, dtype_of(dtype, device), op);
}

void maxout_grad_input(Address grad, Address index, Address weight, Address grad_x, std::int64_t batch, std::int64_t in,
                       std::int64_t units, std::int64_t pieces, int dtype, int device, Address stream, int threads) {
  const auto* winner = winners(index, batch * units, pieces, device);
  const MaxoutBackward op{pointer(grad), winner, batch, in, units, pieces};
  PYGAN_RUN(maxout_grad_input, dtype_of(dtype, device), op, pointer(weight), pointer(grad_x));
}

// grad_bias: 0 when not wanted.
void maxout_grad_weight(Address grad, Address index, Address x, Address grad_weight, Address grad_bias,
                        std::int64_t batch, std::int64_t in, std::int64_t units, std::int64_t pieces, int dtype,
                        int device, Address stream, int threads) {
  const auto* winner = winners(index, batch * units, pieces, device);
  const MaxoutBackward op{pointer(grad), winner, batch, in, units, pieces};
  PYGAN_RUN(maxout_grad_weight, dtype_of(dtype, device), op, pointer(x), pointer(grad_weight), pointer(grad_bias));
}

// ---- products of sparse activations, on the CPU only ----

std::int64_t count_live(Address values, std::int64_t n, int dtype, int threads) {
  return PYGAN_SIMD_CALL(count_live_cpu, dtype_of(dtype, -1), pointer(values), n, threads);
}

void sparse_times(Address values, std::int64_t n, std::int64_t m, Address matrix, std::int64_t row_stride,
                  std::int64_t column_stride, Address bias, std::int64_t columns, Address out, int dtype, int threads) {
  const SparseOperand left{pointer(values), n, m};
  const Strided right{pointer(matrix), row_stride, column_stride};
  PYGAN_SIMD_CALL(sparse_times_cpu, dtype_of(dtype, -1), left, right, pointer(bias), columns, pointer(out), threads);
}

void sparse_outer(Address values, std::int64_t n, std::int64_t m, Address x, std::int64_t columns, Address out,
                  int dtype, int threads) {
  const SparseOperand left{pointer(values), n, m};
  PYGAN_SIMD_CALL(sparse_outer_cpu, dtype_of(dtype, -1), left, pointer(x), columns, pointer(out), threads);
}

// ---- Parzen window ----

void parzen_centre(Address rows, Address centre, Address scale, std::int64_t n, std::int64_t d, Address moved,
                   Address norms, int dtype, int device, Address stream, int threads) {
  PYGAN_RUN(parzen_centre, dtype_of(dtype, device), pointer(rows), pointer(centre), pointer<double>(scale), n, d,
            pointer(moved), pointer<double>(norms));
}

ParzenTile parzen_tile(Address x, Address samples, Address x_norms, Address sample_norms, Address products,
                       Address rates, Address scale, double product_unit, std::int64_t rows, std::int64_t columns,
                       std::int64_t d, std::int64_t sigmas, std::int64_t stride) {
  return {pointer(x),
          pointer(samples),
          pointer<double>(x_norms),
          pointer(sample_norms),
          pointer(products),
          pointer<double>(rates),
          pointer<double>(scale),
          product_unit,
          rows,
          columns,
          d,
          sigmas,
          stride};
}

void parzen_accumulate(const ParzenTile& tile, Address peak, Address sum, int dtype, int device, Address stream,
                       int threads) {
  PYGAN_RUN(parzen_accumulate, dtype_of(dtype, device), tile, pointer<double>(peak), pointer<double>(sum));
}

void parzen_weights(const ParzenTile& tile, Address grad, Address log_sum, Address mean_square, int dtype, int device,
                    Address stream, int threads) {
  PYGAN_RUN(parzen_weights, dtype_of(dtype, device), tile, pointer<double>(grad), pointer<double>(log_sum),
            pointer<double>(mean_square));
}

#if defined(PYGAN_WITH_CUDA)
// threads: as in every native call.
void parzen_split(Address moved, std::int64_t n, std::int64_t d, double unit, int sections, int low_section,
                  Address halves, int device, Address stream, int threads) {
  (void)threads;
  cuda::parzen_split(pointer<float>(moved), n, d, unit, sections, low_section, pointer(halves), device, stream);
}

void parzen_fused(Address x, Address samples, Address rates, Address scale, Address log_sums, std::int64_t n,
                  std::int64_t count, std::int64_t d, std::int64_t sigmas, std::int64_t parts, int dtype, int device,
                  Address stream, int threads) {
  (void)threads;
  const ParzenFused op{pointer(x),
                       pointer(samples),
                       pointer<double>(rates),
                       pointer<double>(scale),
                       pointer<double>(log_sums),
                       n,
                       count,
                       d,
                       sigmas,
                       parts};
  cuda::parzen_fused(dtype_of(dtype, device), op, device, stream);
}
#endif

// ---- what was built ----

py::dict build_info() {
  py::dict info;
  info["version"] = PYGAN_VERSION;
  info["compiler"] = __VERSION__;
#if defined(PYGAN_WITH_CUDA)
  info["cuda"] = PYGAN_CUDA_VERSION;
  info["cuda_architectures"] = PYGAN_CUDA_ARCHS;
#else
  info["cuda"] = py::none();
  info["cuda_architectures"] = py::none();
#endif
  std::vector<std::string> levels;
#if defined(PYGAN_X86_LEVELS)
  for (auto level : {SimdLevel::baseline, SimdLevel::avx2, SimdLevel::avx512}) levels.emplace_back(name_of(level));
#else
  levels.emplace_back(name_of(SimdLevel::baseline));
#endif
  info["simd_built"] = levels;
  info["simd"] = name_of(simd_level());
  info["openmp"] = _OPENMP;
  return info;
}

}  // namespace
}  // namespace pygan

PYBIND11_MODULE(_core, m) {
  using namespace pygan;
  m.doc() = "Native kernels of pygan. Addresses in, addresses out: call pygan.ops instead.";
  m.attr("__version__") = PYGAN_VERSION;
  const py::call_guard<py::gil_scoped_release> no_gil;

  m.def("build_info", &build_info);
  m.def("simd_level", [] { return name_of(simd_level()); });
  m.def("best_simd_level", [] { return name_of(best_simd_level()); });
  m.def("amd_family", amd_family);
  m.def("set_simd_level", [](const std::string& name) { set_simd_level(name.c_str()); });

  m.def("adversarial_loss_scratch", &adversarial_loss_scratch);
  m.def("discriminator_loss", &discriminator_loss, no_gil);
  m.def("generator_loss", &generator_loss, no_gil);

  m.def("dropout", &dropout, no_gil);
  m.def("momentum", &momentum, no_gil);

  m.def("maxout_pool", &maxout_pool, no_gil);
  m.def("maxout_spread", &maxout_spread, no_gil);
  m.def("maxout_grad_input", &maxout_grad_input, no_gil);
  m.def("maxout_grad_weight", &maxout_grad_weight, no_gil);

  m.def("count_live", &count_live, no_gil);
  m.def("sparse_times", &sparse_times, no_gil);
  m.def("sparse_outer", &sparse_outer, no_gil);

  py::class_<ParzenTile>(m, "ParzenTile").def(py::init(&parzen_tile));
  m.def("parzen_centre", &parzen_centre, no_gil);
  m.def("parzen_accumulate", &parzen_accumulate, no_gil);
  m.def("parzen_weights", &parzen_weights, no_gil);
#if defined(PYGAN_WITH_CUDA)
  m.def("parzen_split", &parzen_split, no_gil);
  m.def("parzen_fused_parts", &cuda::parzen_fused_parts);
  m.def("parzen_fused", &parzen_fused, no_gil);
#endif
}
