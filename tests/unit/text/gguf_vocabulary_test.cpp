// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/gguf_vocabulary.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/storage/gguf.h"
#include "kamerton/text/gguf_tokenizer.h"
#include "kamerton/text/tokenizer.h"

#include "fixture_files.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::text {
namespace {

/// The metadata as a reader sees them.
core::Json read_back(const storage::GgufMetadata& metadata) {
  const test::TemporaryFolder folder;
  storage::GgufWriter writer(folder.path() / "v.gguf", metadata, {});
  writer.finish();
  return storage::GgufFile::open(folder.path() / "v.gguf").metadata();
}

const std::vector<std::string> kTexts = {"Once upon a time, there was a cat.",
                                         "  two  spaces\n\nand lines\t1234567",
                                         "zażółć gęślą jaźń, 日本語, 🙂🙃",
                                         "don't I'LL we've",
                                         "<s>markers</s> inside <|im_start|>"};

/// A tokenizer that went to GGUF and came back gives the same ids.
void expect_round_trip(const std::string& name, const std::filesystem::path& dir, int64_t rows) {
  const auto metadata = read_back(gguf_vocabulary(dir, rows));
  const GgufTokenizerFiles files = gguf_tokenizer_files(metadata, name);
  const Tokenizer before = Tokenizer::from_file(dir / "tokenizer.json");
  const Tokenizer after = Tokenizer::from_json(files.tokenizer_json, name);
  for (const std::string& text : kTexts) {
    EXPECT_EQ(before.encode(text, true), after.encode(text, true)) << name << ": " << text;
  }
}

TEST(GgufVocabulary, TokenizersComeBackWithTheSameIds) {
  SKIP_WITHOUT_SHARED();
  expect_round_trip("stories260K", shared_dir() / "models/stories260K", 512);
  for (const char* name : {"llama3_style", "qwen2_style", "gpt2_style", "o200k_style"}) {
    const auto dir = shared_dir() / "fixtures/tokenizers" / name;
    expect_round_trip(name, dir, Tokenizer::from_file(dir / "tokenizer.json").vocab_size() + 3);
  }
}

TEST(GgufVocabulary, SaysWhatLlamaCppNeeds) {
  SKIP_WITHOUT_SHARED();
  const auto metadata = read_back(gguf_vocabulary(shared_dir() / "models/stories260K", 514));

  EXPECT_EQ(metadata["tokenizer.ggml.model"], "llama");
  EXPECT_EQ(metadata["tokenizer.ggml.tokens"].size(), 514U);
  EXPECT_EQ(metadata["tokenizer.ggml.tokens"][513], "[PAD513]");
  const auto& types = metadata["tokenizer.ggml.token_type"];
  EXPECT_EQ(types[0], 2);
  EXPECT_EQ(types[1], 3);
  EXPECT_EQ(types[3], 6);
  EXPECT_EQ(types[511], 1);
  EXPECT_EQ(types[513], 5);
  EXPECT_EQ(metadata["tokenizer.ggml.bos_token_id"], 1);
  EXPECT_EQ(metadata["tokenizer.ggml.eos_token_id"], 2);
  EXPECT_EQ(metadata["tokenizer.ggml.add_bos_token"], true);
  EXPECT_EQ(metadata["tokenizer.ggml.add_eos_token"], false);
  EXPECT_EQ(metadata["tokenizer.ggml.add_space_prefix"], true);
}

TEST(GgufVocabulary, AFolderWithoutTokenizerHasNoVocabulary) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(read_back(gguf_vocabulary(folder.path(), 8)).dump(),
            R"({"tokenizer.ggml.model":"no_vocab"})");
}

void expect_refused(const std::string& json, const std::string& part, int64_t rows = 8) {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "tokenizer.json") << json;
  test::expect_error(core::ErrorKind::Data, {part}, [&] { gguf_vocabulary(folder.path(), rows); });
}

TEST(GgufVocabulary, RefusesWhatLlamaCppWouldReadDifferently) {
  expect_refused(R"({"model":{"type":"WordPiece","vocab":{}}})", "only BPE");
  expect_refused(
      R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true,"use_regex":true}})",
      "pre-tokenizer");
  expect_refused(R"({"model":{"type":"BPE","vocab":{"a":9},"merges":[]}})", "without a row");
  expect_refused(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})", "byte pieces");
  // "abc" can also be made of "a" and "bc", which these merges never do.
  expect_refused(
      R"({"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5},)"
      R"("merges":["a b","b c","ab c"]}})",
      "no scores");
}

}  // namespace
}  // namespace kamerton::text
