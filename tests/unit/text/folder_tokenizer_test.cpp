// SPDX-License-Identifier: Apache-2.0
// Tokenizers of folders without tokenizer.json, and of vocabulary files alone.
#include "folder_tokenizer.h"

#include <gtest/gtest.h>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "base64.h"
#include "fixture_files.h"
#include "sentencepiece.h"
#include "support/temporary_folder.h"

namespace kamerton::text {
namespace {

using Ids = std::vector<int32_t>;

/// All bytes, then some words.
std::string rank_file(const std::vector<std::string>& words) {
  std::string text;
  int rank = 0;
  for (; rank < 256; ++rank) {
    text +=
        encode_base64(std::string(1, static_cast<char>(rank))) + " " + std::to_string(rank) + "\n";
  }
  for (const std::string& word : words) {
    text += encode_base64(word) + " " + std::to_string(rank++) + "\n";
  }
  return text;
}

void expect_refused(const std::filesystem::path& path, core::ErrorKind kind, const char* part) {
  try {
    std::filesystem::is_directory(path) ? Tokenizer::from_folder(path) : Tokenizer::from_file(path);
    ADD_FAILURE() << path;
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Base64, ReadsWhatItWrites) {
  for (const std::string bytes : {"", "a", "ab", "abc", "\xFF\xFE\x00z"}) {
    EXPECT_EQ(decode_base64(encode_base64(bytes)), bytes);
  }
  EXPECT_EQ(encode_base64("ab"), "YWI=");
  EXPECT_EQ(decode_base64("YW I="), std::nullopt);
  EXPECT_EQ(decode_base64("YWIjZ"), std::nullopt);
}

TEST(Tiktoken, MergesWhatMakesTheTokenOfLowestRank) {
  const test::TemporaryFolder folder;
  // "bc" comes before "ab", so "abc" is a, bc; and abc, a token, stands for itself as a whole word.
  test::write_text(folder / "cl100k_base.tiktoken", rank_file({"bc", "ab", "abc", " xx"}));

  const auto tokenizer = Tokenizer::from_file(folder / "cl100k_base.tiktoken");

  EXPECT_EQ(tokenizer.encode("abc", false), (Ids{258}));
  EXPECT_EQ(tokenizer.encode("abcd", false), (Ids{258, 'd'}));
  EXPECT_EQ(tokenizer.encode("dabcb", false), (Ids{'d', 258, 'b'}));
  EXPECT_EQ(tokenizer.encode("ab xx", false), (Ids{257, 259}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("zażółć\n \n", false), false), "zażółć\n \n");
}

TEST(Tiktoken, AFolderWithRanksIsLlama3s) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "tokenizer.model", rank_file({"hi"}));

  const TokenizerBundle bundle = load_bundle(folder.path());

  EXPECT_EQ(bundle.tokenizer.encode("hi<|eot_id|>", true), (Ids{257, 256, 257 + 9}));
  EXPECT_EQ(bundle.tokenizer.vocab_size(), 257 + 256);
  EXPECT_TRUE(bundle.tokenizer.is_special(257));
  ASSERT_EQ(bundle.files.size(), 1u);
  EXPECT_EQ(bundle.files[0].filename(), "tokenizer.model");
}

TEST(Tiktoken, NamesTheLineOfADamagedFile) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a.tiktoken", "YQ== 0\nYg== one\n");
  test::write_text(folder / "b.tiktoken", "YQ== 0\nYQ== 1\n");
  test::write_text(folder / "c.tiktoken", "YQ== 99999999\n");
  test::write_text(folder / "d.model", "neither\n");

  expect_refused(folder / "a.tiktoken", core::ErrorKind::Data, "line 2");
  expect_refused(folder / "b.tiktoken", core::ErrorKind::Data, "repeats");
  expect_refused(folder / "c.tiktoken", core::ErrorKind::Data, "line 1");
  expect_refused(folder / "d.model", core::ErrorKind::Data, "neither");
}

TEST(VocabAndMerges, ReadTheSpecialTokensOfTheFilesBesideThem) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "vocab.json", R"({"a":0,"b":1,"ab":2,"Ġ":3,"<e>":4})");
  test::write_text(folder / "merges.txt", "#version: 0.2\na b\n\n");
  test::write_text(folder / "added_tokens.json", R"({"<x>":5,"<y>":6})");
  test::write_text(folder / "special_tokens_map.json",
                   R"({"eos_token":"<e>","additional_special_tokens":["<y>","<z>"]})");
  test::write_text(folder / "tokenizer_config.json",
                   R"({"tokenizer_class":"GPT2TokenizerFast","add_eos_token":true})");

  const TokenizerBundle bundle = load_bundle(folder.path());

  EXPECT_EQ(bundle.tokenizer.encode("ab<x><y> <z>b", true), (Ids{2, 5, 6, 3, 7, 1, 4}));
  EXPECT_FALSE(bundle.tokenizer.is_special(5));
  EXPECT_TRUE(bundle.tokenizer.is_special(6) && bundle.tokenizer.is_special(7));
  EXPECT_EQ(bundle.eos, 4);
  EXPECT_EQ(bundle.files.size(), 5u);
}

TEST(VocabAndMerges, RefuseClassesWhosePreTokenizerIsUnknown) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "vocab.json", R"({"a":0})");
  test::write_text(folder / "merges.txt", "a b c\n");
  expect_refused(folder.path(), core::ErrorKind::Data, "line 1");
  test::write_text(folder / "tokenizer_config.json", R"({"tokenizer_class":"OtherTokenizer"})");
  expect_refused(folder.path(), core::ErrorKind::Data, "OtherTokenizer");
}

TEST(FolderTokenizer, SaysWhatItLookedFor) {
  const test::TemporaryFolder folder;
  expect_refused(folder.path(), core::ErrorKind::Io, "there is no tokenizer");
}

TEST(SentencePieceModelFile, RefusesDamage) {
  SKIP_WITHOUT_SHARED();
  const std::string bytes = slurp(shared_dir() / "fixtures/tokenizers/spm_bpe/tokenizer.model");
  EXPECT_EQ(SentencePieceModel::parse(bytes, "m").pieces.size(), 800u);
  EXPECT_TRUE(SentencePieceModel::looks_like(bytes));
  EXPECT_THROW(SentencePieceModel::parse(bytes.substr(0, bytes.size() - 3), "m"), core::Error);
  EXPECT_THROW(SentencePieceModel::parse(bytes + bytes, "m"), core::Error);
  EXPECT_THROW(SentencePieceModel::parse("", "m"), core::Error);
}

TEST(SentencePieceFolder, FollowsItsTokenizerClass) {
  SKIP_WITHOUT_SHARED();
  const test::TemporaryFolder folder;
  const auto source = shared_dir() / "fixtures/tokenizers/spm_bpe/tokenizer.model";
  std::filesystem::copy_file(source, folder / "tokenizer.model");
  test::write_text(
      folder / "tokenizer_config.json",
      R"({"tokenizer_class":"LlamaTokenizer","bos_token":"<s>","add_bos_token":true})");

  const auto llama = Tokenizer::from_folder(folder.path());
  const auto library = Tokenizer::from_file(source);

  EXPECT_EQ(llama.encode("Hello world", true)[0], 1);
  EXPECT_EQ(llama.encode("</s>", false), Ids{2});       // a token of its own
  EXPECT_GT(library.encode("</s>", false).size(), 2u);  // text like any other
  EXPECT_EQ(llama.encode("Hello world", false), library.encode("Hello world", false));
}

TEST(Tokenizer, EncodesABatchAsOneByOne) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "qwen.tiktoken", rank_file({"ab"}));
  const auto tokenizer = Tokenizer::from_file(folder / "qwen.tiktoken");
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) {
    texts.push_back("ab" + std::to_string(i) + "<|im_end|>");
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());

  const auto batch = tokenizer.encode_batch(views, true, 4);

  ASSERT_EQ(batch.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(batch[i], tokenizer.encode(texts[i], true));
  }
  EXPECT_TRUE(tokenizer.encode_batch({}, true, 4).empty());
}

}  // namespace
}  // namespace kamerton::text
