// check(condition, parts...) throws std::invalid_argument (ValueError in Python) with the parts as one sentence. Only
// for code that is compiled once: its templates would leak from the SIMD objects.
#pragma once

#include <sstream>
#include <stdexcept>

namespace pygan {

template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::invalid_argument(sentence.str());
}

}  // namespace pygan
