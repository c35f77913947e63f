#include "momentum/momentum_math.h"

#include "check.h"

using namespace pygan::generic;

TEST(the_rate_is_inside_the_velocity) {
  CHECK(next_velocity(2.0, 3.0, 0.5, 0.25) == 0.25 * 2.0 - 0.5 * 3.0);
  CHECK(next_velocity(0.0f, 1.0f, 0.5f, 0.9f) == -0.5f);
}
