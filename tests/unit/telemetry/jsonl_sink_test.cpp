// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/jsonl_sink.h"

#include <cmath>
#include <csignal>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "kamerton/core/error.h"

#include "support/scratch_folder.h"

namespace kamerton::telemetry {
namespace {

Record step(int64_t number) {
  Record record;
  record.step = number;
  return record.add("loss", 0.5);
}

TEST(JsonLine, KeepsOrderAndWritesNullForWhatIsNotFinite) {
  Record record;
  record.step = 3;
  record.add("loss", 0.1)
      .add("grad_norm", std::nan(""))
      .add("lr", -std::numeric_limits<double>::infinity());
  record.add("tokens", int64_t{12}).add("note", "a \"b\"\n");

  EXPECT_EQ(to_json_line(record),
            R"({"step":3,"loss":0.1,"grad_norm":null,"lr":null,"tokens":12,"note":"a \"b\"\n"})"
            "\n");
}

TEST(JsonLine, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(to_json_line(Record{}.add("note", "a\xff")),
            "{\"step\":0,\"note\":\"a\xEF\xBF\xBD\"}\n");
}

TEST(JsonlSink, WritesEachRecordAtOnceAndIgnoresOtherKinds) {
  support::ScratchFolder folder;
  JsonlSink sink(folder.file("metrics.jsonl"), 0);
  sink.write(step(1));
  Record evaluation = step(1);
  evaluation.kind = "eval";
  sink.write(evaluation);

  EXPECT_EQ(folder.read("metrics.jsonl"), "{\"step\":1,\"loss\":0.5}\n");
}

TEST(JsonlSink, DropsTheStepsThatAResumedRunRepeats) {
  support::ScratchFolder folder;
  folder.write("metrics.jsonl",
               to_json_line(step(1)) + to_json_line(step(2)) + to_json_line(step(3)));
  {
    JsonlSink sink(folder.file("metrics.jsonl"), 2);
    sink.write(step(2));
  }

  EXPECT_EQ(folder.read("metrics.jsonl"), "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.5}\n");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "metrics.jsonl.kept"));
}

TEST(JsonlSink, RemovesTornAndForeignLines) {
  support::ScratchFolder folder;
  folder.write("metrics.jsonl",
               to_json_line(step(1)) + "{\"step\":2,\"lo\n[]\n{\"step\":\"3\"}\n" +
                   to_json_line(step(4)) + "{\"step\":5}");
  JsonlSink sink(folder.file("metrics.jsonl"), 9);

  EXPECT_EQ(folder.read("metrics.jsonl"), to_json_line(step(1)) + to_json_line(step(4)));
}

TEST(JsonlSink, SaysWhichFileCannotBeOpened) {
  support::ScratchFolder folder;
  try {
    JsonlSink sink(folder.file("missing/metrics.jsonl"), 0);
    FAIL() << "expected an error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Output);
    EXPECT_THAT(error.what(), testing::HasSubstr("missing/metrics.jsonl"));
  }
}

TEST(JsonlSink, ReportsAFullDisk) {
  support::ScratchFolder folder;
  const rlimit tiny{64, RLIM_INFINITY};
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // the write fails instead
  setrlimit(RLIMIT_FSIZE, &tiny);
  JsonlSink sink(folder.file("metrics.jsonl"), 0);
  const auto write_much = [&] {
    for (int i = 0; i < 100; ++i) {
      sink.write(step(i));
    }
  };

  EXPECT_THROW(write_much(), core::Error);

  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
}

}  // namespace
}  // namespace kamerton::telemetry
