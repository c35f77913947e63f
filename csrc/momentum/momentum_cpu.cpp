#include "common/parallel.h"
#include "momentum/momentum.h"
#include "momentum/momentum_math.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kChunk = 16384;

template <class P, class G, bool kCopy>
void update(const MomentumTensor& t, std::int64_t begin, std::int64_t end, P rate, P momentum) {
  P* parameter = static_cast<P*>(t.parameter);
  P* velocity = static_cast<P*>(t.velocity);
  const G* gradient = static_cast<const G*>(t.gradient);
  bfloat16* copy = static_cast<bfloat16*>(t.copy);
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) {
    const P v = next_velocity(velocity[i], static_cast<P>(load(gradient[i])), rate, momentum);
    const P p = parameter[i] + v;
    velocity[i] = v;
    parameter[i] = p;
    if (kCopy) copy[i] = store<bfloat16>(static_cast<float>(p));
  }
}

std::int64_t chunks_of(const MomentumTensor& t) {
  return ceil_div(t.size, kChunk);
}

template <class P, class G>
void run(const MomentumTensor* tensors, std::int64_t count, const P* rates, int threads) {
  std::int64_t chunks = 0;
  for (std::int64_t i = 0; i < count; ++i) chunks += chunks_of(tensors[i]);
  parallel_chunks(chunks, threads, [&](std::int64_t chunk) {
    const MomentumTensor* t = tensors;
    while (chunk >= chunks_of(*t)) chunk -= chunks_of(*t++);
    const std::int64_t begin = chunk * kChunk;
    const std::int64_t end = begin + kChunk < t->size ? begin + kChunk : t->size;
    if (t->copy == nullptr) {
      update<P, G, false>(*t, begin, end, rates[0], rates[1]);
    } else {
      update<P, G, true>(*t, begin, end, rates[0], rates[1]);
    }
  });
}

}  // namespace

void momentum_cpu(DType parameter, DType gradient, const MomentumTensor* tensors, std::int64_t count, const void* rates,
                  int threads) {
  if (parameter == DType::float64) {
    run<double, double>(tensors, count, static_cast<const double*>(rates), threads);
  } else if (gradient == DType::bfloat16) {
    run<float, bfloat16>(tensors, count, static_cast<const float*>(rates), threads);
  } else {
    run<float, float>(tensors, count, static_cast<const float*>(rates), threads);
  }
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
