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
template <class C>  // two vectors, so that one may start while the other is on its way
constexpr std::int64_t kLanes = 2 * kVectorBytes / static_cast<std::int64_t>(sizeof(C));
constexpr std::int64_t kAdditions = 8;  // in the compute type, one after another, before double takes over

// Adds unit * softplus(s * x) of n <= kLanes logits to as many lanes. The derivatives are computed also where nobody
// wants them: they cost little, and compilers vectorise the loop only with them.
template <class T, class C>
inline void add_row(const T* x, T* slopes, std::int64_t n, C s, C slope_scale, C unit, C* lanes) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const Softplus<C> f = softplus<C>(s * load(x[i]));
    lanes[i] += unit * f.value;
    slopes[i] = store<T>(slope_scale * f.slope);
  }
}

// Sum of unit * softplus(sign * x) over n logits; `scale` makes each derivative one of the mean. Equal logits make
// rounding errors add up, and those of more than about kAdditions may exceed the 4 eps that are promised. So a lane
// never holds more.
template <class T>
double sum_chunk(const T* logits, T* gradient, std::int64_t n, int sign, double scale, double unit) {
  using C = compute_t<T>;
  constexpr std::int64_t width = kLanes<C>;
  const C s = static_cast<C>(sign), slope_scale = static_cast<C>(sign * scale), value_scale = static_cast<C>(unit);
  T unwanted[width];
  Sum<double> total = {0, 0};
  for (std::int64_t begin = 0; begin < n; begin += kAdditions * width) {
    const std::int64_t end = begin + kAdditions * width < n ? begin + kAdditions * width : n;
    C lanes[width] = {};
    std::int64_t row = begin;
    for (; row + width <= end; row += width) {
      add_row(logits + row, gradient == nullptr ? unwanted : gradient + row, width, s, slope_scale, value_scale, lanes);
    }
    add_row(logits + row, gradient == nullptr ? unwanted : gradient + row, end - row, s, slope_scale, value_scale,
            lanes);
    double block = 0;
    for (std::int64_t i = 0; i < width; ++i) block += static_cast<double>(lanes[i]);
    total.add(block);
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
