// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/dataset.h"

#include <fstream>

#include <gmock/gmock.h>

#include "kamerton/data/inspect.h"

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kPositions = 4096;

std::string chat_line(const std::string& question, const std::string& answer) {
  return R"({"messages":[{"role":"user","content":")" + question +
         R"("},{"role":"assistant","content":")" + answer + "\"}]}\n";
}

struct Files {
  Scratch scratch;
  DataConfig config;
  text::TokenizerBundle chat = byte_bundle(kMarkedTemplate);
  text::TokenizerBundle plain = byte_bundle(nullptr);

  void write(const std::string& bytes, const std::string& name = "a.jsonl") {
    config.train.push_back(scratch.write(name, bytes));
  }
  Dataset open(const text::TokenizerBundle& bundle) const {
    return open_train(config, bundle, kPositions);
  }
};

TEST(Dataset, GivesTokensAndShiftedTargets) {
  Files files;
  files.write("{\"prompt\":\"ab\",\"completion\":\"c\"}\n");
  const Dataset set = files.open(files.plain);
  ASSERT_EQ(set.size(), 1);
  const Example example = set.get(0);
  EXPECT_THAT(example.tokens, ElementsAre('a', 'b', 'c', 256));
  EXPECT_THAT(example.targets, ElementsAre(kNoTarget, 'c', 256, kNoTarget));
  EXPECT_EQ(set.summary().layout, "prompt_completion");
  EXPECT_EQ(set.summary().train_on, "completion");
  EXPECT_THAT(set.lengths(0, 1), ElementsAre(4));
}

TEST(Dataset, ReadsSeveralFilesInOrder) {
  Files files;
  files.write("{\"text\":\"a\"}\n{\"text\":\"bb\"}\n");
  files.write("[{\"text\":\"ccc\"}]", "b.json");
  files.write("dddd\n\neeeee\n", "c.txt");
  const Dataset set = files.open(files.plain);
  EXPECT_THAT(set.lengths(0, set.size()), ElementsAre(2, 3, 4, 5, 6));
  EXPECT_THAT(set.origin(4), HasSubstr("c.txt:3"));
  EXPECT_EQ(set.raw(2), "{\"text\":\"ccc\"}");
  EXPECT_EQ(set.record(3).completion, "dddd");
}

TEST(Dataset, WindowsLineEndsAndAByteOrderMarkChangeNothing) {
  Files unix_files;
  unix_files.write("{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
  unix_files.write("x\ny\n\nz", "t.txt");
  Files other;
  other.write("\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\"}");
  other.write("\xEF\xBB\xBFx\r\ny\r\n\r\nz\r\n", "t.txt");
  const Dataset a = unix_files.open(unix_files.plain);
  const Dataset b = other.open(other.plain);
  ASSERT_EQ(a.size(), b.size());
  for (int64_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a.get(i).tokens, b.get(i).tokens) << i;
  }
}

TEST(Dataset, RefusesHostileFilesByPlaceWithoutEchoingThem) {
  const std::vector<std::pair<std::string, std::string>> hostile = {
      {"{\"text\":\"ok\"}\n{\"text\": secret}\n", "a.jsonl:2:"},
      {"{\"text\":\"ok\"}\n{\"text\":\"sec\xFFret\"}\n{\"text\":\"\xFE\"}\n", "2 bad records"},
      {"{\"text\":\"ok\"}\n{\"text\":\"secret\"\n", "a.jsonl:2:"},
      {std::string("{\"text\":\"a\0secret\"}\n", 21), "a.jsonl:1:11"},
      {"{\"text\":\"ok\"}\n{\"words\":\"secret\"}\n", "a.jsonl:2: no known layout"},
      {"{\"text\":\"ok\"}\n" + chat_line("secret", "secret"), "a.jsonl:2: another layout"},
      {"\n \r\n\n", "holds no records"},
      {"[]", "holds no records"},
      {"[{\"text\":\"secret\"}", "not closed"},
      {"{\"text\":7}\n", "a.jsonl:1: the column 'text' is not text"},
      {"{\"text\":null}\n", "no known layout"},
      {"\"secret\"\n", "a.jsonl:1: no known layout"},
  };
  for (const auto& [bytes, message] : hostile) {
    Files files;
    files.write(bytes);
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.chat); }),
                AllOf(HasSubstr(message), Not(HasSubstr("secret"))))
        << bytes;
  }
}

TEST(Dataset, ALaterRecordOfAnotherShapeIsFoundBeforeTheRun) {
  std::string bytes;
  for (int i = 0; i < 99; ++i) {
    bytes += "{\"text\":\"ok\"}\n";
  }
  Files files;
  files.write(bytes + "{\"text\":[\"secret\"]}\n{\"text\":\"ok\"}\n{\"texts\":\"secret\"}\n");
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.plain); }),
              AllOf(HasSubstr("a.jsonl:100: the column 'text' is not text"),
                    HasSubstr("2 bad records of 102")));
  // Unchecked, and not in the sample of 64: then it is found when it is read.
  files.config.check_bytes = 0;
  const Dataset set = files.open(files.plain);
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { set.get(99); }), HasSubstr("a.jsonl:100"));
}

TEST(Dataset, BadRecordsMayBeSkippedUpToALimit) {
  Files files;
  files.write("{\"text\":\"a\"}\n{bad\n{\"text\":\"\xFF\"}\n{\"text\":7}\n{\"text\":\"b\"}\n");
  files.config.on_bad_record = "skip";
  const Dataset set = files.open(files.plain);
  EXPECT_THAT(set.lengths(0, set.size()), ElementsAre(2, 0, 0, 2));
  EXPECT_THAT(set.summary().notes, Contains(HasSubstr("3 bad records are left out")));
  EXPECT_GT(set.counters().skipped_bad, 0);
  files.config.max_bad_records = 2;
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.plain); }),
              HasSubstr("max_bad_records"));
}

TEST(Dataset, ExamplesWithoutATargetAreNamedOrSkipped) {
  Files files;
  files.write(chat_line("q", "a") + R"({"messages":[{"role":"user","content":"only"}]})" + "\n");
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.chat); }),
              HasSubstr("a.jsonl:2: the example has no token to train"));
  files.config.on_no_target = "skip";
  const Dataset set = files.open(files.chat);
  EXPECT_TRUE(set.get(1).tokens.empty());
  EXPECT_FALSE(set.get(0).tokens.empty());
  EXPECT_GT(set.counters().skipped_no_target, 0);
  files.config.train = {
      files.scratch.write("b.jsonl", R"({"messages":[{"role":"user","content":"only"}]})")};
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.chat); }),
              HasSubstr("none of 1 examples"));
}

TEST(Dataset, LongExamplesAreCutRefusedOrLeftOut) {
  Files files;
  files.write("{\"text\":\"abcdefgh\"}\n{\"text\":\"xy\"}\n");
  files.config.sequence_length = 4;
  const Dataset cut = files.open(files.plain);
  EXPECT_THAT(cut.get(0).tokens, ElementsAre('a', 'b', 'c', 'd'));
  EXPECT_THAT(cut.get(0).targets, ElementsAre('b', 'c', 'd', kNoTarget));
  EXPECT_THAT(cut.summary().notes, Contains(HasSubstr("1 of 2 examples looked at are cut")));
  EXPECT_GT(cut.counters().truncated, 0);
  files.config.too_long = "truncate_start";
  EXPECT_THAT(files.open(files.plain).get(0).tokens, ElementsAre('f', 'g', 'h', 256));
  files.config.too_long = "skip";
  EXPECT_THAT(files.open(files.plain).lengths(0, 2), ElementsAre(0, 3));
  files.config.too_long = "error";
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.plain); }),
              AllOf(HasSubstr("a.jsonl:1: the example is too long"), HasSubstr("9 tokens")));
}

TEST(Dataset, SequencesBeyondTheModelsLimitAreRefused) {
  Files files;
  files.write("{\"text\":\"abc\"}\n");
  files.config.sequence_length = kPositions + 1;
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { files.open(files.plain); }),
              HasSubstr("at most 4096"));
  files.config.sequence_length.reset();
  EXPECT_EQ(open_train(files.config, files.plain, 512).summary().sequence_length, 512);
  EXPECT_EQ(open_train(files.config, files.plain, 99999).summary().sequence_length, 1024);
}

TEST(Dataset, AnEndTokenThatIsNeverTrainedIsRefused) {
  Files files;
  files.write(chat_line("question", "answer"));
  text::TokenizerBundle bundle = byte_bundle(kMarkedTemplate);
  bundle.eos = 256;
  bundle.stop_ids = {256};
  bundle.eos_text = "</s>";
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(bundle); }),
              HasSubstr("would not learn to stop"));
  files.config.require_end_token = false;
  EXPECT_THAT(files.open(bundle).summary().notes, Contains(HasSubstr("will not learn to stop")));
  files.config.require_end_token = true;
  files.config.sequence_length = 30;  // every answer is cut before its end
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { files.open(files.chat); }),
              HasSubstr("a larger data.sequence_length"));
}

TEST(Dataset, TrainOnMustFitTheData) {
  Files files;
  files.write("{\"text\":\"abc\"}\n");
  for (const char* wrong : {"completion", "assistant"}) {
    files.config.train_on = wrong;
    EXPECT_THAT(error_of(ErrorKind::Config, [&] { files.open(files.plain); }),
                HasSubstr("data.train_on does not fit"));
  }
  files.config.train = {};
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { files.open(files.plain); }),
              HasSubstr("no data files"));
}

TEST(Dataset, AFileThatIsCutInMidRunIsNamed) {
  Files files;
  files.write("{\"text\":\"abc\"}\n{\"text\":\"def\"}\n");
  files.config.on_bad_record = "skip";  // it is no bad record
  const Dataset set = files.open(files.plain);
  std::filesystem::resize_file(files.config.train[0], 16);
  EXPECT_THAT(error_of(ErrorKind::Io, [&] { set.get(1); }),
              AllOf(HasSubstr("a.jsonl"), HasSubstr("cut to 16 bytes")));
}

TEST(Dataset, WindowsHoldEveryTokenOnceAndTrainNothingAcrossDocuments) {
  Files files;
  files.write("{\"text\":\"abcde\"}\n{\"text\":\"f\"}\n{\"text\":\"ghij\"}\n");
  files.config.text_windows = true;
  files.config.sequence_length = 4;
  const Dataset set = files.open(files.plain);  // abcde$f$ghij$ -> abcd e$f$ ghij $
  ASSERT_EQ(set.size(), 3);
  EXPECT_THAT(set.get(0).tokens, ElementsAre('a', 'b', 'c', 'd'));
  EXPECT_THAT(set.get(1).tokens, ElementsAre('e', 256, 'f', 256));
  EXPECT_THAT(set.get(1).targets, ElementsAre(256, kNoTarget, 256, kNoTarget));
  EXPECT_THAT(set.get(1).document_starts, ElementsAre(0, 2));
  Batch batch;
  batch.append(set.get(1), 7);
  EXPECT_THAT(batch.document_offsets, ElementsAre(0, 2, 4));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(batch.sample_ids, ElementsAre(7, 7));
}

TEST(Dataset, ALongFileBecomesWindowsWithoutBreaks) {
  Files files;
  std::string text;
  while (text.size() < 2'200'000) {
    text += "line " + std::to_string(text.size()) + "\n\n";
  }
  files.write(text, "long.txt");
  files.config.text_windows = true;
  files.config.text_split = "file";
  files.config.sequence_length = 1000;
  const Dataset set = files.open(files.plain);
  std::string joined;
  size_t documents = 0;
  for (int64_t i = 0; i < set.size(); ++i) {
    const Example example = set.get(i);
    documents += example.document_starts.size() - 1;
    joined += set.raw(i);
  }
  EXPECT_EQ(documents, 0);
  EXPECT_EQ(joined.substr(0, text.size()), text.substr(0, joined.size()));
  EXPECT_GE(joined.size() + 2, text.size());
}

TEST(Dataset, DigestTellsDataAndSettingsApart) {
  Files files;
  files.write("{\"text\":\"abc\"}\n");
  const std::string before = files.open(files.plain).digest();
  EXPECT_EQ(files.open(files.plain).digest(), before);
  Files other;
  other.write("{\"text\":\"abd\"}\n");
  EXPECT_NE(other.open(other.plain).digest(), before);
  files.config.sequence_length = 77;
  EXPECT_NE(files.open(files.plain).digest(), before);
}

TEST(Inspect, MarksTrainedTokensAndDisarmsControlCharacters) {
  Files files;
  files.write(R"({"prompt":"a\u001b[31mb\n","completion":"c\u009b"})");
  const Dataset set = files.open(files.plain);
  const std::string plain = show_example(set, 0, {.color = false, .ids = false});
  EXPECT_THAT(plain, HasSubstr("a\\x1b[31mb\xE2\x86\xB5\n[[c\\u009b</s>]]\n"));
  EXPECT_THAT(plain, HasSubstr("a.jsonl:1): 12 tokens, 4 trained"));
  const std::string color = show_example(set, 0, {.color = true, .ids = true});
  EXPECT_THAT(color, HasSubstr("\x1b[32mc<99>"));
  EXPECT_THAT(color, Not(HasSubstr("\x1b[31m")));
  const std::vector<int64_t> both = {0, 0};
  EXPECT_THAT(show(set, both, {.color = false}), HasSubstr("layout prompt_completion (found)"));
}

TEST(Inspect, MeasuresLengths) {
  Files files;
  std::string bytes;
  for (int i = 1; i <= 100; ++i) {
    bytes += "{\"text\":\"" + std::string(i, 'x') + "\"}\n";
  }
  files.write(bytes);
  files.config.sequence_length = 91;
  const Dataset set = files.open(files.plain);
  for (const int threads : {1, 3}) {
    const Stats stats = measure(set, -1, threads);
    EXPECT_EQ(stats.examples, 100);
    EXPECT_EQ(stats.truncated, 10);
    EXPECT_EQ(stats.shortest, 2);
    EXPECT_EQ(stats.longest, 91);
    EXPECT_EQ(stats.median, 52);
    EXPECT_EQ(stats.tokens, 90 * 91 / 2 + 90 + 10 * 91);
    EXPECT_EQ(stats.targets, stats.tokens - 100);
    EXPECT_GE(stats.packed_rows * 91, stats.tokens);
    EXPECT_THAT(stats_text(stats, set.summary()), HasSubstr("longest 91"));
  }
}

TEST(Inspect, CountsTheRowsOfTheRunsOwnPackingStrategy) {
  Files files;
  std::string bytes;
  for (const size_t length : {5U, 8U, 4U, 1U, 23U}) {  // one more with the end token
    bytes += "{\"text\":\"" + std::string(length, 'x') + "\"}\n";
  }
  files.write(bytes);
  files.config.sequence_length = 10;
  const auto rows = [&](const char* strategy) {
    files.config.packing_strategy = strategy;
    files.config.packing = true;
    const Stats stats = measure(files.open(files.plain), -1, 1);
    EXPECT_EQ(stats.packing_strategy, strategy);
    return stats.packed_rows;
  };
  // 6, 9, 5, 2, and 10 of 24
  EXPECT_EQ(rows("next_fit"), 4);   // 6 | 9 | 5 2 | 10
  EXPECT_EQ(rows("bfd"), 4);        // 10 | 9 | 6 2 | 5
  EXPECT_EQ(rows("bfd_split"), 5);  // 10 10 4: 10 | 10 | 9 | 6 4 | 5 2
  EXPECT_EQ(rows("wrapped"), 5);    // 46 tokens
}

}  // namespace
}  // namespace kamerton::data
