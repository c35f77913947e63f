#include "common/cuda.h"
#include "dropout/dropout.h"
#include "dropout/dropout_math.h"

namespace pygan {
namespace cuda {
namespace {

using namespace PYGAN_SIMD_LEVEL;

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 4096;

// One thread computes the four words of a counter and so serves four elements, 16 apart.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const T* x, T* y, std::int64_t first, std::int64_t last, const std::int64_t* seed,
                   std::uint32_t limit, compute_t<T> scale) {
  const auto key = static_cast<std::uint64_t>(*seed);
  const std::int64_t begin = first / kDropoutGroup * kDropoutLanes;
  const std::int64_t end = ceil_div(last, kDropoutGroup) * kDropoutLanes;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t c = begin + static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; c < end; c += stride) {
    const std::int64_t base = c / kDropoutLanes * kDropoutGroup + c % kDropoutLanes - first;
    T value[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {  // all loads are on their way while the words are computed
      const std::int64_t i = base + k * kDropoutLanes;
      value[k] = i >= 0 && i < last - first ? x[i] : T{};
    }
    const PhiloxWords w = philox(key, static_cast<std::uint64_t>(c));
    const std::uint32_t words[4] = {w.w0, w.w1, w.w2, w.w3};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = base + k * kDropoutLanes;
      if (i >= 0 && i < last - first) y[i] = drop(value[k], words[k], limit, scale);
    }
  }
}

template <class T>
void run(const DropoutArguments& a, cudaStream_t stream) {
  const std::int64_t wanted = ceil_div(ceil_div(a.size + kDropoutGroup, 4), kThreads);
  const unsigned blocks = static_cast<unsigned>(wanted < kMaxBlocks ? wanted : kMaxBlocks);
  PYGAN_LAUNCH((dropout_kernel<T>), blocks, kThreads, 0, stream, static_cast<const T*>(a.x), static_cast<T*>(a.y),
               a.first, a.first + a.size, a.seed, keep_limit(a.keep), static_cast<compute_t<T>>(1 / a.keep));
  check_launch("dropout_kernel");
}

}  // namespace

void dropout(DType dtype, const DropoutArguments& arguments, int device, std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  with_type<float, double, bfloat16, float16>(dtype, [&](auto element) { run<decltype(element)>(arguments, s); });
}

}  // namespace cuda
}  // namespace pygan
