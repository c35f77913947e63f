// The runtime is compiled without sanitizers, so that its own bookkeeping is invisible to them.
#include "runtime.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fiber.h"

namespace simt {

Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr unsigned kWarp = 32, kMaxThreads = 1024, kMaxWarps = kMaxThreads / kWarp;
constexpr size_t kDefaultShared = 48 * 1024, kMaxShared = 227 * 1024;
constexpr unsigned char kPoison = 0xff;  // makes NaN of every floating type, -1 of every integer
constexpr size_t kRedZone = 64;          // bytes of kCanary on either side of a shared variable
constexpr unsigned char kCanary = 0xcd;
constexpr size_t kProblemsShown = 20;
enum Error { kSuccess = 0, kInvalidValue = 1, kInvalidConfiguration = 9, kInvalidDevice = 101, kLaunchFailure = 719 };

// ---- memory that ThreadSanitizer has never seen -----------------------------------------------------------------
// Shared variables and synchronisation tags come from here, at addresses that are never used twice within a launch:
// neither the shadow of an earlier block's access nor its tag can be mistaken for this block's.
class Arena {
 public:
  char* take(size_t bytes, size_t alignment) {
    if (!begin_) map();
    top_ = (top_ + alignment - 1) / alignment * alignment;
    char* p = begin_ + top_;
    top_ += bytes;
    if (top_ > kBytes) {
      std::fprintf(stderr, "simt: one launch used up the arena of %zu bytes; launch a smaller grid\n", kBytes);
      std::abort();
    }
    return p;
  }
  void clear() {
    if (begin_) munmap(begin_, kBytes);  // ThreadSanitizer's own munmap, which clears the shadow
    begin_ = nullptr;
    top_ = 0;
  }

 private:
  static constexpr size_t kBytes = size_t(4) << 30;  // virtual; untouched pages cost nothing
  void map() {
    const long at =
        syscall(SYS_mmap, nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == -1) {
      std::perror("simt: cannot map the arena");
      std::abort();
    }
    begin_ = reinterpret_cast<char*>(at);
  }
  char* begin_ = nullptr;
  size_t top_ = 0;
} arena;

char* new_tag() {
  return arena.take(8, 8);
}

// ---- problems ---------------------------------------------------------------------------------------------------
std::string problems;
size_t problems_found = 0;

[[gnu::format(printf, 1, 2)]] void add_problem(const char* format, ...) {
  if (++problems_found > kProblemsShown) return;
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  problems += line;
  problems += '\n';
}

// ---- the running block ------------------------------------------------------------------------------------------
enum class State : unsigned char { ready, at_barrier, at_warp_operation, done };

struct Thread {
  State state;
  Site site;                    // where it waits
  unsigned mask;                // of the warp operation in which it waits
  Gathered gathered;            // what that operation brought
  bool predicate;               // its vote at the block barrier
  char* fence_tag;              // released by its last fence
  std::vector<char*> observed;  // fence tags published where it made atomic accesses since its last fence
};

// A warp operation that some lanes have reached and others have yet to reach.
struct Meeting {
  Site site;
  unsigned mask, arrived;
  uint64_t values[kWarp];
  char* tag;  // null if the operation orders no memory
};

struct SharedVariable {
  const SharedSite* key;  // null: the dynamic shared memory
  char* data;
  size_t size;
  void* allocation;  // null: from the arena
};

std::vector<Thread> threads;
unsigned thread_count, current, waiting, finished;
unsigned ready_lanes[kMaxWarps];  // bit l: lane l of this warp is ready
std::vector<Meeting> meetings[kMaxWarps];
char* barrier_tag;
int barrier_votes[2];  // of the barrier being gathered, and of the last one completed
std::vector<SharedVariable> shared_variables;
std::unordered_map<const void*, std::vector<char*>> published;  // by address of the atomic: tags of earlier fences
bool abandoned;

char* start_tag;
char* end_tag;
void (*kernel_body)(void*);
void* kernel_arguments;
const char* kernel_name;

unsigned warp_of(unsigned thread) {
  return thread / kWarp;
}
unsigned lane_of(unsigned thread) {
  return thread % kWarp;
}

void set_ready(unsigned thread) {
  threads[thread].state = State::ready;
  ready_lanes[warp_of(thread)] |= 1u << lane_of(thread);
}

// From here until set_ready() the running thread is not picked; it goes on behind its suspend_fiber().
void wait(State state, Site site, unsigned mask) {
  threads[current].state = state;
  threads[current].site = site;
  threads[current].mask = mask;
}

unsigned live_lanes(unsigned warp) {
  unsigned live = 0;
  for (unsigned l = 0; l < kWarp; ++l) {
    const unsigned i = warp * kWarp + l;
    if (i < thread_count && threads[i].state != State::done) live |= 1u << l;
  }
  return live;
}

// Lets the lanes of a meeting go on when every lane of its mask that still lives has arrived.
void complete_meetings(unsigned warp) {
  auto& open = meetings[warp];
  const unsigned live = live_lanes(warp);
  for (size_t m = 0; m < open.size();) {
    const Meeting& meeting = open[m];
    if ((meeting.mask & live) & ~meeting.arrived) {
      ++m;
      continue;
    }
    for (unsigned lanes = meeting.arrived; lanes; lanes &= lanes - 1) {
      const unsigned i = warp * kWarp + static_cast<unsigned>(std::countr_zero(lanes));
      std::copy(std::begin(meeting.values), std::end(meeting.values), threads[i].gathered.values);
      threads[i].gathered.present = meeting.arrived;
      set_ready(i);
    }
    open.erase(open.begin() + static_cast<long>(m));
  }
}

const char* place() {
  static char text[256];
  std::snprintf(text, sizeof text, "%s, block (%u,%u,%u)", kernel_name, block_index.x, block_index.y, block_index.z);
  return text;
}

// Lets all threads pass the block barrier when every thread that still lives waits there.
void complete_barrier() {
  if (waiting == 0 || waiting + finished < thread_count) return;
  const Thread* first = nullptr;
  for (const Thread& t : threads) {
    if (t.state != State::at_barrier) continue;
    if (!first) first = &t;
    if (t.site.line == first->site.line && t.site.file == first->site.file) continue;
    add_problem("%s:%d: %s: some threads wait at the barrier of line %d", first->site.file, first->site.line, place(),
                t.site.line);
    break;
  }
  if (finished)
    add_problem("%s:%d: %s: %s after %u of %u threads have left", first->site.file, first->site.line, place(),
                first->site.what, finished, thread_count);
  for (unsigned i = 0; i < thread_count; ++i)
    if (threads[i].state == State::at_barrier) set_ready(i);
  waiting = 0;
  barrier_votes[1] = barrier_votes[0];
  barrier_votes[0] = 0;
  barrier_tag = nullptr;
}

void thread_has_left() {
  const Unobserved unobserved;
  threads[current].state = State::done;
  ++finished;
  complete_meetings(warp_of(current));
  complete_barrier();
}

void thread_entry() {
  acquire(start_tag);
  kernel_body(kernel_arguments);
  release(end_tag);
  thread_has_left();
  finish_fiber(current);
}

// ---- the order of threads and blocks ------------------------------------------------------------------------------
enum class Order { forward, reverse, random } order = Order::forward;
std::mt19937 random_bits;

// The next thread to run, or thread_count if none is ready. Forward and reverse run one warp as far as it gets
// before another: the largest skew between warps, which shows a missing barrier in the results.
unsigned next_thread() {
  const unsigned warps = (thread_count + kWarp - 1) / kWarp;
  const unsigned offset = order == Order::random ? random_bits() % warps : 0;
  for (unsigned k = 0; k < warps; ++k) {
    const unsigned warp = order == Order::reverse ? warps - 1 - k : (k + offset) % warps;
    const unsigned ready = ready_lanes[warp];
    if (!ready) continue;
    unsigned l = static_cast<unsigned>(std::countr_zero(ready));
    if (order == Order::reverse) l = 31u - static_cast<unsigned>(std::countl_zero(ready));
    if (order == Order::random) {
      const int turn = static_cast<int>(random_bits() % kWarp);
      l = (static_cast<unsigned>(std::countr_zero(std::rotr(ready, turn))) + static_cast<unsigned>(turn)) % kWarp;
    }
    return warp * kWarp + l;
  }
  return thread_count;
}

void report_deadlock() {
  add_problem("%s: deadlock: %u of %u threads have left, %u wait at a block barrier", place(), finished, thread_count,
              waiting);
  unsigned shown = 0;
  for (unsigned i = 0; i < thread_count && shown < 4; ++i) {
    const Thread& t = threads[i];
    if (t.state != State::at_warp_operation && t.state != State::at_barrier) continue;
    if (i && threads[i - 1].site.line == t.site.line && threads[i - 1].state == t.state) continue;
    add_problem("  thread %u (warp %u, lane %u) waits in %s at %s:%d, mask %08x", i, warp_of(i), lane_of(i),
                t.site.what, t.site.file, t.site.line, t.mask);
    ++shown;
  }
}

// ---- shared memory ------------------------------------------------------------------------------------------------
// ThreadSanitizer: from the arena. AddressSanitizer: its own allocator, exact size, so that it sees an overrun.
// Neither: between canaries that are looked at after the block.
char* new_shared(const SharedSite* key, size_t size, size_t alignment) {
  alignment = std::max(alignment, size_t(16));
  SharedVariable v{key, nullptr, size, nullptr};
  if (thread_sanitizer()) {
    v.data = arena.take(size, alignment);
  } else if (address_sanitizer()) {
    if (posix_memalign(&v.allocation, alignment, size)) std::abort();
    v.data = static_cast<char*>(v.allocation);
  } else {
    const size_t before = std::max(kRedZone, alignment);
    if (posix_memalign(&v.allocation, alignment, before + size + kRedZone)) std::abort();
    v.data = static_cast<char*>(v.allocation) + before;
    std::fill_n(reinterpret_cast<unsigned char*>(v.data - kRedZone), kRedZone, kCanary);
    std::fill_n(reinterpret_cast<unsigned char*>(v.data + size), kRedZone, kCanary);
  }
  // volatile: a memset would be a call to the sanitizer's interceptor, and so a write by this thread
  for (size_t i = 0; i < size; ++i) reinterpret_cast<volatile unsigned char*>(v.data)[i] = kPoison;
  shared_variables.push_back(v);
  return v.data;
}

bool intact(const char* zone) {
  return std::all_of(zone, zone + kRedZone, [](char c) { return static_cast<unsigned char>(c) == kCanary; });
}

void drop_shared() {
  for (const SharedVariable& v : shared_variables) {
    const bool has_canaries = !thread_sanitizer() && !address_sanitizer();
    const Site site = v.key ? v.key->site : Site{"dynamic shared memory", 0, "of the launch"};
    if (has_canaries && !intact(v.data - kRedZone))
      add_problem("%s:%d: %s: write before the start of shared %s", site.file, site.line, place(), site.what);
    if (has_canaries && !intact(v.data + v.size))
      add_problem("%s:%d: %s: write past the end of shared %s", site.file, site.line, place(), site.what);
    std::free(v.allocation);
  }
  shared_variables.clear();
}

// ---- launches -----------------------------------------------------------------------------------------------------
int error_code = kSuccess, device = 0;
int launches_until_failure = -1, injected_error = kSuccess;
std::map<const void*, size_t> allowed_shared;
std::vector<std::string> launch_log;
uint64_t first_block = 0, selected_blocks = 0;

bool valid(const Launch& l) {
  const auto allowed = allowed_shared.find(l.function);
  const size_t shared_limit = allowed == allowed_shared.end() ? kDefaultShared : allowed->second;
  const uint64_t block = uint64_t(l.block.x) * l.block.y * l.block.z;
  return block >= 1 && block <= kMaxThreads && l.block.z <= 64 && l.grid.x >= 1 && l.grid.x <= 0x7fffffffu &&
         l.grid.y >= 1 && l.grid.y <= 65535 && l.grid.z >= 1 && l.grid.z <= 65535 && l.shared_bytes <= shared_limit;
}

void run_block(unsigned number, size_t shared_bytes) {
  threads.assign(thread_count, Thread{});
  waiting = finished = 0;
  barrier_tag = nullptr;
  barrier_votes[0] = barrier_votes[1] = 0;
  for (auto& open : meetings) open.clear();
  prepare_fibers(thread_count, number, thread_entry);
  std::fill(std::begin(ready_lanes), std::end(ready_lanes), 0u);
  for (unsigned i = 0; i < thread_count; ++i) set_ready(i);
  if (shared_bytes) new_shared(nullptr, shared_bytes, 16);
  while (finished < thread_count) {
    current = next_thread();
    if (current == thread_count) {
      report_deadlock();
      abandoned = true;
      return;
    }
    ready_lanes[warp_of(current)] &= ~(1u << lane_of(current));
    thread_index = {current % block_size.x, current / block_size.x % block_size.y,
                    current / block_size.x / block_size.y};
    resume_fiber(current);
  }
}

}  // namespace

// ---- what kernels call --------------------------------------------------------------------------------------------
unsigned lane() {
  return lane_of(current);
}

void report(Site site, const char* problem) {
  const Unobserved unobserved;
  add_problem("%s:%d: %s, thread %u: %s: %s", site.file, site.line, place(), current, site.what, problem);
}

int block_barrier(Site site, Vote vote, bool predicate) {
  char* tag;
  {
    const Unobserved unobserved;
    if (!barrier_tag) barrier_tag = new_tag();
    tag = barrier_tag;
    release(tag);
    barrier_votes[0] += predicate;
    ++waiting;
    wait(State::at_barrier, site, 0);
    complete_barrier();
  }
  suspend_fiber(current);
  acquire(tag);
  const int votes = barrier_votes[1];
  if (vote == Vote::any) return votes != 0;
  if (vote == Vote::all) return votes == static_cast<int>(thread_count);
  return votes;
}

const Gathered& warp_operation(Site site, unsigned mask, uint64_t value, bool orders_memory) {
  if (!(mask >> lane() & 1u)) report(site, "the calling lane is not in its own mask");
  mask |= 1u << lane();
  char* tag;
  {
    const Unobserved unobserved;
    auto& open = meetings[warp_of(current)];
    auto meeting = std::find_if(open.begin(), open.end(), [&](const Meeting& m) {
      return m.mask == mask && m.site.line == site.line && m.site.file == site.file;
    });
    if (meeting == open.end()) {
      open.push_back({site, mask, 0, {}, orders_memory ? new_tag() : nullptr});
      meeting = open.end() - 1;
    }
    tag = meeting->tag;
    if (tag) release(tag);
    meeting->arrived |= 1u << lane();
    meeting->values[lane()] = value;
    wait(State::at_warp_operation, site, mask);
    complete_meetings(warp_of(current));
  }
  suspend_fiber(current);
  if (tag) acquire(tag);
  return threads[current].gathered;
}

// A fence makes what precedes it visible to a thread that makes a fence of its own after it has read, by an atomic
// access, what this thread wrote by an atomic access after its fence (release and acquire fences of C++).
void memory_fence() {
  if (!thread_sanitizer()) return;
  const Unobserved unobserved;
  Thread& t = threads[current];
  for (char* tag : t.observed) acquire(tag);
  t.observed.clear();
  t.fence_tag = new_tag();
  release(t.fence_tag);
}

void atomic_access(const void* address) {
  if (!thread_sanitizer()) return;
  const Unobserved unobserved;
  Thread& t = threads[current];
  auto& tags = published[address];
  t.observed.insert(t.observed.end(), tags.begin(), tags.end());
  if (t.fence_tag && std::find(tags.begin(), tags.end(), t.fence_tag) == tags.end()) tags.push_back(t.fence_tag);
}

void* static_shared(const SharedSite& variable) {
  const Unobserved unobserved;
  for (const SharedVariable& v : shared_variables)
    if (v.key == &variable) return v.data;
  return new_shared(&variable, variable.size, variable.alignment);
}

void* dynamic_shared() {
  const Unobserved unobserved;
  if (!shared_variables.empty() && !shared_variables.front().key) return shared_variables.front().data;
  add_problem("%s: dynamic shared memory is used but the launch gives none", place());
  return new_shared(nullptr, 16, 16);
}

void run(const Launch& launch, void (*body)(void*), void* arguments) {
  char text[512];
  std::snprintf(text, sizeof text, "%s grid=%u,%u,%u block=%u,%u,%u shared=%zu stream=%p device=%d", launch.kernel,
                launch.grid.x, launch.grid.y, launch.grid.z, launch.block.x, launch.block.y, launch.block.z,
                launch.shared_bytes, launch.stream, device);
  launch_log.emplace_back(text);
  if (launches_until_failure >= 0 && launches_until_failure-- == 0) {
    error_code = injected_error;
    return;
  }
  if (!valid(launch)) {
    error_code = kInvalidConfiguration;
    return;
  }
  kernel_name = launch.kernel;
  kernel_body = body;
  kernel_arguments = arguments;
  grid_size = launch.grid;
  block_size = launch.block;
  thread_count = launch.block.x * launch.block.y * launch.block.z;
  abandoned = false;
  start_tag = new_tag();
  end_tag = new_tag();
  release(start_tag);

  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  const uint64_t begin = selected_blocks ? std::min(first_block, blocks) : 0;
  const uint64_t end = selected_blocks ? std::min(begin + selected_blocks, blocks) : blocks;
  std::vector<uint64_t> sequence(end - begin);
  for (uint64_t b = 0; b < sequence.size(); ++b) sequence[b] = begin + b;
  if (order == Order::reverse) std::reverse(sequence.begin(), sequence.end());
  if (order == Order::random) std::shuffle(sequence.begin(), sequence.end(), random_bits);
  unsigned number = 0;
  for (const uint64_t b : sequence) {
    block_index = {static_cast<unsigned>(b % grid_size.x), static_cast<unsigned>(b / grid_size.x % grid_size.y),
                   static_cast<unsigned>(b / grid_size.x / grid_size.y)};
    run_block(number++, launch.shared_bytes);
    drop_shared();
    if (abandoned) {
      abandon_fibers();
      error_code = kLaunchFailure;
      break;
    }
  }
  acquire(end_tag);
  published.clear();
  arena.clear();
}

int last_error(bool clear) {
  return clear ? std::exchange(error_code, kSuccess) : error_code;
}

int set_device(int index) {
  if (index < 0 || index >= kDevices) return error_code = kInvalidDevice;
  device = index;
  return kSuccess;
}

int get_device() {
  return device;
}

void allow_shared_bytes(const void* function, size_t bytes) {
  if (bytes > kMaxShared)
    error_code = kInvalidValue;
  else
    allowed_shared[function] = bytes;
}

}  // namespace simt

// ---- what the tests call --------------------------------------------------------------------------------------------
using namespace simt;

const char* simt_problems() {
  static std::string text;
  text = problems;
  if (problems_found > kProblemsShown) text += "and " + std::to_string(problems_found - kProblemsShown) + " more\n";
  return text.c_str();
}

void simt_clear() {
  problems.clear();
  problems_found = 0;
  launches_until_failure = -1;
  launch_log.clear();
}

void simt_set_order(const char* name) {
  const std::string text = name;
  if (text == "forward") {
    order = Order::forward;
  } else if (text == "reverse") {
    order = Order::reverse;
  } else if (text.rfind("random:", 0) == 0) {
    order = Order::random;
    random_bits.seed(static_cast<unsigned>(std::stoul(text.substr(7))));
  } else {
    add_problem("simt_set_order: expected forward, reverse or random:<seed>, got %s", name);
  }
}

void simt_select_blocks(uint64_t first, uint64_t count) {
  first_block = first;
  selected_blocks = count;
}

void simt_fail_launch(int after, int error) {
  launches_until_failure = after;
  injected_error = error;
}

int simt_launches() {
  return static_cast<int>(launch_log.size());
}
const char* simt_launch_text(int i) {
  return launch_log.at(static_cast<size_t>(i)).c_str();
}
int simt_device() {
  return device;
}
