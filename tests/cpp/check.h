// The smallest test harness: TEST(name) { CHECK(...); }, one file per header of csrc, one process per test.
//   ./program         prints the names of its tests
//   ./program NAME    runs one; exit code 1 and a line on stderr for each check that failed
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

struct Test {
  const char* name;
  void (*body)();
};
inline std::vector<Test> tests;
inline int failures = 0;

#define TEST(name)                                                         \
  static void name();                                                      \
  static const bool name##_added = (tests.push_back({#name, name}), true); \
  static void name()

inline void check(bool condition, const char* text, const char* file, int line, double at) {
  if (condition || ++failures > 10) return;
  std::fprintf(stderr, "%s:%d: %s, at %.17g\n", file, line, text, at);
}
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__, 0)
#define CHECK_AT(input, condition) check((condition), #condition, __FILE__, __LINE__, double(input))  // names the input

// The distance of `got` from `expected` in units of the last place of T there (of its subnormal numbers near 0).
template <class T>
double ulps(T got, long double expected) {
  if (std::isnan(got) || std::isinf(got)) return static_cast<long double>(got) == expected ? 0 : HUGE_VAL;
  int exponent;
  std::frexp(expected, &exponent);
  exponent = std::max(exponent, std::numeric_limits<T>::min_exponent);
  const long double unit = std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - expected) / unit);
}

int main(int count, char** arguments) {
  for (const Test& test : tests) {
    if (count == 1) std::printf("%s\n", test.name);
    if (count == 2 && std::strcmp(test.name, arguments[1]) == 0) {
      test.body();
      return failures ? 1 : 0;
    }
  }
  return count == 1 ? 0 : 2;
}
