// One example's share of an adversarial loss, from its logit x = log D / (1 - D):
//   -log D       = softplus(-x)        -log(1 - D) = softplus(x)
// so that every loss of the paper is a mean of softplus(sign * x) over real or fake examples.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/elementary.h"
#include "common/host_device.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

template <class T>
struct Softplus {
  T value;  // softplus(t) = log(1 + exp(t))
  T slope;  // its derivative, the logistic function of t
};

// Domain: all of R, +-inf included; NaN gives NaN in both. Relative error at most 4 eps wherever the result is normal:
// the sum of two terms of one sign cannot cancel, and exp(-|t|) keeps its relative accuracy in the tail.
template <class T>
PYGAN_HD Softplus<T> softplus(T t) {
  const T e = exp_nonpositive(t < 0 ? t : -t);
  const T positive_part = t < 0 ? T(0) : t;  // NaN stays
  const T slope = (t < 0 ? e : T(1)) / (1 + e);
  return {positive_part + log1p_unit(e), t == t ? slope : t};
}

// A sum may overflow although its mean does not. It is then taken again in this unit, in which no sum of fewer than
// 2^64 numbers overflows; what underflows there is not seen in a mean so large.
constexpr double kSmallUnit = 0x1p-64;

PYGAN_HD bool is_finite(double x) {
  return x - x == 0;
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
