// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/bundle.h"

#include <fstream>

#include <gtest/gtest.h>

#include "kamerton/core/error.h"
#include "kamerton/text/gguf_tokenizer.h"

#include "fixture_files.h"

namespace kamerton::text {
namespace {

class Folder {
 public:
  explicit Folder(const std::string& name)
      : path(std::filesystem::temp_directory_path() / ("kamerton_" + name)) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name) << text;
  }
  std::filesystem::path path;
};

TEST(Bundle, ReadsAModelFolder) {
  SKIP_WITHOUT_SHARED();
  const TokenizerBundle bundle = load_bundle(shared_dir() / "fixtures/sft/tokenizer_chatml");

  EXPECT_EQ(bundle.bos_text, "<s>");
  EXPECT_EQ(bundle.eos_text, "</s>");
  EXPECT_EQ(bundle.bos, 1);
  EXPECT_EQ(bundle.eos, 2);
  EXPECT_EQ(bundle.pad, 2);
  EXPECT_EQ(bundle.stop_ids, std::vector<int32_t>{2});
  ASSERT_TRUE(bundle.chat_template);
  EXPECT_TRUE(bundle.chat_template->has_generation_marks());
  EXPECT_EQ(bundle.tokenizer.token_to_id("<|im_end|>"), 513);
}

TEST(Bundle, PrefersTheTemplateFileAndTheGenerationConfigsStopIds) {
  const Folder folder("bundle");
  folder.write("tokenizer.json",
               R"({"model":{"type":"BPE","vocab":{"a":0,"<e>":1,"<t>":2},"merges":[]}})");
  folder.write("tokenizer_config.json", R"({"eos_token":{"content":"<e>"},"chat_template":"old"})");
  folder.write("generation_config.json", R"({"eos_token_id":[1,2,77]})");
  folder.write("chat_template.jinja", "new {{ eos_token }}");

  const TokenizerBundle bundle = load_bundle(folder.path);

  EXPECT_EQ(bundle.stop_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(bundle.eos, 1);
  EXPECT_EQ(bundle.chat_template->render(core::parse_json(R"([{"role":"user"}])", "t"), false).text,
            "new <e>");
  EXPECT_THROW(load_bundle(folder.path / "nothing"), core::Error);
}

core::Json gguf_metadata() {
  return core::parse_json(R"({"tokenizer.ggml.model":"gpt2","tokenizer.ggml.pre":"smollm",
    "tokenizer.ggml.tokens":["<|im_start|>","<|im_end|>","1","2","a","b","Ġ","ab","Ġab"],
    "tokenizer.ggml.token_type":[3,3,1,1,1,1,1,1,1],"tokenizer.ggml.merges":["a b","Ġ ab"],
    "tokenizer.ggml.bos_token_id":0,"tokenizer.ggml.eos_token_id":1,"tokenizer.ggml.padding_token_id":1,
    "tokenizer.ggml.add_bos_token":true,"tokenizer.chat_template":"{{ messages[0].content }}"})",
                          "gguf");
}

TEST(GgufTokenizer, BecomesTheFilesOfAModelFolder) {
  const GgufTokenizerFiles files = gguf_tokenizer_files(gguf_metadata(), "m.gguf");
  const Folder folder("gguf");
  folder.write("tokenizer.json", files.tokenizer_json);
  folder.write("tokenizer_config.json", files.tokenizer_config_json);
  folder.write("special_tokens_map.json", files.special_tokens_map_json);

  const TokenizerBundle bundle = load_bundle(folder.path);

  EXPECT_EQ(bundle.tokenizer.encode("12ab ab<|im_end|>", true),
            (std::vector<int32_t>{0, 2, 3, 7, 8, 1}));
  EXPECT_EQ(bundle.bos, 0);
  EXPECT_EQ(bundle.eos, 1);
  EXPECT_EQ(bundle.pad, 1);
  EXPECT_TRUE(bundle.tokenizer.is_special(1));
  EXPECT_EQ(bundle.chat_template->render(core::parse_json(R"([{"content":"x"}])", "t"), false).text,
            "x");
}

TEST(GgufTokenizer, BuildsMergesOfALlamaVocabularyFromItsScores) {
  const core::Json metadata = core::parse_json(R"({"tokenizer.ggml.model":"llama",
    "tokenizer.ggml.tokens":["<unk>","<s>","</s>","<0x0A>","▁","a","b","ab","▁ab"],
    "tokenizer.ggml.scores":[0,0,0,0,-4,-5,-6,-2,-1],"tokenizer.ggml.token_type":[2,3,3,6,1,1,1,1,1],
    "tokenizer.ggml.bos_token_id":1,"tokenizer.ggml.eos_token_id":2,"tokenizer.ggml.unknown_token_id":0})",
                                               "gguf");
  const auto tokenizer =
      Tokenizer::from_json(gguf_tokenizer_files(metadata, "m.gguf").tokenizer_json, "llama");

  EXPECT_EQ(tokenizer.encode("ab aab\n", true), (std::vector<int32_t>{1, 8, 4, 5, 7, 3}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab aab\n", false), true), "ab aab\n");
}

TEST(GgufTokenizer, RefusesWhatItDoesNotKnow) {
  core::Json metadata = gguf_metadata();
  metadata["tokenizer.ggml.pre"] = "no-such-pre";
  EXPECT_THROW(gguf_tokenizer_files(metadata, "m.gguf"), core::Error);
  metadata = gguf_metadata();
  metadata["tokenizer.ggml.bos_token_id"] = 99;
  EXPECT_THROW(gguf_tokenizer_files(metadata, "m.gguf"), core::Error);
  metadata["tokenizer.ggml.model"] = "bert";
  EXPECT_THROW(gguf_tokenizer_files(metadata, "m.gguf"), core::Error);
  EXPECT_THROW(gguf_tokenizer_files(core::Json::object(), "m.gguf"), core::Error);
}

}  // namespace
}  // namespace kamerton::text
