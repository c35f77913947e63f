// A fiber: a stack of its own on which one CUDA thread of the simulated block runs.
//
// All fibers share one OS thread, so the order in which they run is ours to choose and to repeat. AddressSanitizer and
// ThreadSanitizer are told of every switch. ThreadSanitizer sees each fiber as a thread, and the switch itself as no
// synchronisation: the only happens-before edges are those that the runtime announces with acquire() and release().
#pragma once
#include <cstddef>

namespace simt {

// True when the program runs under ThreadSanitizer / AddressSanitizer.
bool thread_sanitizer();
bool address_sanitizer();

// Happens-before edges for ThreadSanitizer (nothing without it): what precedes release(tag) in one fiber
// happens before what follows a later acquire(tag) in another.
void acquire(void* tag);
void release(void* tag);

// While one exists, ThreadSanitizer does not see what its interceptors (memmove, operator new ...) do in this fiber:
// the runtime's own bookkeeping, done on a kernel's fiber.
class Unobserved {
 public:
  Unobserved();
  ~Unobserved();
};

// The fibers of one block, numbered from 0; one block exists at a time, `block` counts those of a launch.
//
// Under ThreadSanitizer neighbouring blocks get fibers with different identities: the same identity would order the
// accesses of two blocks and hide a race between them.
void prepare_fibers(unsigned count, unsigned block, void (*entry)());  // each begins with entry() at its first resume
void resume_fiber(unsigned fiber);               // from the scheduler: run it until it suspends or finishes
void suspend_fiber(unsigned fiber);              // from the fiber itself: back to the scheduler
[[noreturn]] void finish_fiber(unsigned fiber);  // from the fiber itself: back for good
void abandon_fibers();                           // some have not finished and never will

}  // namespace simt
