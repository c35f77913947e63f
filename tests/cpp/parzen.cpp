#include "parzen/parzen_math.h"

#include "check.h"

using namespace pygan::generic;

namespace {

template <class T>
double worst_exp2(T from, int steps) {
  double worst = 0;
  for (int i = 0; i < steps; ++i) {
    const T t = from * (T(i) / T(steps));
    worst = std::max(worst, ulps(exp2_nonpositive(t), std::exp2(static_cast<long double>(t))));
  }
  return worst;
}

bool same(LogSum a, LogSum b) {
  return a.peak == b.peak && a.sum == b.sum;
}

constexpr LogSum kEmpty = {-HUGE_VAL, 0};

}  // namespace

TEST(exp2_is_within_two_ulps) {
  for (const float from : {-1.0f, -125.9f}) CHECK_AT(from, worst_exp2(from, 1000003) <= 2);
  for (const double from : {-1.0, -1021.9}) CHECK_AT(from, worst_exp2(from, 300007) <= 2);
}

TEST(exp2_at_its_ends) {
  CHECK(exp2_nonpositive(0.0f) == 1);
  CHECK(exp2_nonpositive(-1.0) == 0.5);
  CHECK(exp2_nonpositive(-127.0f) == 0);
  CHECK(exp2_nonpositive(-HUGE_VALF) == 0);
  CHECK(exp2_nonpositive(-HUGE_VAL) == 0);
  CHECK(exp2_nonpositive(std::nanf("")) == 0);
  CHECK(exp2_nonpositive(std::nan("")) == 0);
}

TEST(a_rate_that_overflows_gives_0_at_distance_0) {
  CHECK(exponent(HUGE_VAL, 0) == 0);
  CHECK(exponent(HUGE_VAL, 1e-300) == -HUGE_VAL);
  CHECK(exponent(2, 3) == -6);
  CHECK(std::isnan(exponent(std::nan(""), 0)));
  CHECK(binary_rate<float>(1) == 1.442695f);
  CHECK(binary_rate<float>(1e60) == std::numeric_limits<float>::max());
  CHECK(binary_rate<double>(HUGE_VAL) == std::numeric_limits<double>::max());
  CHECK(std::isnan(binary_rate<float>(std::nan(""))));
}

TEST(a_distance_is_never_negative_but_may_be_nan) {
  CHECK(squared_distance(1.0f, 0.0f, 1.0f, 2.000001f) == 0);
  CHECK(squared_distance(4.0, 0.5, 1.0, 2.0) == 3.5);
  CHECK(std::isnan(squared_distance(std::nan(""), 0.0, 1.0, 2.0)));
}

TEST(merging_adds_the_sums) {
  const LogSum merged = merge({2, 1.5}, {-1, 4});
  CHECK(merged.peak == 2);
  CHECK(ulps(merged.sum, 1.5L + 4 * std::exp(-3.0L)) <= 2);
  CHECK(same(merge({-1, 4}, {2, 1.5}), merged));
}

TEST(the_empty_sum_is_neutral) {
  const LogSum some = {-1e300, 0.25};
  CHECK(same(merge(some, kEmpty), some));
  CHECK(same(merge(kEmpty, some), some));
  CHECK(same(merge(kEmpty, kEmpty), kEmpty));
}

TEST(merging_keeps_nan) {
  for (const double sum : {0.0, 1.0}) {
    const LogSum nan = {std::nan(""), sum}, some = {0, 1};
    CHECK_AT(sum, std::isnan(merge(nan, some).sum));
    CHECK_AT(sum, std::isnan(merge(some, nan).sum));
    CHECK_AT(sum, std::isnan(merge(nan, kEmpty).peak));
  }
}

TEST(shares_of_a_sum) {
  CHECK(share_of_largest(0.5, 4.0, -2.0) == 1);
  CHECK(share_of_largest(0.5, 4.0, -HUGE_VAL) == 0);
}
