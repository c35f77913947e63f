#include "common/cuda.h"
#include "momentum/momentum.h"
#include "momentum/momentum_math.h"

namespace pygan {
namespace cuda {
namespace {

using namespace PYGAN_SIMD_LEVEL;

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1024;
constexpr int kTableSize = 32;  // the table travels as a kernel argument, which may hold 4 KiB

struct Table {
  MomentumTensor tensors[kTableSize];
};

// blockIdx.y is the tensor, blockIdx.x strides through it.
template <class P, class G>
__global__ void __launch_bounds__(kThreads) momentum_kernel(Table table, const P* rates) {
  const MomentumTensor t = table.tensors[blockIdx.y];
  P* parameter = static_cast<P*>(t.parameter);
  P* velocity = static_cast<P*>(t.velocity);
  const G* gradient = static_cast<const G*>(t.gradient);
  bfloat16* copy = static_cast<bfloat16*>(t.copy);
  const P rate = rates[0], momentum = rates[1];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < t.size; i += stride) {
    const P v = next_velocity(velocity[i], static_cast<P>(load(gradient[i])), rate, momentum);
    const P p = parameter[i] + v;
    velocity[i] = v;
    parameter[i] = p;
    if (copy != nullptr) copy[i] = store<bfloat16>(static_cast<float>(p));
  }
}

template <class P, class G>
void run(const MomentumTensor* tensors, std::int64_t count, const P* rates, cudaStream_t stream) {
  for (std::int64_t begin = 0; begin < count; begin += kTableSize) {
    const std::int64_t n = count - begin < kTableSize ? count - begin : kTableSize;
    Table table = {};
    std::int64_t largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      table.tensors[i] = tensors[begin + i];
      largest = table.tensors[i].size > largest ? table.tensors[i].size : largest;
    }
    const std::int64_t wanted = ceil_div(largest, 4 * kThreads);
    if (wanted == 0) continue;
    const dim3 grid(static_cast<unsigned>(wanted < kMaxBlocks ? wanted : kMaxBlocks), static_cast<unsigned>(n));
    PYGAN_LAUNCH((momentum_kernel<P, G>), grid, kThreads, 0, stream, table, rates);
    check_launch("momentum_kernel");
  }
}

}  // namespace

void momentum(DType parameter, DType gradient, const MomentumTensor* tensors, std::int64_t count, const void* rates,
              int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  if (parameter == DType::float64) {
    run<double, double>(tensors, count, static_cast<const double*>(rates), s);
  } else if (gradient == DType::bfloat16) {
    run<float, bfloat16>(tensors, count, static_cast<const float*>(rates), s);
  } else {
    run<float, float>(tensors, count, static_cast<const float*>(rates), s);
  }
}

}  // namespace cuda
}  // namespace pygan
