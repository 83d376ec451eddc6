// SPDX-License-Identifier: Apache-2.0
// Damaged files are refused or read within their bounds; nothing else may happen (run under ASan
// too).
#include <gtest/gtest.h>

#include "kamerton/storage/gguf.h"

#include "gguf_bytes.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"

namespace kamerton::storage {
namespace {

constexpr uint64_t kSeed = 20262;
const uint64_t kCases = test::case_count(60'000);

GgufFile parse(const std::string& bytes) {
  return GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "test.gguf");
}

TEST(GgufFuzz, DamagedFilesAreRefusedOrReadWithinBounds) {
  const auto seed = good_gguf();
  const test::ByteMutator mutate(kSeed,
                                 {"GGUF",
                                  std::string("\x08\0\0\0", 4),
                                  std::string("\x09\0\0\0", 4),
                                  std::string("\x20\0\0\0\0\0\0\0", 8),
                                  "general.alignment"});
  uint64_t accepted = 0;
  std::vector<float> row;
  for (uint64_t i = 0; i < kCases; ++i) {
    const auto bytes = mutate(seed, i);
    try {
      const auto file = parse(bytes);
      for (const auto& tensor : file.tensors()) {
        if (tensor.num_rows() > 0) {
          row.resize(static_cast<size_t>(tensor.row_length()));
          file.read_rows(tensor, tensor.num_rows() - 1, 1, row);
        }
      }
      ++accepted;
    } catch (const core::Error& error) {
      ASSERT_EQ(error.kind(), core::ErrorKind::Data) << i << ": " << error.what();
    }
  }
  EXPECT_GT(accepted, kCases / 100);
  EXPECT_LT(accepted, kCases);
}

TEST(GgufFuzz, EveryTruncationIsRefused) {
  const auto whole = good_gguf();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse(whole.substr(0, size)), core::Error) << size;
  }
}

}  // namespace
}  // namespace kamerton::storage
