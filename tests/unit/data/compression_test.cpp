// SPDX-License-Identifier: Apache-2.0
#include "compression.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <zlib.h>
#include <zstd.h>

#include "kamerton/data/dataset.h"

#include "unit/data/compressed.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string unpack(const Scratch& scratch, const std::string& bytes, uint64_t limit = 1 << 30) {
  const DataFile file = DataFile::open(scratch.write("packed", bytes));
  std::string text;
  decompress(file, detect_compression(file), limit, [&](std::string_view piece) { text += piece; });
  return text;
}

std::string long_text() {
  std::string text;
  for (int i = 0; text.size() < 5'000'000; ++i) {
    text += "{\"text\":\"" + std::to_string(i * 7919 % 10007) + "\"}\n";
  }
  return text;
}

TEST(Compression, GivesTheTextBack) {
  const Scratch scratch;
  const std::string text = long_text();
  EXPECT_EQ(unpack(scratch, gzip(text)), text);
  EXPECT_EQ(unpack(scratch, zstd(text)), text);
  // Members and frames one after the other; a tape's zeros behind the last; a frame to be skipped.
  EXPECT_EQ(unpack(scratch, gzip("a\n") + gzip("") + gzip(text)), "a\n" + text);
  EXPECT_EQ(unpack(scratch, gzip("a\n") + std::string(1000, '\0')), "a\n");
  EXPECT_EQ(unpack(scratch, zstd("a\n") + zstd("") + zstd(text)), "a\n" + text);
  const std::string skipped("\x52\x2A\x4D\x18\x03\x00\x00\x00xyz", 11);
  EXPECT_EQ(unpack(scratch, skipped + zstd("a")), "a");
  // Sizes around the buffers.
  for (const size_t size : {(size_t{1} << 20) - 1, size_t{1} << 20, (size_t{1} << 20) + 1}) {
    const std::string same(size, 'x');
    EXPECT_EQ(unpack(scratch, gzip(same)), same);
    EXPECT_EQ(unpack(scratch, zstd(same)), same);
  }
}

TEST(Compression, CutStreamsNameFileAndByte) {
  const Scratch scratch;
  const std::string text = long_text();
  for (const std::string& whole : {gzip(text), zstd(text)}) {
    for (const size_t size : {whole.size() - 1, whole.size() / 2, size_t{10}}) {
      EXPECT_THAT(error_of(ErrorKind::Data, [&] { unpack(scratch, whole.substr(0, size)); }),
                  AllOf(HasSubstr("packed: "),
                        HasSubstr("ends in the middle, at byte " + std::to_string(size))));
    }
  }
}

TEST(Compression, DamageIsNoticed) {
  const Scratch scratch;
  const std::string text = long_text();
  for (std::string whole : {gzip(text), zstd(text)}) {
    whole[whole.size() / 2] = static_cast<char>(whole[whole.size() / 2] ^ 0x55);
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { unpack(scratch, whole); }),
                HasSubstr("damaged at byte"));
  }
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { unpack(scratch, gzip("a") + "tail"); }),
              HasSubstr("damaged at byte"));
}

TEST(Compression, BombsAreRefusedBeforeTheyGrow) {
  const Scratch scratch;
  const std::string zeros(64 << 20, '\0');
  for (const std::string& bomb : {gzip(zeros), zstd(zeros)}) {
    EXPECT_LT(bomb.size(), 100'000);
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { unpack(scratch, bomb, 8 << 20); }),
                AllOf(HasSubstr("grows too large"), HasSubstr("data.max_expansion")));
  }
}

TEST(Compression, FilesThatAreNotWhatTheirNameSaysAreRefused) {
  const Scratch scratch;
  for (const char* name : {"a.jsonl.gz", "a.jsonl.zst"}) {
    const DataFile file = DataFile::open(scratch.write(name, "{\"text\":\"a\"}\n"));
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { detect_compression(file); }),
                AllOf(HasSubstr(name), HasSubstr("not what its name says")));
  }
}

TEST(Compression, DataSetsAreTheSameAsFromPlainFiles) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  const std::string lines = "{\"text\":\"a\"}\n\n{\"text\":\"bb\"}\n";
  const std::string array = "[{\"text\":\"ccc\"}]";
  const std::string csv = "text\ndddd\n";
  const auto open = [&](const std::vector<std::string>& files) {
    DataConfig config;
    config.train = files;
    config.index_dir = scratch / "index";
    return open_train(config, bundle, 4096);
  };
  const Dataset plain = open({scratch.write("a.jsonl", lines),
                              scratch.write("b.json", array),
                              scratch.write("c.csv", csv),
                              scratch.write("d.txt", "eeeee\n\nf")});
  for (int round = 0; round < 2; ++round) {  // the second finds the unpacked files
    const Dataset packed = open({scratch.write("a.jsonl.gz", gzip(lines)),
                                 scratch.write("b.json.zst", zstd(array)),
                                 scratch.write("c.csv.gz", gzip(csv)),
                                 scratch.write("d.txt.zst", zstd("eeeee\n\nf"))});
    ASSERT_EQ(packed.size(), plain.size());
    for (int64_t i = 0; i < plain.size(); ++i) {
      EXPECT_EQ(packed.get(i).tokens, plain.get(i).tokens);
    }
    EXPECT_THAT(packed.origin(1), HasSubstr("a.jsonl.gz:3"));
  }
}

TEST(Compression, FaultsInsideNameTheFileThatWasGiven) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config;
  config.index_dir = scratch / "index";
  config.train = {scratch.write("a.jsonl.gz", gzip("{\"text\":\"a\"}\n{\"text\":\"\xFF\"}\n"))};
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); }),
              HasSubstr("a.jsonl.gz:2:10"));
  config.train = {scratch.write("b.jsonl.gz", gzip(""))};
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); }),
              HasSubstr("nothing in the data file"));
  const std::string good = gzip(long_text());
  config.train = {scratch.write("c.jsonl.gz", good.substr(0, good.size() / 2))};
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); }),
              HasSubstr("c.jsonl.gz: the compressed data ends"));
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "index")) {
    EXPECT_NE(entry.path().extension(), ".part") << "nothing half made is left";
  }
}

}  // namespace
}  // namespace kamerton::data
