#include "adversarial_loss/adversarial_loss.h"
#include "adversarial_loss/adversarial_loss_math.h"
#include "common/block.h"
#include "common/cuda.h"
#include "common/sum.h"

namespace pygan {
namespace cuda {
namespace {

using namespace PYGAN_SIMD_LEVEL;

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1024;
constexpr int kInFlight = 4;  // logits that a thread loads before it needs the first

// Of softplus in float, plain additions in double lose nothing that float could hold.
template <class C>
struct ThreadSum {
  double total;
  __device__ void add(double value) { total += value; }
  __device__ double value() const { return total; }
};
template <>
struct ThreadSum<double> : Sum<double> {};

// This thread's part of the term's mean, from a sum of unit * softplus; writes its gradients too.
template <class T>
__device__ double part_of_mean(const LossTerm& term, double unit) {
  using C = compute_t<T>;
  const T* logits = static_cast<const T*>(term.logits);
  T* gradient = static_cast<T*>(term.gradient);
  const C sign = static_cast<C>(term.sign);
  const C slope_scale = static_cast<C>(static_cast<double>(term.sign * term.weight) / static_cast<double>(term.size));
  ThreadSum<C> sum = {};
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (std::int64_t begin = first; begin < term.size; begin += kInFlight * stride) {
    C logit[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const std::int64_t i = begin + k * stride;
      logit[k] = i < term.size ? load(logits[i]) : C(0);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const std::int64_t i = begin + k * stride;
      if (i >= term.size) break;
      const Softplus<C> f = softplus<C>(sign * logit[k]);
      sum.add(unit * static_cast<double>(f.value));
      if (gradient != nullptr) gradient[i] = store<T>(slope_scale * f.slope);
    }
  }
  return term.size > 0 ? term.weight * sum.value() / static_cast<double>(term.size) / unit : 0.0;
}

template <class T>
__device__ double part_of_mean(const LossTerm& term) {
  const double part = part_of_mean<T>(term, 1);
  return is_finite(part) ? part : part_of_mean<T>(term, kSmallUnit);
}

template <class T>
__global__ void __launch_bounds__(kThreads) loss_kernel(LossTerm a, LossTerm b, double* partials, T* loss) {
  const double sum = block_sum<kThreads>(part_of_mean<T>(a) + part_of_mean<T>(b));
  if (threadIdx.x == 0) {
    partials[blockIdx.x] = sum;
    if (gridDim.x == 1) *loss = store<T>(static_cast<compute_t<T>>(sum));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(const double* partials, std::int64_t count, T* loss) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) sum += partials[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *loss = store<T>(static_cast<compute_t<T>>(sum));
}

template <class T>
void run(const LossTerm (&terms)[2], double* partials, T* loss, cudaStream_t stream) {
  const std::int64_t larger = terms[0].size > terms[1].size ? terms[0].size : terms[1].size;
  const unsigned blocks = static_cast<unsigned>(adversarial_loss_blocks(larger));
  PYGAN_LAUNCH((loss_kernel<T>), blocks, kThreads, 0, stream, terms[0], terms[1], partials, loss);
  check_launch("adversarial_loss loss_kernel");
  if (blocks == 1) return;
  PYGAN_LAUNCH((finish_kernel<T>), 1, kThreads, 0, stream, partials, std::int64_t(blocks), loss);
  check_launch("adversarial_loss finish_kernel");
}

}  // namespace

std::int64_t adversarial_loss_blocks(std::int64_t size) {
  const std::int64_t blocks = ceil_div(size, 4 * kThreads);
  return blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks;
}

void adversarial_loss(DType dtype, const LossTerm (&terms)[2], double* partials, void* loss, int device,
                      std::uintptr_t stream) {
  const DeviceGuard guard(device);
  const auto s = reinterpret_cast<cudaStream_t>(stream);
  with_type<float, double, bfloat16, float16>(
      dtype, [&](auto element) { run(terms, partials, static_cast<decltype(element)*>(loss), s); });
}

}  // namespace cuda
}  // namespace pygan
