#include "dropout/dropout_math.h"

#include "check.h"

using namespace pygan::generic;

TEST(the_limit_counts_the_words_that_keep) {
  CHECK(keep_limit(1.0) == 4294967295u);
  CHECK(keep_limit(0.5) == 2147483647u);
  CHECK(keep_limit(0.25) == 1073741823u);
  CHECK(keep_limit(3.0 / 4294967296.0) == 2u);
  CHECK(keep_limit(1e-300) == 0u);
}

TEST(an_element_is_kept_up_to_the_limit) {
  CHECK(drop(2.0f, 7u, 7u, 1.25f) == 2.5f);
  CHECK(drop(2.0f, 8u, 7u, 1.25f) == 0.0f);
}

TEST(dropped_infinity_and_nan_are_zero) {
  CHECK(drop(HUGE_VALF, 1u, 0u, 2.0f) == 0.0f);
  CHECK(drop(std::nan(""), 1u, 0u, 2.0) == 0.0);
  CHECK(std::isnan(drop(std::nan(""), 0u, 0u, 2.0)));
}
