#include "common/philox.h"

#include "check.h"

using namespace pygan::generic;

// The generator's authors publish this vector (Random123, kat_vectors: philox4x32 10, zero counter and key).
TEST(published_vector) {
  const PhiloxWords w = philox(0, 0);
  CHECK(w.w0 == 0x6627e8d5u);
  CHECK(w.w1 == 0xe169c58du);
  CHECK(w.w2 == 0xbc57ac4cu);
  CHECK(w.w3 == 0x9b00dbd8u);
}

TEST(every_bit_of_key_and_counter_counts) {
  const PhiloxWords zero = philox(0, 0);
  for (int bit = 0; bit < 64; ++bit) {
    const PhiloxWords other_key = philox(std::uint64_t(1) << bit, 0),
                      other_counter = philox(0, std::uint64_t(1) << bit);
    CHECK_AT(bit, other_key.w0 != zero.w0 && other_key.w3 != zero.w3);
    CHECK_AT(bit, other_counter.w0 != zero.w0 && other_counter.w3 != zero.w3);
  }
}
