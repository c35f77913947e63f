#include "maxout/maxout_math.h"

#include "check.h"

using namespace pygan::generic;

TEST(only_a_larger_piece_wins) {
  CHECK(beats(2.0f, 1.0f));
  CHECK(!beats(1.0f, 2.0f));
  CHECK(!beats(1.0f, 1.0f));
  CHECK(!beats(0.0, -0.0));
  CHECK(beats(-1.0, -HUGE_VAL));
}

TEST(the_first_nan_wins) {
  const double nan = std::nan("");
  CHECK(beats(nan, HUGE_VAL));
  CHECK(!beats(HUGE_VAL, nan));
  CHECK(!beats(nan, nan));
}
