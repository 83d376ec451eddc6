// SPDX-License-Identifier: Apache-2.0
// Ids, offsets and decoded text equal to the reference library's, on difficult strings.
#include <gtest/gtest.h>

#include "kamerton/text/tokenizer.h"

#include "fixture_files.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

std::filesystem::path tokenizer_path(const std::string& name, const core::Json& expected) {
  return expected.contains("tokenizer")
             ? shared_dir() / expected["tokenizer"].get<std::string>()
             : shared_dir() / "fixtures/tokenizers" / name / "tokenizer.json";
}

/// Byte positions to character positions, as the fixtures count.
std::vector<int64_t> char_positions(const std::string& text) {
  std::vector<int64_t> at(text.size() + 1);
  int64_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    at[i] = count;
    if (i + 1 == text.size() || (static_cast<unsigned char>(text[i + 1]) & 0xC0) != 0x80) {
      ++count;
    }
  }
  at[text.size()] = count;
  return at;
}

std::vector<int64_t> flat_offsets(const Encoding& encoding, const std::string& text) {
  const auto at = char_positions(text);
  std::vector<int64_t> flat;
  for (const auto& [begin, end] : encoding.offsets) {
    flat.push_back(at[static_cast<size_t>(begin)]);
    flat.push_back(at[static_cast<size_t>(end)]);
  }
  return flat;
}

class TokenizerFixture : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_SHARED();
    const auto dir = shared_dir() / "fixtures/tokenizers";
    strings_ = load_json(dir / "strings.json").get<std::vector<std::string>>();
    expected_ = load_json(dir / GetParam() / "expected.json");
    tokenizer_ = Tokenizer::from_file(tokenizer_path(GetParam(), expected_));
    ASSERT_EQ(strings_.size(), expected_["results"].size());
  }
  std::vector<std::string> strings_;
  core::Json expected_;
  std::optional<Tokenizer> tokenizer_;
};

TEST_P(TokenizerFixture, GivesTheReferenceIdsWithAndWithoutOffsets) {
  for (size_t i = 0; i < strings_.size(); ++i) {
    const auto ids = expected_["results"][i]["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->encode(strings_[i], false), ids) << i << ": " << strings_[i];
    EXPECT_EQ(tokenizer_->encode_with_offsets(strings_[i], false).ids, ids)
        << i << ": " << strings_[i];
    EXPECT_EQ(tokenizer_->encode(strings_[i], false), ids)
        << "second time " << i << ": " << strings_[i];
  }
}

TEST_P(TokenizerFixture, GivesTheReferenceOffsets) {
  for (size_t i = 0; i < strings_.size(); ++i) {
    const auto offsets = expected_["results"][i]["offsets"].get<std::vector<int64_t>>();
    EXPECT_EQ(flat_offsets(tokenizer_->encode_with_offsets(strings_[i], false), strings_[i]),
              offsets)
        << i << ": " << strings_[i];
  }
}

TEST_P(TokenizerFixture, PutsTheSpecialTokensAround) {
  for (size_t i = 0; i < strings_.size(); ++i) {
    const core::Json& result = expected_["results"][i];
    auto ids = result["ids"].get<std::vector<int32_t>>();
    size_t before = 0;
    if (result.contains("special")) {
      const auto front = result["special"][0].get<std::vector<int32_t>>();
      const auto back = result["special"][1].get<std::vector<int32_t>>();
      before = front.size();
      ids.insert(ids.begin(), front.begin(), front.end());
      ids.insert(ids.end(), back.begin(), back.end());
    }
    const Encoding encoding = tokenizer_->encode_with_offsets(strings_[i], true);
    EXPECT_EQ(encoding.ids, ids) << strings_[i];
    EXPECT_EQ(encoding.offsets.size(), ids.size());
    EXPECT_EQ(tokenizer_->encode(strings_[i], true), ids);
    if (before > 0) {
      EXPECT_EQ(encoding.offsets[0], (std::pair<int64_t, int64_t>(0, 0)));
    }
  }
}

TEST_P(TokenizerFixture, DecodesAsTheReference) {
  for (size_t i = 0; i < strings_.size(); ++i) {
    const core::Json& result = expected_["results"][i];
    const auto ids = result["ids"].get<std::vector<int32_t>>();
    const auto decoded = result["decoded"].get<std::string>();
    EXPECT_EQ(tokenizer_->decode(ids, false), decoded) << i << ": " << strings_[i];
    const auto skipped = result.value("decoded_skip_special", decoded);
    EXPECT_EQ(tokenizer_->decode(ids, true), skipped) << i << ": " << strings_[i];
  }
}

TEST_P(TokenizerFixture, StreamsWhatThePrefixesDecodeTo) {
  size_t compared = 0;
  for (size_t i = 0; i < strings_.size(); ++i) {
    const core::Json& result = expected_["results"][i];
    if (!result.contains("prefix_decoded")) {
      continue;
    }
    StreamingDecoder stream(*tokenizer_, false);
    std::string shown;
    size_t k = 0;
    bool exact = true;
    for (const int32_t id : result["ids"].get<std::vector<int32_t>>()) {
      const auto prefix = result["prefix_decoded"][k++].get<std::string>();
      shown += stream.push(id);
      EXPECT_EQ(valid_prefix(shown), shown.size());
      exact = exact && prefix.starts_with(shown);
      if (!prefix.ends_with("\xEF\xBF\xBD") && exact) {
        EXPECT_EQ(shown, prefix) << strings_[i];
        ++compared;
      }
    }
    shown += stream.finish();
    EXPECT_EQ(valid_prefix(shown), shown.size());
    EXPECT_EQ(shown, result["decoded"].get<std::string>()) << strings_[i];
  }
  EXPECT_GT(compared, 5u);
}

class SentencePieceFixture : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceFixture, EncodesAndDecodesAsTheLibrary) {
  SKIP_WITHOUT_SHARED();
  const auto dir = shared_dir() / "fixtures/tokenizers";
  const auto strings = load_json(dir / "strings.json").get<std::vector<std::string>>();
  const core::Json results = load_json(dir / GetParam() / "expected.json")["results"];
  const auto tokenizer = Tokenizer::from_file(dir / GetParam() / "tokenizer.model");
  ASSERT_EQ(strings.size(), results.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto ids = results[i]["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(strings[i], false), ids) << i << ": " << strings[i];
    const Encoding encoding = tokenizer.encode_with_offsets(strings[i], false);
    EXPECT_EQ(encoding.ids, ids) << i << ": " << strings[i];
    EXPECT_EQ(tokenizer.decode(ids, false), results[i]["decoded"].get<std::string>())
        << i << ": " << strings[i];
    int64_t last = 0;
    for (const auto& [begin, end] : encoding.offsets) {
      EXPECT_LE(last, end);
      EXPECT_LE(begin, end);
      EXPECT_LE(end, static_cast<int64_t>(strings[i].size()));
      last = end;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(BothKinds,
                         SentencePieceFixture,
                         testing::Values("spm_bpe", "spm_unigram_nfkc"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(AllKinds,
                         TokenizerFixture,
                         testing::Values("gpt2_style",
                                         "gpt2_prefix_space",
                                         "llama3_style",
                                         "qwen2_style",
                                         "o200k_style",
                                         "sentencepiece_legacy",
                                         "sentencepiece_metaspace",
                                         "gemma_style",
                                         "added_tokens",
                                         "stories260K",
                                         "stories260K_chatml",
                                         "wordpiece",
                                         "unigram",
                                         "unigram_byte_fallback"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace kamerton::text
