// SPDX-License-Identifier: Apache-2.0
// Token stores of raw text for data.text_windows.
#include <gtest/gtest.h>

#include "store_fixture.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

/// Raw text in two files, one of a paragraph longer than a piece, for windows of it.
class WindowStore : public Store {
 protected:
  void SetUp() override {
    Store::SetUp();
    std::string prose;
    for (int i = 0; i < 300; ++i) {
      prose += "paragraph " + std::to_string(i * i) + (i % 5 == 0 ? "\n\n" : " goes on\n");
    }
    std::string endless;
    while (endless.size() < 1'200'000) {
      endless += "word" + std::to_string(endless.size()) + " ";
    }
    config.train = {scratch.write("a.txt", prose), scratch.write("b.txt", endless)};
    config.text_windows = true;
    config.sequence_length = 200;
  }
  /// A byte a token; the end token as $.
  static std::string text_of(const Example& window, int32_t begin, int32_t end) {
    std::string text;
    for (int32_t i = begin; i < end; ++i) {
      const int32_t token = window.tokens[static_cast<size_t>(i)];
      text += token >= 256 ? '$' : static_cast<char>(token);
    }
    return text;
  }
  void expect_same_windows(const DataConfig& one, const DataConfig& other) const {
    const Dataset raw = open_train(one, bundle, 4096);
    const Dataset stored = open_train(other, bundle, 4096);
    ASSERT_EQ(raw.size(), stored.size());
    ASSERT_GT(raw.size(), 20);
    for (int64_t i = 0; i < raw.size(); ++i) {
      ASSERT_EQ(raw.get(i).tokens, stored.get(i).tokens) << i;
      ASSERT_EQ(raw.get(i).targets, stored.get(i).targets) << i;
      ASSERT_EQ(raw.get(i).document_starts, stored.get(i).document_starts) << i;
    }
  }
};

TEST_F(WindowStore, GivesTheBatchesOfTheRawTextForAnyLength) {
  const PrepareReport report = prepare(2, 1000);
  EXPECT_GT(report.parts, 2);
  expect_same_batches();
  config.sequence_length = 333;
  EXPECT_EQ(prepare().folder, report.folder);
  expect_same_batches();
  config.text_split = "file";  // pieces of one document
  EXPECT_NE(prepare().folder, report.folder);
  expect_same_batches();
}

TEST_F(WindowStore, HoldsEachSideOfASplit) {
  config.validation_fraction = 0.3;
  const fs::path train = prepare().folder;
  StorePreparation held_out(config, true, bundle, 4096);
  EXPECT_FALSE(held_out.begin(1));
  held_out.make_parts(0, 1, 1);
  EXPECT_NE(held_out.publish().folder, train);
  expect_same_batches();
  DataConfig stored = config;
  stored.store = "require";
  const auto windows = [&](const DataConfig& from) {
    return open_eval(from, bundle, 4096).get(0).tokens;
  };
  EXPECT_EQ(windows(config), windows(stored));
}

TEST_F(WindowStore, StandsInPlaceOfTheTexts) {
  DataConfig alone = config;
  alone.train = {prepare().folder.string()};
  config.store = "off";
  expect_same_windows(config, alone);
}

TEST_F(WindowStore, IsNotTakenForAStoreOfWholeExamples) {
  const fs::path windows = prepare().folder;
  const auto refused = [&] {
    return error_of(ErrorKind::Config, [&] { open_train(config, bundle, 4096); });
  };
  config.text_windows = false;
  const fs::path examples = prepare().folder;
  EXPECT_NE(examples, windows);
  config.train = {windows.string()};
  EXPECT_NE(refused().find("data.text_windows is not what"), std::string::npos);
  config.text_windows = true;
  config.train = {examples.string()};
  EXPECT_NE(refused().find("data.text_windows is not what"), std::string::npos);
}

/// Of a text in which each word names its place: whether every word stands where the one before it
/// ends.
bool goes_on(const std::string& text) {
  size_t expected = std::string::npos;
  for (size_t at = text.find("word"); at != std::string::npos; at = text.find("word", at + 4)) {
    const size_t end = text.find(' ', at);
    if (end == std::string::npos) {
      break;
    }
    const size_t place = std::stoull(text.substr(at + 4, end - at - 4));
    if (expected != std::string::npos && place != expected) {
      return false;
    }
    expected = place + end + 1 - at;
  }
  return true;
}

/// Nothing is trained to follow what was left out before it.
TEST_F(WindowStore, APieceWhoseStartWasLeftOutStartsADocument) {
  std::string text;
  while (text.size() < 12'000'000) {
    text += "word" + std::to_string(text.size()) + " ";
  }
  config.text_split = "file";
  config.train = {scratch.write("long.txt", text)};
  config.train = {prepare().folder.string()};
  config.validation_fraction = 0.5;
  config.sequence_length = 4000;
  size_t breaks = 0;
  for (const Side side : {Side::Train, Side::Validation}) {
    const Dataset set(config, side, bundle, 4096);
    for (int64_t i = 0; i < set.size(); ++i) {
      const Example window = set.get(i);
      std::vector<int32_t> ends = window.document_starts;
      breaks += ends.size() - 1;
      ends.push_back(static_cast<int32_t>(window.tokens.size()));
      for (size_t k = 0; k + 1 < ends.size(); ++k) {
        ASSERT_TRUE(goes_on(text_of(window, ends[k], ends[k + 1]))) << i;
      }
    }
  }
  EXPECT_GT(breaks, 0);
}

}  // namespace
}  // namespace kamerton::data
