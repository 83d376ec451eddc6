// SPDX-License-Identifier: Apache-2.0
// Damaged and hostile files of every kind this module reads: a clear error or a working tokenizer,
// never a crash, a hang or memory out of proportion. KAMERTON_FUZZ_CASES sets the number of cases.
#include <chrono>
#include <cstdlib>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "kamerton/core/error.h"
#include "kamerton/core/random.h"
#include "kamerton/text/chat_template.h"
#include "kamerton/text/tokenizer.h"

#include "base64.h"
#include "sentencepiece.h"
#include "support/byte_mutator.h"
#include "tiktoken.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

uint64_t cases() {
  const char* wanted = std::getenv("KAMERTON_FUZZ_CASES");
  return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 3000;
}

int64_t peak_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

/// Runs the cases, each within a second, all within little memory; counts those that were accepted.
template <class Case>
uint64_t run_cases(Case one) {
  const int64_t before = peak_kilobytes();
  uint64_t accepted = 0;
  for (uint64_t number = 0; number < cases(); ++number) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      one(number);
      ++accepted;
    } catch (const core::Error&) {
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(time.count(), 20.0) << "case " << number;
  }
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(peak_kilobytes() - before, 200 * 1024);
#else
  (void)before;
#endif
  return accepted;
}

void use(const Tokenizer& tokenizer) {
  const std::string text = " ab <p> \u00e9\U0001F600 abab  12\xFF\n\u2581\u2581q";
  const Encoding encoding = tokenizer.encode_with_offsets(text, true);
  EXPECT_EQ(tokenizer.encode(text, true), encoding.ids);
  for (const auto& [begin, end] : encoding.offsets) {
    EXPECT_LE(end, static_cast<int64_t>(text.size()));
    EXPECT_GE(begin, 0);
  }
  const std::string decoded = tokenizer.decode(encoding.ids, false);
  EXPECT_EQ(valid_prefix(decoded), decoded.size());
}

/// Chooses among the parts of a format.
class Chooser {
 public:
  Chooser(const char* purpose, uint64_t number) : random_(77, purpose, number) {}
  uint64_t below(uint64_t bound) { return random_.below(counter_++, bound); }
  template <size_t N>
  std::string one_of(const char* const (&parts)[N]) {
    return parts[below(N)];
  }

 private:
  core::RandomStream random_;
  uint64_t counter_ = 0;
};

constexpr const char* kNormalizers[] = {
    "null",
    R"({"type":"NFC"})",
    R"({"type":"NFKD"})",
    R"({"type":"Lowercase"})",
    R"({"type":"BertNormalizer","strip_accents":null})",
    R"({"type":"Replace","pattern":{"Regex":" {2,}|a*?b"},"content":" "})",
    R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Strip"},{"type":"Nmt"}]})",
    R"({"type":"Precompiled","precompiled_charsmap":"BAAAAAAEAAB4AA=="})",
    R"({"type":"kamerton.SentencePiece","charsmap":"","add_dummy_prefix":true,"symbols":["ab"]})"};
constexpr const char* kPreTokenizers[] = {
    "null",
    R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":true})",
    R"({"type":"Metaspace","prepend_scheme":"first","split":true})",
    R"({"type":"Split","pattern":{"Regex":"(a|b)+?\\s"},"behavior":"MergedWithNext","invert":true})",
    R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"Whitespace"}]})",
    R"({"type":"BertPreTokenizer"})"};
constexpr const char* kModels[] = {
    R"({"type":"BPE","unk_token":"a","fuse_unk":true,"byte_fallback":true,"vocab":{"a":0,"b":1,"ab":2,"<0xC3>":3,"▁":4},"merges":["a b",["▁","a"]]})",
    R"({"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"abab":3,"Ġ":4},"merges":[],"kamerton_ranks":[0,1,2,3,-1]})",
    R"({"type":"BPE","unk_token":"b","continuing_subword_prefix":"##","end_of_word_suffix":"</w>","vocab":{"a":0,"b":1,"##b</w>":2},"merges":[]})",
    R"({"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0],["a",-1.5],["ab",-2],["▁",-3]]})",
    R"({"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["a",-1],["ab",-2e300]],"kamerton_types":[2,1,4]})",
    R"({"type":"WordPiece","unk_token":"a","vocab":{"a":0,"##b":1}})",
    R"({"type":"WordLevel","unk_token":"a","vocab":{"a":0,"ab":1}})"};
constexpr const char* kDecoders[] = {
    "null",
    R"({"type":"ByteLevel"})",
    R"({"type":"WordPiece","cleanup":true})",
    R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","start":1,"stop":1}]})",
    R"({"type":"kamerton.SentencePiece","hidden":["a"],"unknown":"b","unk_surface":"?"})"};
constexpr const char* kPosts[] = {
    "null",
    R"({"type":"ByteLevel","trim_offsets":true})",
    R"({"type":"RobertaProcessing","sep":["a",0],"cls":["b",1]})",
    R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"a"}},{"Sequence":{"id":"A"}}],"special_tokens":{"a":{"ids":[0]}}})"};

TEST(HostileFiles, TokenizerJson) {
  const test::ByteMutator mutate(5,
                                 {"\"",
                                  "{",
                                  "}",
                                  "[",
                                  "]",
                                  ",",
                                  ":",
                                  "null",
                                  "true",
                                  "-1",
                                  "1e400",
                                  "99999999999",
                                  "\\ud800",
                                  "\"type\":\"Sequence\"",
                                  "(?:",
                                  "\\\\p{L}",
                                  "{9999}",
                                  "\xE2\x96\x81",
                                  "\xFF"});
  const uint64_t accepted = run_cases([&](uint64_t number) {
    Chooser choose("test.tokenizer_json", number);
    const std::string json =
        R"({"added_tokens":[{"id":7,"content":"<p>","lstrip":true,"single_word":true}],"normalizer":)" +
        choose.one_of(kNormalizers) + R"(,"pre_tokenizer":)" + choose.one_of(kPreTokenizers) +
        R"(,"post_processor":)" + choose.one_of(kPosts) + R"(,"decoder":)" +
        choose.one_of(kDecoders) + R"(,"model":)" + choose.one_of(kModels) + "}";
    use(Tokenizer::from_json(choose.below(3) == 0 ? json : mutate(json, number), "hostile.json"));
  });
  EXPECT_GT(accepted, cases() / 20);
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    out.push_back(static_cast<char>(value | 0x80));
  }
  out.push_back(static_cast<char>(value));
}

void append_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  append_varint(out, field << 3 | 2);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_number(std::string& out, uint64_t field, uint64_t value) {
  append_varint(out, field << 3);
  append_varint(out, value);
}

std::string piece(std::string_view text, float score, uint64_t type) {
  std::string out;
  append_bytes(out, 1, text);
  append_varint(out, 2 << 3 | 5);
  out.append(reinterpret_cast<const char*>(&score), 4);
  append_number(out, 3, type);
  return out;
}

std::string sentencepiece_model(Chooser& choose) {
  constexpr const char* kTexts[] = {
      "a", "b", "ab", "abab", "\u2581", "\u2581a", "<p>", "<0x41>", "\u00e9", "q"};
  std::string model;
  append_bytes(model, 1, piece("<unk>", 0, 2));
  append_bytes(model, 1, piece("<s>", 0, 3));
  for (const char* text : kTexts) {
    const bool byte = std::string_view(text) == "<0x41>";
    const uint64_t type = byte ? 6 : choose.below(8) == 0 ? 4 : 1;
    append_bytes(model, 1, piece(text, -static_cast<float>(choose.below(6)), type));
  }
  std::string trainer;
  append_number(trainer, 3, 1 + choose.below(2));
  append_number(trainer, 35, choose.below(2));
  append_bytes(model, 2, trainer);
  std::string normalizer;
  for (const uint64_t field : {3, 4}) {
    append_number(normalizer, field, choose.below(2));
  }
  if (choose.below(2) == 0) {
    append_bytes(normalizer,
                 2,
                 std::string("\x08\0\0\0\0\x04\0\0\x78\0\0\x01"
                             "ab\0c\0",
                             17));
  }
  append_bytes(model, 3, normalizer);
  return model;
}

TEST(HostileFiles, SentencePieceModel) {
  const test::ByteMutator mutate(
      6,
      {"\x0A", "\x12", "\xFF\xFF\xFF\xFF\x0F", std::string(1, '\0'), "\x18\x05", "\u2581", "ab"});
  const uint64_t accepted = run_cases([&](uint64_t number) {
    Chooser choose("test.sentencepiece", number);
    std::string bytes = sentencepiece_model(choose);
    bytes = choose.below(4) == 0 ? bytes : mutate(bytes, number);
    const auto model = SentencePieceModel::parse(bytes, "hostile.model");
    EXPECT_LE(model.pieces.size(), bytes.size());
    use(Tokenizer::from_json(sentencepiece_json(model), "hostile.model"));
  });
  EXPECT_GT(accepted, cases() / 20);
}

TEST(HostileFiles, TiktokenRanks) {
  const test::ByteMutator mutate(7, {"\n", " ", "=", "99999999", "-1", "4294967296", "YQ== 0\n"});
  const uint64_t accepted = run_cases([&](uint64_t number) {
    Chooser choose("test.tiktoken", number);
    std::string text;
    for (int b = 0; b < 256; ++b) {
      text += encode_base64(std::string(1, static_cast<char>(b))) + " " + std::to_string(b) + "\n";
    }
    for (uint64_t i = 0; i < 6; ++i) {
      std::string token;
      for (uint64_t n = 2 + choose.below(4); n > 0; --n) {
        token.push_back("ab \xC3"[choose.below(4)]);
      }
      text += encode_base64(token) + " " + std::to_string(256 + i) + "\n";
    }
    const std::string given = choose.below(3) == 0 ? text : mutate(text, number);
    const auto tokens = read_tiktoken(given, "hostile.tiktoken");
    EXPECT_LE(tokens.size(), 2 * given.size() + 70000);
    const char* const kNames[] = {
        "cl100k_base.tiktoken", "o200k_base.tiktoken", "qwen.tiktoken", "tokenizer.model"};
    use(Tokenizer::from_json(
        tiktoken_json(tokens, tiktoken_style(choose.one_of(kNames), tokens.size())), "hostile"));
  });
  EXPECT_GT(accepted, cases() / 20);
}

constexpr const char* kFragments[] = {
    "{{ m.content }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if m.role == 'user' %}",
    "{% else %}",
    "{% endif %}",
    "{% set ns = namespace(n=0) %}",
    "{% set ns.n = ns.n + loop.index %}",
    "{{ ns.n }}",
    "{% macro f(a, b=2) %}{{ a ~ b }}{{ f(a, b) if b < 3 }}{% endmacro %}",
    "{{ f('x') }}",
    "{{ messages | tojson(indent=2) }}",
    "{{ messages | map(attribute='content') | join('-') }}",
    "{{ 'x' * 999999 }}",
    "{{ range(999999999) | list }}",
    "{{ messages[::-1][0:1] }}",
    "{{ 'a'.split('') }}",
    "{{ '%d %s' % (1, 'a') }}",
    "{{ '{0:>99999999}'.format(1) }}",
    "{{ (9 ** 99) ** 99 }}",
    "{{ 1 // 0 }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{{ raise_exception('e') }}",
    "{{ strftime_now('%Y%%') }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}",
    "{{ [[[[1]]]] | sum }}",
    "{#",
    "#}",
    "{%- break -%}",
    "{{ loop.cycle('a', 'b') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% call(x) f(1) %}",
    "{% endcall %}",
    "\\u0000",
    "{{ x.y.z }}"};

TEST(HostileFiles, JinjaTemplates) {
  const test::ByteMutator mutate(8,
                                 {"{{",
                                  "}}",
                                  "{%",
                                  "%}",
                                  "|",
                                  "(",
                                  ")",
                                  "[",
                                  "]",
                                  "'",
                                  "9999999999",
                                  "~",
                                  " not ",
                                  " is ",
                                  "\xF0\x9F"});
  const core::Json messages = core::parse_json(
      R"([{"role":"user","content":"hi \u00e9"},{"role":"assistant","content":"yo","tool_calls":[{"a":1}]}])",
      "m");
  RenderOptions options;
  options.limits = {.max_steps = 20000, .max_output_bytes = 1 << 16, .max_depth = 100};
  options.now = 0;
  uint64_t rendered = 0;
  run_cases([&](uint64_t number) {
    Chooser choose("test.jinja", number);
    std::string source;
    for (uint64_t n = 1 + choose.below(8); n > 0; --n) {
      source += choose.one_of(kFragments);
    }
    const auto form = ChatTemplate::from_text(
        choose.below(2) == 0 ? source : mutate(source, number), core::Json::object());
    const RenderedChat chat = form.render(messages, options, core::Json::object());
    EXPECT_LE(chat.text.size(), size_t{1} << 16);
    EXPECT_EQ(valid_prefix(chat.text), chat.text.size());
    ++rendered;
  });
  EXPECT_GT(rendered, cases() / 50);
}

TEST(JinjaSandbox, StopsAtEachOfItsLimits) {
  const auto fails = [](const std::string& source, const RenderLimits& limits, const char* part) {
    RenderOptions options;
    options.limits = limits;
    try {
      ChatTemplate::from_text(source, core::Json::object())
          .render_variables(core::Json::object(), options);
      ADD_FAILURE() << source;
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Data);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  fails("{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
        {.max_steps = 10000},
        "");
  fails("{% for a in range(100) %}xxxxxxxxxx{% endfor %}", {.max_output_bytes = 500}, "longer");
  fails("{{ 'x' * 1000 }}", {.max_output_bytes = 500}, "longer");
  fails("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", {.max_depth = 50}, "deep");
}

}  // namespace
}  // namespace kamerton::text
