#include "fiber.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

// Weak: present only when the program runs under the sanitizer in question.
extern "C" {
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void* fiber) __attribute__((weak));
void __tsan_switch_to_fiber(void* fiber, unsigned flags) __attribute__((weak));
void __tsan_acquire(void* address) __attribute__((weak));
void __tsan_release(void* address) __attribute__((weak));
void AnnotateIgnoreReadsBegin(const char* file, int line) __attribute__((weak));
void AnnotateIgnoreReadsEnd(const char* file, int line) __attribute__((weak));
void AnnotateIgnoreWritesBegin(const char* file, int line) __attribute__((weak));
void AnnotateIgnoreWritesEnd(const char* file, int line) __attribute__((weak));
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* address, size_t size) __attribute__((weak));
}

namespace simt {
namespace {

constexpr size_t kGuard = 65536;            // a page, whatever the CPU's page size
constexpr size_t kStackBytes = 256 * 1024;  // sanitizers make frames large; untouched pages cost nothing
constexpr unsigned kNoSynchronisation = 1;  // flag of __tsan_switch_to_fiber
// Sets of fibers under ThreadSanitizer, used by the blocks in turn. Its gcc 12 version knows 8,128 threads.
constexpr unsigned kMaxSets = 8, kMaxIdentities = 4096;

#ifdef SIMT_UCONTEXT
using Context = ucontext_t;
void switch_context(Context& from, Context& to) {
  swapcontext(&from, &to);
}
void make_context(Context& c, char* stack, void (*entry)()) {
  getcontext(&c);
  c.uc_stack = {.ss_sp = stack, .ss_flags = 0, .ss_size = kStackBytes};
  c.uc_link = nullptr;
  makecontext(&c, entry, 0);
}
#else
// swapcontext makes two system calls a switch. This does what the System V x86-64 calling convention asks of a function
// call and no more: it keeps the six callee-saved registers and the stack pointer.
using Context = void*;
extern "C" void simt_switch_stack(void** save, void* load);
asm(R"(
.text
.globl simt_switch_stack
.hidden simt_switch_stack
.type simt_switch_stack,@function
simt_switch_stack:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size simt_switch_stack,.-simt_switch_stack
)");
void switch_context(Context& from, Context& to) {
  simt_switch_stack(&from, to);
}
void make_context(Context& c, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // return address of entry(), which keeps rsp aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  c = top;
}
#endif

struct Fiber {
  Context context;
  char* stack;
  void* tsan;
  void* fake_stack;
};
std::vector<Fiber> sets[kMaxSets];
std::vector<Fiber>* fibers = nullptr;  // those of the running block

Context scheduler;
void* scheduler_tsan;
void* scheduler_fake_stack;
const void* scheduler_bottom;
size_t scheduler_size;

// A raw system call: ThreadSanitizer would take its own mmap for a write by the scheduler.
char* map_stack() {
  const long at = syscall(SYS_mmap, nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == -1) {
    std::perror("simt: cannot map a stack");
    std::abort();
  }
  char* guard = reinterpret_cast<char*>(at);
  mprotect(guard, kGuard, PROT_NONE);
  return guard + kGuard;
}

void leave(Fiber& f, bool for_good) {
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &f.fake_stack, scheduler_bottom, scheduler_size);
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(scheduler_tsan, kNoSynchronisation);
  switch_context(f.context, scheduler);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(f.fake_stack, &scheduler_bottom, &scheduler_size);
}

void (*first_function)();
void first_frame() {
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
  first_function();
}

}  // namespace

bool thread_sanitizer() {
  return __tsan_create_fiber != nullptr;
}
bool address_sanitizer() {
  return __asan_unpoison_memory_region != nullptr;
}
void acquire(void* tag) {
  if (__tsan_acquire) __tsan_acquire(tag);
}
void release(void* tag) {
  if (__tsan_release) __tsan_release(tag);
}

Unobserved::Unobserved() {
  if (!thread_sanitizer()) return;
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
Unobserved::~Unobserved() {
  if (!thread_sanitizer()) return;
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

void prepare_fibers(unsigned count, unsigned block, void (*entry)()) {
  first_function = entry;
  unsigned set = 0;
  if (thread_sanitizer()) {
    scheduler_tsan = __tsan_get_current_fiber();
    set = block % std::clamp(kMaxIdentities / count, 2u, kMaxSets);
  }
  fibers = &sets[set];
  while (fibers->size() < count)
    fibers->push_back({{}, map_stack(), thread_sanitizer() ? __tsan_create_fiber(0) : nullptr, nullptr});
  for (unsigned i = 0; i < count; ++i) {
    Fiber& f = (*fibers)[i];
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(f.stack, kStackBytes);
    make_context(f.context, f.stack, first_frame);
  }
}

void resume_fiber(unsigned fiber) {
  Fiber& f = (*fibers)[fiber];
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&scheduler_fake_stack, f.stack, kStackBytes);
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(f.tsan, kNoSynchronisation);
  switch_context(scheduler, f.context);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
}

void suspend_fiber(unsigned fiber) {
  leave((*fibers)[fiber], false);
}

void finish_fiber(unsigned fiber) {
  leave((*fibers)[fiber], true);
  std::abort();  // a finished fiber was resumed
}

void abandon_fibers() {
  for (Fiber& f : *fibers) {
    if (f.tsan) __tsan_destroy_fiber(f.tsan);
    munmap(f.stack - kGuard, kGuard + kStackBytes);
  }
  fibers->clear();
}

}  // namespace simt
