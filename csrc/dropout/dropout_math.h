// Dropout's mask: which random word belongs to which element, and when an element is kept.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/philox.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

// Elements come in groups of 64 that share 16 counters: element e of group g takes word e / 16 of counter 16 g + e %
// 16, so that both a vector register and a warp hold neighbouring elements and neighbouring counters.
constexpr std::int64_t kDropoutGroup = 64;
constexpr std::int64_t kDropoutLanes = 16;

// An element is kept if its word is at most this limit, that is with probability (limit + 1) / 2^32.
PYGAN_HD std::uint32_t keep_limit(double keep) {
  const double count = keep * 4294967296.0 + 0.5;
  return count < 1 ? 0u : count >= 4294967296.0 ? 4294967295u : static_cast<std::uint32_t>(count) - 1u;
}

// x * scale if kept, else 0, whatever x is.
template <class T>
PYGAN_HD T drop(T x, std::uint32_t word, std::uint32_t limit, compute_t<T> scale) {
  return store<T>(word <= limit ? load(x) * scale : compute_t<T>(0));
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
