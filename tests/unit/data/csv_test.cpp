// SPDX-License-Identifier: Apache-2.0
#include "csv.h"

#include <gmock/gmock.h>

#include "kamerton/data/dataset.h"

#include "scan.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Rows of a text, fed in pieces of `step` bytes.
std::vector<CsvRow> rows_of(std::string_view text, size_t step) {
  std::vector<CsvRow> rows;
  const auto sink = [&](const CsvRow& row) { rows.push_back(row); };
  CsvScanner scanner(',', 0);
  for (size_t i = 0; i < text.size(); i += step) {
    scanner.feed(i, text.substr(i, step), sink);
  }
  scanner.finish(sink);
  return rows;
}

DataConfig config_of(const Scratch& scratch, const std::string& bytes, const char* name = "a.csv") {
  DataConfig config;
  config.train = {scratch.write(name, bytes)};
  return config;
}

std::string refused(const DataConfig& config) {
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  return error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); });
}

TEST(Csv, RowsAreTheSameHoweverTheFileIsCut) {
  const std::string text =
      "a,b\r\n\"x\n,\"\"y\",2\n\n\"\",\xC3\xA4\nq\"r,\"s\"\n\"t\"u,1\nlast,row";
  const auto whole = rows_of(text, text.size());
  ASSERT_EQ(whole.size(), 7);
  EXPECT_EQ(text.substr(whole[1].offset, whole[1].length), "\"x\n,\"\"y\",2");
  EXPECT_EQ(whole[1].fields, 2);
  EXPECT_EQ(whole[2].line, 4);
  EXPECT_TRUE(whole[2].blank);
  EXPECT_FALSE(whole[4].bad_quote);  // a quote within an unquoted field is a sign like any other
  EXPECT_TRUE(whole[5].bad_quote);
  EXPECT_EQ(text.substr(whole[6].offset), "last,row");
  for (size_t step = 1; step < text.size(); ++step) {
    const auto cut = rows_of(text, step);
    ASSERT_EQ(cut.size(), whole.size()) << step;
    for (size_t i = 0; i < cut.size(); ++i) {
      EXPECT_EQ(cut[i].offset, whole[i].offset);
      EXPECT_EQ(cut[i].length, whole[i].length);
      EXPECT_EQ(cut[i].fields, whole[i].fields);
      EXPECT_EQ(cut[i].line, whole[i].line);
      EXPECT_EQ(cut[i].bad_quote, whole[i].bad_quote);
      EXPECT_EQ(cut[i].bad_text, whole[i].bad_text);
    }
  }
}

TEST(Csv, FieldsAreTakenApart) {
  EXPECT_THAT(split_csv("a,,\"b,\"\"c\"\"\n\",d\"e", ','),
              ElementsAre("a", "", "b,\"c\"\n", "d\"e"));
  EXPECT_THAT(split_csv("", ','), ElementsAre(""));
  EXPECT_THAT(split_csv("\"\"", '\t'), ElementsAre(""));
  EXPECT_THAT(split_csv("a,b\tc", '\t'), ElementsAre("a,b", "c"));
}

TEST(Csv, RecordsAreTextUnderTheHeadersNames) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config = config_of(
      scratch, "\xEF\xBB\xBFid,question,answer\r\n1,\"a,\nb\",c\r\n\r\n2,d,\"e \"\"f\"\"\"\r\n");
  config.columns.prompt = "question";
  config.columns.completion = "answer";
  const Dataset set = open_train(config, bundle, 4096);
  ASSERT_EQ(set.size(), 2);
  EXPECT_EQ(set.record(0).prompt, "a,\nb");
  EXPECT_EQ(set.record(0).completion, "c");
  EXPECT_EQ(set.record(1).completion, "e \"f\"");
  EXPECT_THAT(set.origin(1), HasSubstr("a.csv:5"));
  EXPECT_EQ(set.summary().layout, "prompt_completion");
}

TEST(Csv, TabsAndSemicolonsSeparateToo) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  const auto completion = [&](const DataConfig& config) {
    return open_train(config, bundle, 4096).record(0).completion;
  };
  EXPECT_EQ(completion(config_of(scratch, "prompt\tcompletion\na\tb,c\n", "a.tsv")), "b,c");
  EXPECT_EQ(completion(config_of(scratch, "prompt;completion\na;b,c\n")), "b,c");
  EXPECT_EQ(completion(config_of(scratch, "text\na;b\n")), "a;b");
}

TEST(Csv, ConversationsMayStandInACellAsJson) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(kMarkedTemplate);
  const Dataset set =
      open_train(config_of(scratch,
                           "messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"q\"\"},"
                           "{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"a\"\"}]\"\n"),
                 bundle,
                 4096);
  EXPECT_EQ(set.record(0).messages->size(), 2);
}

TEST(Csv, FaultsNameTheLine) {
  const Scratch scratch;
  EXPECT_THAT(refused(config_of(scratch, "text,b\n\"x\ny\",1\nsecret\n")),
              AllOf(HasSubstr("a.csv:4"), HasSubstr("1 columns under a header of 2")));
  EXPECT_THAT(refused(config_of(scratch, "text,b\n1,2,3\n")),
              AllOf(HasSubstr("a.csv:2"), HasSubstr("3 columns under a header of 2")));
  EXPECT_THAT(refused(config_of(scratch, "text\na\n\"never closed\nb\n")),
              AllOf(HasSubstr("a.csv:3"), HasSubstr("never closed")));
  EXPECT_THAT(refused(config_of(scratch, "text\n\"a\"b\n")), HasSubstr("a.csv:2:4"));
  EXPECT_THAT(refused(config_of(scratch, "text\na\xFF\n")), HasSubstr("a.csv:2:2"));
  EXPECT_THAT(refused(config_of(scratch, "text,text\na,b\n")),
              AllOf(HasSubstr("a.csv:1"), HasSubstr("two columns are called 'text'")));
  EXPECT_THAT(refused(config_of(scratch, "\"text\na\n")), HasSubstr("quotes of the first row"));
  EXPECT_THAT(refused(config_of(scratch, "\n\n")), HasSubstr("no rows"));
  EXPECT_THAT(refused(config_of(scratch, "text\n")), HasSubstr("holds no records"));
  EXPECT_THAT(
      refused(config_of(scratch, "a,b\n1,2\n")),
      AllOf(HasSubstr("no known layout"), HasSubstr("'a', 'b'"), HasSubstr("data.columns")));
  DataConfig skipping = config_of(scratch, "text,n\na,1\nbad\nb,2\n");
  skipping.on_bad_record = "skip";
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  EXPECT_EQ(open_train(skipping, bundle, 4096).size(), 2);
}

}  // namespace
}  // namespace kamerton::data
