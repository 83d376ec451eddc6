// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/console_sink.h"

#include <cmath>
#include <cstdlib>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/manual_clock.h"

namespace kamerton::telemetry {
namespace {

using testing::HasSubstr;

Record step(int64_t number) {
  Record record;
  record.step = number;
  record.add("loss", 1.23456).add("lr", 2e-5).add("grad_norm", 0.8).add("tokens_per_s", 1234.0);
  return record.add("peak_rss_bytes", int64_t{3} << 30);
}

/// A stream in memory, so that what was printed can be read.
class Screen {
 public:
  Screen() : stream_(open_memstream(&text_, &size_)) {}
  ~Screen() {
    std::fclose(stream_);
    std::free(text_);
  }
  std::FILE* stream() { return stream_; }
  std::string text() {
    std::fflush(stream_);
    return std::string(text_, size_);
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* stream_;
};

TEST(ProgressLine, ShowsAllFieldsWhenThereIsRoom) {
  EXPECT_EQ(progress_line(step(7), 100, 185, 200, false),
            "step   7/100 | loss 1.2346 | lr 2.00e-05 | grad norm 0.8 | 1.2k tok/s | ETA 3m05s | "
            "peak 3.0 GiB");
}

TEST(ProgressLine, NeverPassesTheWidth) {
  for (int columns = 1; columns <= 160; ++columns) {
    for (const bool bar : {false, true}) {
      EXPECT_LE(progress_line(step(7), 100, 185, columns, bar).size(), columns);
    }
  }
  EXPECT_EQ(progress_line(step(7), 100, 185, 30, false), "step   7/100 | loss 1.2346");
}

TEST(ProgressLine, FillsTheBarInProportion) {
  EXPECT_THAT(progress_line(step(50), 100, 1, 160, true),
              HasSubstr(" [###############---------------]"));
  EXPECT_THAT(progress_line(step(100), 100, 0, 160, true),
              HasSubstr("[##############################]"));
  EXPECT_THAT(progress_line(step(500), 100, 0, 160, true),
              HasSubstr("[##############################]"));
}

TEST(ProgressLine, SurvivesNumbersThatAreNotFiniteAndMissingOnes) {
  Record record;
  record.add("loss", std::nan(""))
      .add("tokens_per_s", INFINITY)
      .add("peak_rss_bytes", std::nan(""));

  EXPECT_EQ(progress_line(record, 0, std::nan(""), 200, false),
            "step 0/0 | loss nan | ? tok/s | ETA ? | peak 0 B");
}

TEST(ConsoleSink, AddsLinesEveryNStepsAndShowsFirstAndLast) {
  Screen screen;
  support::ManualClock clock;
  ConsoleSink sink(screen.stream(),
                   clock,
                   {.total_steps = 25, .in_place = false, .every_steps = 10, .every_s = 1e9});
  for (int i = 1; i <= 25; ++i) {
    clock.advance(1);
    sink.write(step(i));
  }
  const std::string text = screen.text();

  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
  for (const char* line : {"step  1/25", "step 11/25", "step 21/25", "step 25/25"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, HasSubstr("ETA 14 s"));  // 14 steps to go at one second each
  EXPECT_THAT(text, testing::Not(HasSubstr("\r")));
}

TEST(ConsoleSink, AddsALineWhenEnoughTimeHasGone) {
  Screen screen;
  support::ManualClock clock;
  ConsoleSink sink(screen.stream(),
                   clock,
                   {.total_steps = 1000, .in_place = false, .every_steps = 100, .every_s = 30});
  sink.write(step(1));
  clock.advance(29);
  sink.write(step(2));
  clock.advance(1);
  sink.write(step(3));

  EXPECT_THAT(
      screen.text(),
      testing::AllOf(HasSubstr("step    3/1000"), testing::Not(HasSubstr("step    2/1000"))));
}

TEST(ConsoleSink, CountsTheEtaFromTheResumedStep) {
  Screen screen;
  support::ManualClock clock;
  ConsoleSink sink(
      screen.stream(), clock, {.total_steps = 110, .first_step = 100, .in_place = false});
  clock.advance(20);
  sink.write(step(102));

  EXPECT_THAT(screen.text(), HasSubstr("ETA 1m20s"));
}

TEST(ConsoleSink, RedrawsOneLineAndEndsItForOtherRecords) {
  Screen screen;
  support::ManualClock clock;
  {
    ConsoleSink sink(
        screen.stream(), clock, {.total_steps = 9, .in_place = true, .redraw_s = 0.1, .width = 60});
    sink.write(step(1));
    sink.write(step(2));  // too soon
    clock.advance(1);
    sink.write(step(3));
    Record evaluation;
    evaluation.kind = "eval";
    evaluation.step = 3;
    sink.write(evaluation.add("loss", 2.0).add("accuracy", 0.75));
    clock.advance(1);
    sink.write(step(4));
  }
  const std::string text = screen.text();

  EXPECT_THAT(text, testing::Not(HasSubstr("step 2/9")));
  EXPECT_THAT(text, HasSubstr("\rstep 3/9"));
  EXPECT_THAT(text, HasSubstr("\x1b[K\neval at step 3: loss 2 accuracy 0.75\n"));
  EXPECT_TRUE(text.ends_with("\x1b[K\n")) << "the last line must be closed";
}

}  // namespace
}  // namespace kamerton::telemetry
