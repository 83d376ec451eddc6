// SPDX-License-Identifier: Apache-2.0
// Behaviour that needs no oracle: long lines, threads, damaged files, streams.
#include "kamerton/text/tokenizer.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "kamerton/core/error.h"

#include "fixture_files.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

/// A byte-level BPE over the letters a, b and the blank, with a few merges.
std::string tiny_json(const std::string& more_added = "") {
  return R"({"added_tokens":[{"id":0,"content":"<s>","special":true,"normalized":false})" +
         more_added +
         R"(],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
         R"("post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"<s>":0,"a":1,"b":2,)"
         R"("Ġ":3,"ab":4,"abab":5,"Ġab":6},"merges":["a b",["ab","ab"],"Ġ ab"]}})";
}

TEST(Tokenizer, MergesByRankFromTheLeft) {
  const auto tokenizer = Tokenizer::from_json(tiny_json(), "tiny");

  EXPECT_EQ(tokenizer.encode("ababab abab<s>b", false), (std::vector<int32_t>{5, 4, 3, 5, 0, 2}));
  EXPECT_EQ(tokenizer.vocab_size(), 7);
  EXPECT_EQ(tokenizer.token_to_id("abab"), 5);
  EXPECT_EQ(tokenizer.token_to_id("zz"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(5));
}

TEST(Tokenizer, ReadsInvalidBytesAsReplacementsAndKeepsOffsetsInTheGivenText) {
  const auto tokenizer = Tokenizer::from_json(tiny_json(), "tiny");
  const std::string text =
      "a\xFF\xE2\x82"
      "b";

  const Encoding encoding = tokenizer.encode_with_offsets(text, false);

  EXPECT_EQ(encoding.ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(encoding.offsets.back(), (std::pair<int64_t, int64_t>(4, 5)));
}

TEST(Tokenizer, ComposesHangulAsUnicodeDoes) {
  const auto tokenizer = Tokenizer::from_json(
      R"({"normalizer":{"type":"NFC"},"model":{"type":"BPE","vocab":{"\uac00":0,"\u11a7":1,"\uac01":2},)"
      R"("merges":[]}})",
      "hangul");

  // U+11A7 is where trailing jamo are counted from and composes with nothing; U+11A8 does.
  EXPECT_EQ(tokenizer.encode("\uac00\u11a7", false), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(tokenizer.encode("\u1100\u1161\u11a8", false), (std::vector<int32_t>{2}));
}

TEST(Tokenizer, TrimsOffsetsByWholeCharacters) {
  const auto tokenizer = Tokenizer::from_json(
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true},"post_processor":{"type":"ByteLevel",)"
      R"("add_prefix_space":true,"trim_offsets":true},"model":{"type":"BPE","vocab":{"Ġ":0,"Ã":1,"©":2},)"
      R"("merges":[]}})",
      "prefix");

  const Encoding encoding = tokenizer.encode_with_offsets("\u00e9", false);

  EXPECT_EQ(encoding.ids, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(encoding.offsets, (std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {0, 2}, {0, 2}}));
}

TEST(Tokenizer, EncodesALongLineWithoutBlanksInAboutLinearTime) {
  const auto tokenizer = Tokenizer::from_json(tiny_json(), "tiny");
  const auto seconds = [&](size_t bytes) {
    std::string line;
    for (size_t i = 0; i < bytes; ++i) {
      line.push_back((i * 2654435761u >> 7) % 3 == 0 ? 'a' : 'b');
    }
    const auto begin = std::chrono::steady_clock::now();
    const auto ids = tokenizer.encode(line, false);
    EXPECT_EQ(tokenizer.decode(ids, false), line);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };

  const double small = seconds(500'000);
  const double large = seconds(4'000'000);

  EXPECT_LT(large, 8 * 4 * small + 0.5) << small << " s for 0.5 MB, " << large << " s for 4 MB";
}

TEST(Tokenizer, GivesEveryThreadTheSameIds) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer =
      Tokenizer::from_file(shared_dir() / "fixtures/tokenizers/llama3_style/tokenizer.json");
  const auto strings =
      load_json(shared_dir() / "fixtures/tokenizers/strings.json").get<std::vector<std::string>>();
  std::string all;
  for (const std::string& s : strings) {
    all += s + "\n";
  }
  const auto expected = tokenizer.encode(all, true);
  std::vector<std::vector<int32_t>> got(8);
  std::vector<std::thread> threads;
  for (auto& ids : got) {
    threads.emplace_back([&tokenizer, &all, &ids] { ids = tokenizer.encode(all, true); });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  for (const auto& ids : got) {
    EXPECT_EQ(ids, expected);
  }
}

TEST(StreamingDecoder, NeverShowsHalfACharacterWhateverTheIds) {
  SKIP_WITHOUT_SHARED();
  for (const char* name : {"gpt2_style", "sentencepiece_legacy", "unigram_byte_fallback"}) {
    const auto tokenizer =
        Tokenizer::from_file(shared_dir() / "fixtures/tokenizers" / name / "tokenizer.json");
    uint32_t state = 7;
    for (int round = 0; round < 200; ++round) {
      StreamingDecoder stream(tokenizer, true);
      std::vector<int32_t> ids;
      std::string shown;
      for (int i = 0; i < 40; ++i) {
        state = state * 1664525u + 1013904223u;
        const auto id =
            static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(tokenizer.vocab_size() + 3));
        ids.push_back(id);
        const std::string part = stream.push(id);
        EXPECT_EQ(valid_prefix(part), part.size());
        shown += part;
      }
      shown += stream.finish();
      if (std::string(name) == "gpt2_style") {
        EXPECT_EQ(shown, tokenizer.decode(ids, true));
      }
    }
  }
}

TEST(TokenizerFile, RefusesWhatItCannotKeepToExactly) {
  const auto refuses = [](const std::string& json, const std::string& part) {
    try {
      Tokenizer::from_json(json, "hostile.json");
      ADD_FAILURE() << "accepted: " << json.substr(0, 200);
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Data);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refuses("[]", "object");
  refuses("{}", "model");
  refuses(tiny_json(R"(,{"id":5,"content":"x"})"), "id of another token");
  refuses(tiny_json(R"(,{"id":9,"content":"x"},{"id":9,"content":"y"})"), "share the id 9");
  refuses(tiny_json(R"(,{"id":2000000000,"content":"x"})"), "far above");
  refuses(tiny_json(R"(,{"id":-1,"content":"x"})"), "out of range");
  refuses(R"({"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}})", "share the id 0");
  refuses(R"({"model":{"type":"BPE","vocab":{"a":99999999},"merges":[]}})", "in range");
  refuses(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})", "not in the vocabulary");
  refuses(R"({"model":{"type":"BPE","dropout":0.1,"vocab":{"a":0},"merges":[]}})", "dropout");
  refuses(R"({"normalizer":{"type":"Magic"},"model":{"type":"BPE","vocab":{},"merges":[]}})",
          "not supported");
  refuses(
      R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"},"model":{}})",
      "regular");
}

uint64_t next(uint64_t& state) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return state >> 33;
}

/// Changes a JSON text so that many results still parse: bytes flipped, pieces cut, copied and
/// swapped.
std::string mutated(std::string text, uint64_t& state) {
  const uint64_t edits = 1 + next(state) % 4;
  for (uint64_t i = 0; i < edits && !text.empty(); ++i) {
    const size_t at = next(state) % text.size();
    const size_t size = std::min<size_t>(1 + next(state) % 24, text.size() - at);
    switch (next(state) % 6) {
      case 0:
        text[at] = static_cast<char>(next(state));
        break;
      case 1:
        text.erase(at, size);
        break;
      case 2:
        text.insert(at, text.substr(next(state) % text.size(), size));
        break;
      case 3:
        text[at] = "{}[]\",:0123456789truefalsenull-"[next(state) % 31];
        break;
      case 4:
        text.insert(at, std::to_string(static_cast<int64_t>(next(state) * next(state))));
        break;
      default:
        text.replace(at, size, size % 2 ? "true" : "null");
    }
  }
  return text;
}

TEST(TokenizerFile, SurvivesMutationsOfTheFile) {
  const std::string bases[] = {
      tiny_json(),
      R"({"added_tokens":[{"id":3,"content":"<p>","lstrip":true,"rstrip":true,"single_word":true}],"normalizer":{"type":)"
      R"("Sequence","normalizers":[{"type":"NFKC"},{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "},)"
      R"({"type":"Strip","strip_left":true,"strip_right":true}]},"pre_tokenizer":{"type":"Metaspace","prepend_scheme":)"
      R"("first","split":true},"decoder":{"type":"Metaspace"},"post_processor":{"type":"TemplateProcessing","single":)"
      R"([{"SpecialToken":{"id":"</s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"</s>":{"id":"</s>","ids":[1]}}},)"
      R"("model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0],["</s>",0],["▁",-2.5]]}})",
      R"({"normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"BertPreTokenizer"},"decoder":{"type":)"
      R"("WordPiece","prefix":"##"},"model":{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0,"a":1,"##b":2}}})"};
  uint64_t state = 11;
  int accepted = 0;
  for (int round = 0; round < 30000; ++round) {
    const std::string json = mutated(bases[round % 3], state);
    try {
      const auto tokenizer = Tokenizer::from_json(json, "mutated");
      const auto ids = tokenizer.encode_with_offsets(" ab <p> \u00e9\U0001F600 abab  ", true).ids;
      const std::string text = tokenizer.decode(ids, false);
      EXPECT_EQ(valid_prefix(text), text.size());
      ++accepted;
    } catch (const core::Error&) {
    }
  }
  EXPECT_GT(accepted, 500);
}

/// The ends, in bytes, of the words into which a pre-tokenizer cuts a text; words are unknown
/// to the model.
std::vector<int64_t> cuts(const std::string& pre_tokenizer, const std::string& text) {
  const auto tokenizer = Tokenizer::from_json(
      R"({"added_tokens":[],"normalizer":null,"post_processor":null,"decoder":null,"pre_tokenizer":)" +
          pre_tokenizer + R"(,"model":{"type":"WordPiece","vocab":{"?":0},"unk_token":"?"}})",
      "cuts");
  std::vector<int64_t> ends;
  for (const auto& [begin, end] : tokenizer.encode_with_offsets(text, false).offsets) {
    ends.push_back(end);
  }
  return ends;
}

TEST(Tokenizer, ExpressionsKnowTheCharactersThatOnigurumaKnows) {
  const auto split = [](const std::string& pattern) {
    return R"({"type":"Split","behavior":"Isolated","invert":false,"pattern":{"Regex":")" +
           pattern + "\"}}";
  };
  // A fraction is part of a word, a circled digit is not.
  EXPECT_EQ(cuts(split("\\\\w+"), "+\u00bd5+"), (std::vector<int64_t>{1, 4, 5}));
  EXPECT_EQ(cuts(split("\\\\w+"), "+\u24605+"), (std::vector<int64_t>{4, 5, 6}));
  // Inside a class it is not.
  EXPECT_EQ(cuts(split("[^\\\\w]"), "a\u00bdb"), (std::vector<int64_t>{1, 3, 4}));
  // An ideograph of Unicode 15.
  EXPECT_EQ(cuts(split("\\\\p{Han}"), "a\U00031cb7b"), (std::vector<int64_t>{1, 5, 6}));
}

TEST(Tokenizer, DigitsAreThoseOfUnicode17) {
  EXPECT_EQ(cuts(R"({"type":"Digits","individual_digits":true})", "a\U00011de5b"),
            (std::vector<int64_t>{1, 5, 6}));
}

}  // namespace
}  // namespace kamerton::text
