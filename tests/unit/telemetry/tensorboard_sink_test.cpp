// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/tensorboard_sink.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kamerton/core/error.h"

#include "event_format.h"
#include "support/scratch_folder.h"

namespace kamerton::telemetry {
namespace {

// A reader written from the format's description, sharing nothing with the writer but the CRC
// (which has vectors).
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return at_ == bytes_.size(); }
  template <class Number>
  Number fixed() {
    Number value;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) {
        return value;
      }
    }
  }
  std::string_view take(size_t length) {
    if (length > bytes_.size() - at_) {
      throw std::runtime_error("short");
    }
    at_ += length;
    return bytes_.substr(at_ - length, length);
  }
  std::string_view record() {
    const std::string_view length_bytes = bytes_.substr(at_, 8);
    const auto length = fixed<uint64_t>();
    EXPECT_EQ(fixed<uint32_t>(), masked_crc32c(length_bytes));
    const std::string_view body = take(length);
    EXPECT_EQ(fixed<uint32_t>(), masked_crc32c(body));
    return body;
  }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string version;
  std::vector<std::pair<std::string, float>> scalars;
};

std::pair<std::string, float> parse_value(std::string_view bytes) {
  std::pair<std::string, float> value;
  for (Reader reader(bytes); !reader.done();) {
    const uint64_t key = reader.varint();
    if (key == (1 << 3 | 2)) {
      value.first = std::string(reader.take(reader.varint()));
    } else if (key == (2 << 3 | 5)) {
      value.second = reader.fixed<float>();
    } else {
      ADD_FAILURE() << "unknown field of a value " << key;
      break;
    }
  }
  return value;
}

Event parse_event(std::string_view bytes) {
  Event event;
  for (Reader reader(bytes); !reader.done();) {
    const uint64_t key = reader.varint();
    if (key == (1 << 3 | 1)) {
      event.wall_time = reader.fixed<double>();
    } else if (key == (2 << 3 | 0)) {
      event.step = static_cast<int64_t>(reader.varint());
    } else if (key == (3 << 3 | 2)) {
      event.version = std::string(reader.take(reader.varint()));
    } else if (key == (5 << 3 | 2)) {
      for (Reader summary(reader.take(reader.varint())); !summary.done();) {
        EXPECT_EQ(summary.varint(), 1 << 3 | 2);
        event.scalars.push_back(parse_value(summary.take(summary.varint())));
      }
    } else {
      ADD_FAILURE() << "unknown field of an event " << key;
      break;
    }
  }
  return event;
}

// Vectors of RFC 3720, appendix B.4.
TEST(Crc32c, EqualsThePublishedVectors) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TensorboardSink, WritesWhatAReaderOfTheFormatFinds) {
  support::ScratchFolder folder;
  TensorboardSink sink(folder.file("tb"), "rank0", [] { return 1700000000.25; });
  Record record;
  record.step = 300;
  record.add("loss", 1.5)
      .add("tokens", int64_t{1} << 20)
      .add("note", "text")
      .add("grad_norm", std::nan(""));
  sink.write(record);
  const std::string bytes = folder.read("tb/events.out.tfevents.1700000000.rank0");
  Reader reader(bytes);
  const Event first = parse_event(reader.record());
  const Event second = parse_event(reader.record());

  EXPECT_TRUE(reader.done());
  EXPECT_EQ(first.version, "brain.Event:2");
  EXPECT_EQ(first.wall_time, 1700000000.25);
  EXPECT_EQ(second.step, 300);
  ASSERT_EQ(second.scalars.size(), 3);
  EXPECT_EQ(second.scalars[0], (std::pair<std::string, float>("train/loss", 1.5f)));
  EXPECT_EQ(second.scalars[1], (std::pair<std::string, float>("train/tokens", 1048576.0f)));
  EXPECT_EQ(second.scalars[2].first, "train/grad_norm");
  EXPECT_TRUE(std::isnan(second.scalars[2].second));
}

TEST(TensorboardSink, NeverOverwritesAnEarlierRunsFile) {
  support::ScratchFolder folder;
  const auto noon = [] { return 5.0; };
  TensorboardSink first(folder.path().string(), "r", noon);
  TensorboardSink second(folder.path().string(), "r", noon);

  EXPECT_NE(first.path(), second.path());
  EXPECT_EQ(second.path(), folder.file("events.out.tfevents.0000000005.r.1"));
}

TEST(TensorboardSink, SaysWhenTheFolderCannotBeMade) {
  support::ScratchFolder folder;
  folder.write("taken", "");

  EXPECT_THROW(TensorboardSink(folder.file("taken"), "r"), core::Error);
}

}  // namespace
}  // namespace kamerton::telemetry
