#include "common/dtype.h"

#include "check.h"

using namespace pygan::generic;
using pygan::generic::load;

namespace {

// Calls body with floats of every exponent and sign, near and far from every rounding boundary.
template <class Body>
void for_many_floats(const Body& body) {
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += 2039) body(bit_cast<float>(std::uint32_t(bits)));
  for (std::uint64_t high = 0; high <= 0xffff; ++high)
    for (const std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, 0x0fffu, 0x1000u, 0x1001u})
      body(bit_cast<float>(std::uint32_t(high << 16 | low)));
}

}  // namespace

TEST(bfloat16_survives_a_round_trip) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const bfloat16 x{static_cast<std::uint16_t>(bits)};
    const float value = load(x);
    const bfloat16 again = store<bfloat16>(value);
    CHECK_AT(bits, std::isnan(value) ? std::isnan(load(again)) : again.bits == x.bits);
  }
}

TEST(float16_survives_a_round_trip) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float16 x{static_cast<std::uint16_t>(bits)};
    const float value = load(x);
    const float16 again = store<float16>(value);
    CHECK_AT(bits, std::isnan(value) ? std::isnan(load(again)) : again.bits == x.bits);
  }
}

TEST(bfloat16_rounds_to_nearest_even) {
  for_many_floats([](float x) {
    const bfloat16 rounded = store<bfloat16>(x);
    if (std::isnan(x)) return CHECK(std::isnan(load(rounded)));
    const auto toward_zero = static_cast<std::uint16_t>(bit_cast<std::uint32_t>(x) >> 16);
    const double below = load(bfloat16{toward_zero}), exact = x;
    // the next number away from zero; beyond the largest one, where infinity would be if exponents went on
    const double above = std::isinf(load(bfloat16{static_cast<std::uint16_t>(toward_zero + 1)}))
                             ? std::copysign(0x1p128, exact)
                             : load(bfloat16{static_cast<std::uint16_t>(toward_zero + 1)});
    if (std::isinf(x)) return CHECK_AT(x, load(rounded) == x);
    const double down = std::fabs(exact - below), up = std::fabs(above - exact);
    const bool away = up < down || (up == down && toward_zero % 2 == 1);
    CHECK_AT(x, rounded.bits == toward_zero + away);
  });
}

TEST(float16_rounds_as_the_compiler_does) {
  for_many_floats([](float x) {
    const auto expected = static_cast<_Float16>(x);
    std::uint16_t bits;
    std::memcpy(&bits, &expected, sizeof bits);
    const float16 rounded = store<float16>(x);
    CHECK_AT(x, std::isnan(x) ? std::isnan(load(rounded)) : rounded.bits == bits);
  });
}
