#include "adversarial_loss/adversarial_loss_math.h"

#include "check.h"

using namespace pygan::generic;

namespace {

constexpr double kPoints[] = {0,  1e-30, 1e-6, 0.1, 0.5, 1,   2,   5,   10,  16,  20,   30,
                              36, 50,    80,   87,  88,  100, 300, 700, 708, 1e4, 1e30, 1e300};

long double exact_value(long double t) {
  return std::max(t, 0.0L) + std::log1p(std::exp(-std::fabs(t)));
}
long double exact_slope(long double t) {
  return t < 0 ? std::exp(t) / (1 + std::exp(t)) : 1 / (1 + std::exp(-t));
}

template <class T>
void check_points() {
  for (const double point : kPoints) {
    if (point > std::numeric_limits<T>::max()) continue;
    for (const T t : {static_cast<T>(point), static_cast<T>(-point)}) {
      const Softplus<T> f = softplus(t);
      CHECK_AT(t, ulps(f.value, exact_value(t)) <= 4);
      CHECK_AT(t, ulps(f.slope, exact_slope(t)) <= 4);
    }
  }
}

}  // namespace

TEST(float_is_exact_in_the_tails) {
  check_points<float>();
}
TEST(double_is_exact_in_the_tails) {
  check_points<double>();
}

TEST(infinities_and_nan) {
  CHECK(softplus(HUGE_VALF).value == HUGE_VALF);
  CHECK(softplus(HUGE_VALF).slope == 1);
  CHECK(softplus(-HUGE_VALF).value == 0);
  CHECK(softplus(-HUGE_VALF).slope == 0);
  CHECK(std::isnan(softplus(std::nan("")).value));
  CHECK(std::isnan(softplus(std::nan("")).slope));
}

TEST(slopes_of_both_signs_add_to_one) {
  for (float t = -30; t < 30; t += 0.01f) CHECK_AT(t, std::fabs(softplus(t).slope + softplus(-t).slope - 1) <= 1e-6f);
}
