// SPDX-License-Identifier: Apache-2.0
// Masked rounds through the coordinator: exact sums, dropouts at every step, restarts, liars.
#include <algorithm>
#include <cmath>
#include <map>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/log.h"
#include "kamerton/core/random.h"
#include "kamerton/federation/codec.h"
#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/secure_site.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/privacy/keys.h"

#include "support/expect_error.h"
#include "support/manual_clock.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

constexpr int64_t kSize = 3000;
const std::vector<std::string> kNames = {"a", "b", "c", "d", "e"};

privacy::SigningKey key_of(const std::string& name) {
  const storage::Digest digest = storage::digest_of("test identity " + name);
  return privacy::SigningKey(privacy::Secret(std::span<const uint8_t, 32>(digest)));
}

privacy::SecureSite member(const std::string& name) {
  return {static_cast<uint32_t>(name[0]), name, key_of(name).public_key()};
}

std::vector<uint32_t> plain_update(const std::string& name) {
  std::vector<float> values(kSize);
  const core::RandomStream random(4, "test." + name);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(0.2 * random.normal(i));
  }
  UpdateConfig config;
  config.encoding = "ring32";
  const auto codec = make_codec(config, 8);
  std::vector<uint32_t> words(kSize);
  for (int64_t at = 0; at < kSize; at += kBlock) {
    const auto begin = static_cast<size_t>(at);
    const auto count = static_cast<size_t>(std::min(kBlock, kSize - at));
    codec->encode(std::span(values).subspan(begin, count),
                  at / kBlock,
                  std::as_writable_bytes(std::span(words).subspan(begin, count)));
  }
  return words;
}

CoordinatorOptions options_in(const std::filesystem::path& folder) {
  FederationConfig config;
  config.rounds = 1;
  config.eval_every = 0;
  config.weights = "uniform";
  config.cohort.start_sites = 5;
  config.cohort.min_sites = 3;
  config.cohort.deadline_s = 50;
  config.update.encoding = "ring32";
  config.privacy.secure_aggregation = true;
  return {.folder = folder,
          .run = "run",
          .digest = "digest",
          .config = config,
          .lora = false,
          .seed = 1,
          .member = member};
}

/// Sites and coordinator of one masked round; sites fall silent where a test says so.
class Round {
 public:
  Round() {
    core::configure_log(0, 1, core::LogLevel::Error);
    restart();
    for (const std::string& name : kNames) {
      core_->join({name, "run", "digest", Layout({{"w", {kSize}}}, 1).to_json().dump()});
    }
    settle();
  }

  void restart() {
    core_.reset();
    core_ = std::make_unique<Coordinator>(options_in(folder_ / "coordinator"), clock_);
  }
  void settle() {
    while (core_->tick()) {
    }
  }
  void pass_deadline() {
    clock_.advance(51);
    settle();
  }
  Coordinator& core() { return *core_; }
  SecureSite site(const std::string& name) {
    return SecureSite(
        folder_ / ("site-" + name), core_->task(name).secure_round, name, key_of(name), {});
  }
  std::optional<std::string> ask(const std::string& name,
                                 SecureStep step,
                                 const std::string& message) {
    return core_->secure(name, 0, step, message);
  }
  void advert(const std::string& name) { ask(name, SecureStep::Advert, site(name).advert()); }
  void shares(const std::string& name) {
    SecureSite own = site(name);
    const auto book = ask(name, SecureStep::Advert, own.advert());
    ASSERT_TRUE(book.has_value());
    ask(name, SecureStep::Shares, own.shares(*book));
  }
  void upload(const std::string& name) {
    SecureSite own = site(name);
    const auto book = ask(name, SecureStep::Advert, own.advert());
    const auto delivery = ask(name, SecureStep::Shares, own.shares(*book));
    ASSERT_TRUE(delivery.has_value());
    own.receive(*delivery);
    std::vector<uint32_t> words = plain_update(name);
    const auto plain = storage::digest_of(std::as_bytes(std::span(words)));
    own.masks(plain).apply(std::span<uint32_t>(words), 0);
    uploaded_[name] = words;
    const auto bytes = std::as_bytes(std::span(words));
    core_->receive(name, 0, 0, 1, 0, bytes);
    Submission submission;
    submission.site = name;
    submission.digest = storage::to_hex(storage::digest_of(bytes));
    submission.bytes = static_cast<int64_t>(bytes.size());
    EXPECT_EQ(core_->submit(submission).verdict, Verdict::Accept);
  }
  void vote(const std::string& name) {
    const auto survivors = ask(name, SecureStep::Survivors, "");
    ASSERT_TRUE(survivors.has_value());
    votes_[name] = site(name).vote(*survivors);
    ask(name, SecureStep::Vote, votes_[name]);
  }
  void reveal(const std::string& name) {
    const auto book = ask(name, SecureStep::Vote, votes_[name]);
    ASSERT_TRUE(book.has_value());
    ask(name, SecureStep::Reveal, site(name).reveal(*book));
  }
  void all(const std::vector<std::string>& names, void (Round::*step)(const std::string&)) {
    for (const std::string& name : names) {
      (this->*step)(name);
    }
    settle();
  }
  std::vector<float> model() const {
    std::vector<float> values(kSize);
    RangeFile::open(folder_ / "coordinator/models/round-000001.f32", 4 * kSize)
        .read(0, std::span(values));
    return values;
  }
  const std::vector<uint32_t>& uploaded(const std::string& name) { return uploaded_[name]; }
  static std::vector<float> mean_of(const std::vector<std::string>& names) {
    std::vector<uint32_t> sum(kSize, 0);
    for (const std::string& name : names) {
      const std::vector<uint32_t> words = plain_update(name);
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] += words[i];
      }
    }
    std::vector<float> mean(kSize);
    for (size_t i = 0; i < sum.size(); ++i) {
      mean[i] = ring_mean(sum[i], static_cast<int64_t>(names.size()), 1.0);
    }
    return mean;
  }

 private:
  test::TemporaryFolder folder_;
  support::ManualClock clock_;
  std::unique_ptr<Coordinator> core_;
  std::map<std::string, std::string> votes_;
  std::map<std::string, std::vector<uint32_t>> uploaded_;
};

const std::vector<std::string> kWithoutE = {"a", "b", "c", "d"};

TEST(SecureRound, TheSumOfMaskedUpdatesIsThePlainSum) {
  Round round;
  for (const auto step :
       {&Round::advert, &Round::shares, &Round::upload, &Round::vote, &Round::reveal}) {
    round.all(kNames, step);
  }
  EXPECT_EQ(round.model(), Round::mean_of(kNames));
  const std::vector<uint32_t> plain = plain_update("a");
  size_t same = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    same += plain[i] == round.uploaded("a")[i] ? 1 : 0;
  }
  EXPECT_LT(same, 3U) << "the coordinator has seen noise";
}

TEST(SecureRound, ARestartAfterAnyStepGoesOn) {
  for (size_t stop = 0; stop < 5; ++stop) {
    Round round;
    size_t number = 0;
    for (const auto step :
         {&Round::advert, &Round::shares, &Round::upload, &Round::vote, &Round::reveal}) {
      for (const std::string& name : kNames) {
        (round.*step)(name);
        if (number == stop && name == "c") {
          round.restart();
        }
      }
      round.settle();
      ++number;
    }
    EXPECT_EQ(round.model(), Round::mean_of(kNames)) << stop;
  }
}

TEST(SecureRound, ASiteThatFallsOutAtAnyStepIsSurvived) {
  const std::vector<void (Round::*)(const std::string&)> steps = {
      &Round::advert, &Round::shares, &Round::upload, &Round::vote, &Round::reveal};
  for (size_t lost = 0; lost < steps.size(); ++lost) {
    Round round;
    for (size_t i = 0; i < steps.size(); ++i) {
      round.all(i < lost ? kNames : kWithoutE, steps[i]);
      // A survivor that did not vote may still help to unmask: it is waited for again.
      if (i == lost || (lost == 3 && i == 4)) {
        round.pass_deadline();
      }
    }
    // One whose masked update has arrived counts, even if it cannot help to unmask.
    const bool counts = lost > 2;
    EXPECT_EQ(round.model(), Round::mean_of(counts ? kNames : kWithoutE))
        << "lost in step " << lost;
  }
}

TEST(SecureRound, ASiteThatLeavesIsNotWaitedFor) {
  Round round;
  round.core().leave("e", "its privacy budget is spent");
  for (const auto step :
       {&Round::advert, &Round::shares, &Round::upload, &Round::vote, &Round::reveal}) {
    round.all(kWithoutE, step);
  }
  EXPECT_EQ(round.model(), Round::mean_of(kWithoutE));
  EXPECT_EQ(round.core().task("e").kind, Task::Kind::Done) << "the result is for it, too";
  EXPECT_NO_THROW(round.core().leave("e", "said again"));
}

TEST(SecureRound, WhenTooManyLeaveTheRoundEndsAtOnce) {
  Round round;
  round.advert("a");
  for (const char* site : {"c", "d", "e"}) {
    round.core().leave(site, "test");
  }
  round.settle();
  EXPECT_NE(round.core().task("a").kind, Task::Kind::Train);
  EXPECT_TRUE(round.core().stopped()) << "no round can have min_sites any more";
}

TEST(SecureRound, TooFewToUnmaskLeaveTheModelAsItIs) {
  Round round;
  for (const auto step : {&Round::advert, &Round::shares, &Round::upload}) {
    round.all(kNames, step);
  }
  round.all({"a", "b"}, &Round::vote);
  round.pass_deadline();
  EXPECT_TRUE(round.core().task("c").kind != Task::Kind::Train);
  EXPECT_EQ(round.core().status()["round"], 1);
  EXPECT_THROW(round.model(), core::Error);
}

TEST(SecureRound, NobodySpeaksForAnother) {
  Round round;
  const std::string advert = round.site("a").advert();
  test::expect_error(core::ErrorKind::Permission, {"speaks for another"}, [&] {
    round.ask("b", SecureStep::Advert, advert);
  });
  EXPECT_THROW(round.ask("a", SecureStep::Advert, "rubbish"), core::Error);
  EXPECT_THROW(round.core().secure("a", 3, SecureStep::Advert, advert), core::Error);
  round.advert("a");
  const std::vector<uint32_t> words = plain_update("a");
  test::expect_error(core::ErrorKind::Permission, {"awaited"}, [&] {
    round.core().receive("a", 0, 0, 1, 0, std::as_bytes(std::span(words)));
  });
}

}  // namespace
}  // namespace kamerton::federation
