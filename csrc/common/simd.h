// Run-time choice between the copies of the CPU kernels. A header of CPU kernels declares its functions inside
// PYGAN_EACH_SIMD_LEVEL(...); bindings.cpp calls them through PYGAN_SIMD_CALL(function, arguments...).
#pragma once

namespace pygan {

enum class SimdLevel : int { baseline = 0, avx2 = 1, avx512 = 2 };

SimdLevel best_simd_level();            // what this processor can run, of what was built
SimdLevel simd_level();                 // what runs now: the best, or less if PYGAN_SIMD says so
void set_simd_level(const char* name);  // throws std::invalid_argument for an unknown or unsupported level
const char* name_of(SimdLevel level);
int amd_family();  // the family of an AMD processor (25 for Zen 3 and 4, 26 for Zen 5), 0 of any other

}  // namespace pygan

#if defined(PYGAN_X86_LEVELS)
#define PYGAN_EACH_SIMD_LEVEL(...) \
  namespace baseline {             \
  __VA_ARGS__                      \
  }                                \
  namespace avx2 {                 \
  __VA_ARGS__                      \
  }                                \
  namespace avx512 {               \
  __VA_ARGS__                      \
  }
#define PYGAN_SIMD_CALL(function, ...)                               \
  (simd_level() == SimdLevel::avx512 ? avx512::function(__VA_ARGS__) \
   : simd_level() == SimdLevel::avx2 ? avx2::function(__VA_ARGS__)   \
                                     : baseline::function(__VA_ARGS__))
#else
#define PYGAN_EACH_SIMD_LEVEL(...) \
  namespace baseline {             \
  __VA_ARGS__                      \
  }
#define PYGAN_SIMD_CALL(function, ...) baseline::function(__VA_ARGS__)
#endif
