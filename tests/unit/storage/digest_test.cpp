// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/digest.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

TEST(Digest, MatchesPublishedVectors) {
  EXPECT_EQ(to_hex(digest_of("")),
            "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  EXPECT_EQ(to_hex(digest_of("abc")),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  EXPECT_EQ(to_hex(digest_of("abc", DigestKind::Sha256)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(tagged(digest_of("abc", DigestKind::Sha256), DigestKind::Sha256).substr(0, 11),
            "sha256:ba78");
}

TEST(Digest, OfAFileEqualsThatOfItsBytesInPieces) {
  const test::TemporaryFolder folder;
  std::string text(3'000'001, '\0');
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * 131 % 251);
  }
  test::write_text(folder / "file", text);

  for (const auto kind : {DigestKind::Blake2b, DigestKind::Sha256}) {
    Hasher hasher(kind);
    hasher.update(text.substr(0, 77));
    hasher.update(text.substr(77));
    const auto digest = hasher.finish();
    EXPECT_EQ(digest, digest_of(text, kind));
    EXPECT_EQ(digest, digest_of_file(folder / "file", kind));
  }
}

TEST(Digest, OfATreeDoesNotDependOnThreadsAndSeesEveryByte) {
  const test::TemporaryFolder folder;
  std::string text(2 * kTreePiece + 5, 'x');
  test::write_text(folder / "file", text);
  const auto digest = tree_digest_of_file(folder / "file", 1);

  EXPECT_EQ(digest, tree_digest_of_file(folder / "file", 3));
  for (const size_t at : {size_t{0}, static_cast<size_t>(kTreePiece), text.size() - 1}) {
    auto changed = text;
    changed[at] = 'y';
    test::write_text(folder / "file", changed);
    EXPECT_NE(digest, tree_digest_of_file(folder / "file", 2)) << at;
  }
  test::write_text(folder / "file", text + "x");
  EXPECT_NE(digest, tree_digest_of_file(folder / "file", 2));
}

TEST(Digest, OfATreeIsWhatTheFormatSays) {
  // BLAKE2b-256(u64 5 | Poly1305(key, "hello")) computed with Python's hashlib and Poly1305 written
  // out.
  const test::TemporaryFolder folder;
  test::write_text(folder / "file", "hello");
  EXPECT_EQ(to_hex(tree_digest_of_file(folder / "file", 1)),
            "19e39f1194d72c447425186d4e05cccf846c3ea57363079b5bfc77715e6b9572");
}

TEST(Digest, OfAMissingFileNamesIt) {
  test::expect_error(
      core::ErrorKind::Data, {"no file", "nowhere"}, [] { digest_of_file("nowhere"); });
  test::expect_error(core::ErrorKind::Data, {"folder"}, [] { tree_digest_of_file("/", 2); });
}

}  // namespace
}  // namespace kamerton::storage
