// What the CUDA vocabulary of simt.h asks of the runtime (runtime.cpp): one block at a time, one fiber per thread.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

struct Index {
  unsigned x, y, z;
};

// A place in the kernel's source, for reports.
struct Site {
  const char* file;
  int line;
  const char* what;
};

// One variable in static shared memory; each has its own constant, so its address identifies it.
struct SharedSite {
  Site site;
  std::size_t size, alignment;
};

// The running thread's coordinates, set at each switch.
extern Index thread_index, block_index, block_size, grid_size;

enum class Vote { none, count, any, all };

// What the lanes of a warp operation brought: values[l] is meaningful where bit l of present is set.
struct Gathered {
  uint64_t values[32];
  unsigned present;
};

int block_barrier(Site site, Vote vote, bool predicate);  // __syncthreads and its voting forms
// Shuffles, votes, __syncwarp; the result holds until this thread's next operation.
const Gathered& warp_operation(Site site, unsigned mask, uint64_t value, bool orders_memory);
unsigned lane();
void memory_fence();
void atomic_access(const void* address);  // before every atomic operation
void* static_shared(const SharedSite& variable);
void* dynamic_shared();
void report(Site site, const char* problem);  // a rule of CUDA was broken by the running thread

struct Launch {
  const char* kernel;  // its name in the source
  const void* function;
  Index grid, block;
  std::size_t shared_bytes;
  void* stream;
};
void run(const Launch& launch, void (*body)(void*), void* arguments);

// The part of the CUDA runtime that host code uses; error codes are CUDA's own numbers.
constexpr int kDevices = 2;
int last_error(bool clear);
int set_device(int device);
int get_device();
void allow_shared_bytes(const void* function, std::size_t bytes);

}  // namespace simt

// For the tests, through ctypes.
extern "C" {
const char* simt_problems();             // one line per broken rule since the last clear; "" when clean
void simt_clear();                       // forget problems and the launch log
void simt_set_order(const char* order);  // forward | reverse | random:<seed>
void simt_select_blocks(uint64_t first, uint64_t count);  // of the next launches run only these; count 0: all
void simt_fail_launch(int after, int error);  // the launch after the next `after` runs nothing and leaves this error
int simt_launches();                          // launches since the last clear
const char* simt_launch_text(int i);          // "kernel grid=x,y,z block=x,y,z shared=n stream=0x0 device=d"
int simt_device();
}
