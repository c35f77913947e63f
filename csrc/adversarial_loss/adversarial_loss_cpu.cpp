#include <cstdlib>

#include "adversarial_loss/adversarial_loss.h"
#include "adversarial_loss/adversarial_loss_math.h"
#include "common/parallel.h"
#include "common/sum.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kChunk = 16384;  // logits of one partial sum: a few microseconds of work, within the L1 cache

#if defined(__AVX512F__)
constexpr std::int64_t kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr std::int64_t kVectorBytes = 32;
#else
constexpr std::int64_t kVectorBytes = 16;
#endif
constexpr std::int64_t kAdditions = 8;  // in the compute type, one after another, before double takes over
template <class C>
constexpr std::int64_t kLanes = kVectorBytes / static_cast<std::int64_t>(sizeof(C));
template <class C>
constexpr std::int64_t kBlock = kAdditions * kLanes<C>;

// How many of the next n logits are summed in the compute type. Equal logits make rounding errors add up, and those of
// more than about kAdditions may exceed the 4 eps that are promised. The tail, which fills no vector, is added one by
// one to the sum over the vectors before it, and makes a block of its own where it is long.
template <class C>
std::int64_t block_size(std::int64_t n) {
  if (n >= kBlock<C>) return kBlock<C>;
  const std::int64_t tail = n % kLanes<C>;
  if (tail <= kAdditions / 2) return n;
  return n > tail ? n - tail : tail < kAdditions ? tail : kAdditions;
}

// Sum of unit * softplus(sign * x) over n logits; `scale` makes each derivative one of the mean. The derivatives are
// computed also where nobody wants them: they cost little, and compilers vectorise the loop only with them.
template <class T>
double sum_chunk(const T* logits, T* gradient, std::int64_t n, int sign, double scale, double unit) {
  using C = compute_t<T>;
  const C s = static_cast<C>(sign);
  const C slope_scale = static_cast<C>(sign * scale);
  const C value_scale = static_cast<C>(unit);
  T unwanted[kBlock<C>];
  Sum<double> total = {0, 0};
  std::int64_t size;
  for (std::int64_t begin = 0; begin < n; begin += size) {
    size = block_size<C>(n - begin);
    const T* x = logits + begin;
    T* slopes = gradient == nullptr ? unwanted : gradient + begin;
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < size; ++i) {
      const Softplus<C> f = softplus<C>(s * load(x[i]));
      sum += value_scale * f.value;
      slopes[i] = store<T>(slope_scale * f.slope);
    }
    total.add(static_cast<double>(sum));
  }
  return total.value();
}

// The loss from sums of unit * softplus; writes the gradients too.
template <class T>
double loss_of(const LossTerm (&terms)[2], double unit, int threads) {
  const std::int64_t first = ceil_div(terms[0].size, kChunk);
  const std::int64_t chunks = first + ceil_div(terms[1].size, kChunk);
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
    T* gradient = term.gradient == nullptr ? nullptr : static_cast<T*>(term.gradient) + begin;
    sums[chunk] = sum_chunk(logits, gradient, n, term.sign, scale, unit);
  });
  Sum<double> total[2] = {};
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total[chunk >= first].add(sums[chunk]);
  double value = 0;
  for (int i = 0; i < 2; ++i) {
    if (terms[i].size > 0) value += terms[i].weight * total[i].value() / static_cast<double>(terms[i].size);
  }
  if (sums != on_stack) std::free(sums);
  return value / unit;
}

template <class T>
void run(const LossTerm (&terms)[2], T* loss, int threads) {
  double value = loss_of<T>(terms, 1, threads);
  if (!is_finite(value)) value = loss_of<T>(terms, kSmallUnit, threads);
  *loss = store<T>(static_cast<compute_t<T>>(value));
}

}  // namespace

void adversarial_loss_cpu(DType dtype, const LossTerm (&terms)[2], void* loss, int threads) {
  with_type<float, double, bfloat16>(dtype,
                                     [&](auto element) { run(terms, static_cast<decltype(element)*>(loss), threads); });
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
