// Loops over chunks whose borders do not depend on the number of threads, so that sums are the same on any machine.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

// The only compiled copy of a body. Of two, for one thread and for several, the compiler may vectorise each in its own
// way, and then the order of a sum would depend on the number of threads.
template <class Body>
__attribute__((noinline)) void run_chunk(const Body& body, std::int64_t chunk) {
  body(chunk);
}

// Calls body(chunk) for every chunk in [0, chunks), by at most `threads` threads. A thread gets neighbouring chunks,
// and the same ones the next time: what it wrote is still in its own caches, and those of another core may be far away.
template <class Body>
void parallel_chunks(std::int64_t chunks, int threads, const Body& body) {
  if (chunks <= 1 || threads <= 1) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run_chunk(body, chunk);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run_chunk(body, chunk);
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
