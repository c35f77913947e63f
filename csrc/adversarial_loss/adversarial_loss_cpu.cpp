#include <cstdlib>

#include "adversarial_loss/adversarial_loss.h"
#include "adversarial_loss/adversarial_loss_math.h"
#include "common/parallel.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kChunk = 16384;  // logits of one partial sum: a few microseconds of work, within the L1 cache
constexpr std::int64_t kBlock = 256;    // logits that are summed in the compute type before double takes over

// Sum of softplus(sign * x) over n logits; `scale` makes each derivative one of the mean.
template <class T, bool kGradient>
double sum_chunk(const T* logits, T* gradient, std::int64_t n, int sign, double scale) {
  using C = compute_t<T>;
  const C s = static_cast<C>(sign);
  const C slope_scale = static_cast<C>(sign * scale);
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = begin + kBlock < n ? begin + kBlock : n;
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = begin; i < end; ++i) {
      const Softplus<C> f = softplus<C>(s * load(logits[i]));
      sum += f.value;
      if (kGradient) gradient[i] = store<T>(slope_scale * f.slope);
    }
    total += static_cast<double>(sum);
  }
  return total;
}

template <class T>
void run(const LossTerm (&terms)[2], T* loss, int threads) {
  const std::int64_t first = (terms[0].size + kChunk - 1) / kChunk;
  const std::int64_t chunks = first + (terms[1].size + kChunk - 1) / kChunk;
  constexpr std::int64_t kOnStack = 64;
  double on_stack[kOnStack];
  double* sums = chunks <= kOnStack ? on_stack : static_cast<double*>(std::malloc(sizeof(double) * chunks));
  const bool small = terms[0].size + terms[1].size <= kChunk;  // not worth waking a thread
  parallel_chunks(chunks, small ? 1 : threads, [&](std::int64_t chunk) {
    const LossTerm& term = terms[chunk >= first];
    const std::int64_t begin = (chunk >= first ? chunk - first : chunk) * kChunk;
    const std::int64_t n = begin + kChunk < term.size ? kChunk : term.size - begin;
    const T* logits = static_cast<const T*>(term.logits) + begin;
    const double scale = static_cast<double>(term.weight) / static_cast<double>(term.size);
    if (term.gradient == nullptr) {
      sums[chunk] = sum_chunk<T, false>(logits, nullptr, n, term.sign, scale);
    } else {
      sums[chunk] = sum_chunk<T, true>(logits, static_cast<T*>(term.gradient) + begin, n, term.sign, scale);
    }
  });
  double total[2] = {0, 0};
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total[chunk >= first] += sums[chunk];
  double value = 0;
  for (int i = 0; i < 2; ++i) {
    if (terms[i].size > 0) value += terms[i].weight * total[i] / static_cast<double>(terms[i].size);
  }
  *loss = store<T>(static_cast<compute_t<T>>(value));
  if (sums != on_stack) std::free(sums);
}

}  // namespace

void adversarial_loss_cpu(DType dtype, const LossTerm (&terms)[2], void* loss, int threads) {
  switch (dtype) {
    case DType::float32:
      return run(terms, static_cast<float*>(loss), threads);
    case DType::float64:
      return run(terms, static_cast<double*>(loss), threads);
    case DType::bfloat16:
      return run(terms, static_cast<bfloat16*>(loss), threads);
    case DType::float16:
      return;  // refused by the binding
  }
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
