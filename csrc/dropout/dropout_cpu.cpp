#include "common/parallel.h"
#include "dropout/dropout.h"
#include "dropout/dropout_math.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

constexpr std::int64_t kGroupsPerChunk = 256;  // 16,384 elements: enough work for one turn of a thread

void group_words(std::uint64_t key, std::int64_t group, std::uint32_t* words) {
  const std::uint64_t counter = static_cast<std::uint64_t>(group * kDropoutLanes);
#pragma omp simd
  for (std::int64_t lane = 0; lane < kDropoutLanes; ++lane) {
    const PhiloxWords w = philox(key, counter + static_cast<std::uint64_t>(lane));
    words[lane] = w.w0;
    words[kDropoutLanes + lane] = w.w1;
    words[2 * kDropoutLanes + lane] = w.w2;
    words[3 * kDropoutLanes + lane] = w.w3;
  }
}

template <class T>
void run(const DropoutArguments& a, int threads) {
  const T* x = static_cast<const T*>(a.x) - a.first;  // indexed, like y, by the position in the mask
  T* y = static_cast<T*>(a.y) - a.first;
  const std::int64_t last = a.first + a.size;
  const std::int64_t begin_group = a.first / kDropoutGroup;
  const std::int64_t end_group = ceil_div(last, kDropoutGroup);
  const auto key = static_cast<std::uint64_t>(*a.seed);
  const std::uint32_t limit = keep_limit(a.keep);
  const auto scale = static_cast<compute_t<T>>(1 / a.keep);
  parallel_chunks(ceil_div(end_group - begin_group, kGroupsPerChunk), threads, [&](std::int64_t chunk) {
    const std::int64_t from = begin_group + chunk * kGroupsPerChunk;
    const std::int64_t to = from + kGroupsPerChunk < end_group ? from + kGroupsPerChunk : end_group;
    for (std::int64_t group = from; group < to; ++group) {
      std::uint32_t words[kDropoutGroup];
      group_words(key, group, words);
      const std::int64_t base = group * kDropoutGroup;
      if (base >= a.first && base + kDropoutGroup <= last) {
#pragma omp simd
        for (std::int64_t e = 0; e < kDropoutGroup; ++e) y[base + e] = drop(x[base + e], words[e], limit, scale);
      } else {
        const std::int64_t e_begin = base < a.first ? a.first - base : 0;
        const std::int64_t e_end = base + kDropoutGroup < last ? kDropoutGroup : last - base;
        for (std::int64_t e = e_begin; e < e_end; ++e) y[base + e] = drop(x[base + e], words[e], limit, scale);
      }
    }
  });
}

}  // namespace

void dropout_cpu(DType dtype, const DropoutArguments& arguments, int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) { run<decltype(element)>(arguments, threads); });
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
