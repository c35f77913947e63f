#include "common/simd.h"

#include <cstdlib>
#include <string>

#if defined(PYGAN_X86_LEVELS)
#include <cpuid.h>
#endif

#include "common/check.h"

namespace pygan {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

SimdLevel parse(const char* name) {
  for (int i = 0; i <= static_cast<int>(best_simd_level()); ++i) {
    if (std::string(name) == kNames[i]) return static_cast<SimdLevel>(i);
  }
  check(false, "PYGAN_SIMD must be one of baseline, avx2, avx512 and at most ", name_of(best_simd_level()),
        ", which is what this processor and this build have, got '", name, "'");
  return SimdLevel::baseline;
}

SimdLevel initial_level() {
  const char* forced = std::getenv("PYGAN_SIMD");
  return forced == nullptr || *forced == '\0' ? best_simd_level() : parse(forced);
}

SimdLevel& current() {
  static SimdLevel level = initial_level();
  return level;
}

}  // namespace

SimdLevel best_simd_level() {
#if defined(PYGAN_X86_LEVELS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return SimdLevel::avx512;
  if (avx2) return SimdLevel::avx2;
#endif
  return SimdLevel::baseline;
}

SimdLevel simd_level() {
  return current();
}

void set_simd_level(const char* name) {
  current() = parse(name);
}

const char* name_of(SimdLevel level) {
  return kNames[static_cast<int>(level)];
}

int amd_family() {
#if defined(PYGAN_X86_LEVELS)
  __builtin_cpu_init();
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__builtin_cpu_is("amd") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
    const unsigned base = eax >> 8 & 15, extension = eax >> 20 & 255;
    return static_cast<int>(base == 15 ? base + extension : base);
  }
#endif
  return 0;
}

}  // namespace pygan
