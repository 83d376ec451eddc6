// SPDX-License-Identifier: Apache-2.0
// Known answers: RFC 8032, RFC 7748, and values of another implementation (Python's cryptography,
// hashlib) for our compositions.
#include "kamerton/privacy/keys.h"

#include <gtest/gtest.h>

#include "bytes.h"
#include "chacha.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

const Secret kSigning =
    secret_of("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
const Secret kFirst = secret_of("77076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c2a");
const Secret kSecond =
    secret_of("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");

TEST(SigningKey, HasThePublicKeyOfRfc8032AndSignsPurposeAndMessage) {
  const SigningKey key(kSigning);

  EXPECT_EQ(hex(key.public_key()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  EXPECT_EQ(hex(key.sign("test", "message")),
            "5a569d33aaa19fd813461349fa65b88fec39463c86918a126be53f55060080c6"
            "cec2feaec2ac19b76015fd7fe9f5f870e820ce48a9ffd4aff774b027390b5d0e");
}

TEST(SigningKey, SignatureIsGoodForItsPurposeMessageAndKeyOnly) {
  const SigningKey key(kSigning);
  const SigningKey other(kFirst);
  const Signature signature = key.sign("test", "message");

  EXPECT_TRUE(verify(key.public_key(), "test", "message", signature));
  EXPECT_FALSE(verify(key.public_key(), "tes", "tmessage", signature));
  EXPECT_FALSE(verify(key.public_key(), "test", "Message", signature));
  EXPECT_FALSE(verify(other.public_key(), "test", "message", signature));
  EXPECT_FALSE(verify(PublicKey{}, "test", "message", signature));
}

TEST(AgreementKey, GivesBothSidesTheSameKeyBoundToPurposeAndContext) {
  const AgreementKey first(kFirst);
  const AgreementKey second(kSecond);

  const Secret key = first.agree(second.public_key(), "test", "ctx");

  EXPECT_EQ(hex(second.public_key()),
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  EXPECT_EQ(hex(key.bytes()), "13e8310fc95e682cf09d8165f1aa4fc8537270a3c106c7ffb60e7df765256628");
  EXPECT_TRUE(key.equals(second.agree(first.public_key(), "test", "ctx")));
  EXPECT_FALSE(key.equals(second.agree(first.public_key(), "test", "other")));
  EXPECT_FALSE(key.equals(second.agree(first.public_key(), "other", "ctx")));
}

TEST(AgreementKey, RefusesAPeerKeyOfSmallOrder) {
  test::expect_error(core::ErrorKind::Data, {"small order"}, [] {
    AgreementKey(kFirst).agree(PublicKey{}, "test", "ctx");
  });
}

TEST(Chacha, StreamIsThatOfAnotherImplementationFromAnyBlock) {
  const Secret key = secret_of("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  std::array<uint8_t, 64> stream;

  chacha_stream(key, 7, 3, stream);

  EXPECT_EQ(hex(stream),
            "186ce88690c5a3abfaccc293d0089479a74f9b5fa674bef623e832d2dfcf4873"
            "7639dc732a99d3a20ea7c3f52f1db91977b349ce2ad80b2642be1c010b19b428");
}

TEST(KeyedRandom, GivesTheSameBytesInAnyPieces) {
  KeyedRandom whole(kFirst, 3);
  KeyedRandom pieces(kFirst, 3);
  std::vector<uint8_t> a(5000);
  std::vector<uint8_t> b(5000);

  whole.fill(a);
  for (size_t done = 0, size = 1; done < b.size(); done += size, size = size % 97 + 1) {
    size = std::min(size, b.size() - done);
    pieces.fill({b.data() + done, size});
  }
  std::array<uint8_t, 10> again;
  whole.seek(1234);
  whole.fill(again);

  EXPECT_EQ(a, b);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), a.begin() + 1234));
}

TEST(RandomSource, BelowIsUniform) {
  auto random = test_random();
  std::array<int, 7> counts = {};

  for (int i = 0; i < 70000; ++i) {
    ++counts[random.below(7)];
  }

  for (const int count : counts) {
    EXPECT_NEAR(count, 10000, 450);  // 4.9 standard deviations
  }
}

TEST(Seal, OpensWithTheSameKeyAndBindingOnly) {
  auto random = test_random();
  const std::string box = seal(kFirst, "secret", "place", random);

  EXPECT_EQ(box.size(), 6 + kSealBytes);
  EXPECT_EQ(open(kFirst, box, "place"), "secret");
  EXPECT_NE(box, seal(kFirst, "secret", "place", random));
  for (size_t i = 0; i < box.size(); ++i) {
    std::string damaged = box;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    test::expect_error(
        core::ErrorKind::Permission, {"does not open"}, [&] { open(kFirst, damaged, "place"); });
  }
  test::expect_error(
      core::ErrorKind::Permission, {"does not open"}, [&] { open(kFirst, box, "else"); });
  test::expect_error(
      core::ErrorKind::Permission, {"does not open"}, [&] { open(kSecond, box, "place"); });
  test::expect_error(core::ErrorKind::Permission, {"too short"}, [&] {
    open(kFirst, box.substr(0, kSealBytes - 1), "place");
  });
}

}  // namespace
}  // namespace kamerton::privacy
