#include "common/elementary.h"

#include "check.h"

using namespace pygan::generic;

namespace {

template <class T>
double worst_exp(T from, T to, int steps) {
  double worst = 0;
  for (int i = 0; i <= steps; ++i) {
    const T t = from + (to - from) * (T(i) / T(steps));
    worst = std::max(worst, ulps(exp_nonpositive(t), std::exp(static_cast<long double>(t))));
  }
  return worst;
}

template <class T>
double worst_log1p(int steps) {
  double worst = 0;
  for (int i = 0; i <= steps; ++i) {
    const T e = T(i) / T(steps);
    worst = std::max(worst, ulps(log1p_unit(e), std::log1p(static_cast<long double>(e))));
    const T small = std::ldexp(e, -i % 100);
    worst = std::max(worst, ulps(log1p_unit(small), std::log1p(static_cast<long double>(small))));
  }
  return worst;
}

}  // namespace

TEST(exp_is_within_five_quarters_of_an_ulp) {
  for (const float from : {-1.0f, -110.0f}) {
    const double worst = worst_exp<float>(from, 0, 1000003);
    CHECK_AT(worst, worst <= 1.25);
  }
  for (const double from : {-1.0, -760.0}) {
    const double worst = worst_exp<double>(from, 0, 300007);
    CHECK_AT(worst, worst <= 1.25);
  }
}

TEST(exp_at_its_ends) {
  CHECK(exp_nonpositive(0.0f) == 1.0f);
  CHECK(exp_nonpositive(-0.0) == 1.0);
  CHECK(exp_nonpositive(-1e30f) == 0.0f);
  CHECK(exp_nonpositive(-1e300) == 0.0);
  CHECK(exp_nonpositive(-HUGE_VALF) == 0.0f);
  CHECK(exp_nonpositive(-HUGE_VAL) == 0.0);
}

TEST(log1p_is_within_two_ulps) {
  const double worst_float = worst_log1p<float>(1000003), worst_double = worst_log1p<double>(300007);
  CHECK_AT(worst_float, worst_float <= 2);
  CHECK_AT(worst_double, worst_double <= 2);
}

TEST(log1p_at_its_ends) {
  CHECK(log1p_unit(0.0f) == 0.0f);
  CHECK(log1p_unit(0.0) == 0.0);
  CHECK(ulps(log1p_unit(1.0), 0.693147180559945309417L) <= 1);
}
