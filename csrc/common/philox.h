// Philox4x32-10: counter-based random numbers (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). Word w of counter c under a key is a pure function of the three, so any thread can compute any of them.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

struct PhiloxWords {
  std::uint32_t w0, w1, w2, w3;
};

// Four independent uniform 32-bit words. The upper half of the 128-bit counter is zero.
PYGAN_HD PhiloxWords philox(std::uint64_t key, std::uint64_t counter) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32), c2 = 0,
                c3 = 0;
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t(0xD2511F53u) * c0;
    const std::uint64_t b = std::uint64_t(0xCD9E8D57u) * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
