// SPDX-License-Identifier: Apache-2.0
// Manifest, boxes, commit protocol and lock: the parts that know no ranks.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "payload/commit.h"
#include "payload/index_file.h"
#include "payload/run_lock.h"
#include "support/expect_error.h"
#include "support/faulty_filesystem.h"
#include "support/memory_filesystem.h"
#include "support/temporary_folder.h"

namespace kamerton::checkpoint {
namespace {

using core::ErrorKind;
using test::expect_error;

Manifest sample_manifest(int64_t step) {
  RankPart first{{"rank-00000.h5", 10, std::string(64, 'a')},
                 {{"a", storage::DType::F32, {2, 3}, {{0, 0, 4, 0}}},
                  {"b", storage::DType::I64, {}, {{0, 0, 1, 0}}}}};
  RankPart second{{"rank-00001.h5", 20, std::string(64, 'b')},
                  {{"a", storage::DType::F32, {2, 3}, {{0, 4, 2, 0}}}}};
  auto manifest = assemble(
      {parse_rank_part(to_text(first), "rank 0"), parse_rank_part(to_text(second), "rank 1")});
  manifest.step = step;
  manifest.program_version = "1 \"quoted\"";
  manifest.extra = {{"position", 12}, {"nested", {{"x", {1.5, nullptr}}}}};
  return manifest;
}

TEST(Manifest, GoesThereAndBack) {
  const auto text = to_text(sample_manifest(7));
  const auto back = parse_manifest(text, "m");

  EXPECT_EQ(to_text(back), text);
  EXPECT_EQ(back.world_size, 2);
  EXPECT_EQ(back.find("a")->pieces[1].file, 1);
  EXPECT_EQ(back.find("a")->pieces[1].offset, 4);
  EXPECT_EQ(back.find("a")->pieces[1].at, 0);
  EXPECT_EQ(back.find("aa"), nullptr);
  EXPECT_EQ(back.extra.at("position"), 12);
}

TEST(Manifest, RefusesEveryFlippedBitAndEveryTruncation) {
  const auto text = to_text(sample_manifest(7));
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      auto damaged = text;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      EXPECT_THROW(parse_manifest(damaged, "m"), core::Error) << i << " " << bit;
    }
    EXPECT_THROW(parse_manifest(text.substr(0, i), "m"), core::Error) << i;
  }
  EXPECT_THROW(parse_manifest(text + " ", "m"), core::Error);
}

TEST(Manifest, NamesAnotherFormatVersion) {
  auto text = to_text(sample_manifest(7));
  text.replace(text.find("\"version\":1"), 11, "\"version\":9");
  expect_error(ErrorKind::Data, {"another version", "9"}, [&] { parse_manifest(text, "m"); });
}

TEST(Manifest, RefusesGapsDoublesAndDisagreement) {
  const auto part = [](std::vector<Piece> pieces, std::vector<int64_t> shape = {10}) {
    return RankPart{{"r", 1, std::string(64, 'a')},
                    {{"t", storage::DType::F32, std::move(shape), std::move(pieces)}}};
  };
  expect_error(ErrorKind::Internal, {"'t'"}, [&] {
    assemble({part({{0, 0, 4, 0}}), part({{0, 5, 5, 0}})});
  });
  expect_error(ErrorKind::Internal, {"'t'"}, [&] {
    assemble({part({{0, 0, 6, 0}}), part({{0, 5, 5, 0}})});
  });
  expect_error(ErrorKind::Internal, {"'t'", "not complete"}, [&] {
    assemble({part({{0, 0, 9, 0}})});
  });
  expect_error(ErrorKind::Internal, {"'t'", "disagree"}, [&] {
    assemble({part({{0, 0, 4, 0}}), part({{0, 4, 6, 0}}, {2, 5})});
  });
  EXPECT_NO_THROW(assemble({part({{0, 4, 6, 0}}), part({{0, 0, 4, 0}})}));
}

TEST(Boxes, CoverExactlyTheRangeInOrder) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{}, {7}, {3, 4}, {2, 3, 4}, {1, 5, 1, 2}, {2, 2, 2, 2}}) {
    int64_t n = 1;
    for (const auto dim : shape) {
      n *= dim;
    }
    const auto dims = shape.empty() ? std::vector<int64_t>{1} : shape;
    for (int64_t begin = 0; begin <= n; ++begin) {
      for (int64_t end = begin; end <= n; ++end) {
        std::vector<int64_t> seen;
        const auto boxes = boxes_of(shape, begin, end - begin);
        EXPECT_LE(boxes.size(), 2 * dims.size() - 1);
        for (const auto& box : boxes) {
          std::vector<int64_t> at(dims.size(), 0);
          for (bool more = true; more;) {
            int64_t flat = 0;
            for (size_t i = 0; i < dims.size(); ++i) {
              ASSERT_LT(box.start[i] + at[i], dims[i]);
              flat = flat * dims[i] + box.start[i] + at[i];
            }
            seen.push_back(flat);
            size_t dim = dims.size();
            while (dim > 0 && ++at[dim - 1] == box.count[dim - 1]) {
              at[--dim] = 0;
            }
            more = dim > 0;
          }
        }
        ASSERT_EQ(static_cast<int64_t>(seen.size()), end - begin);
        for (size_t i = 0; i < seen.size(); ++i) {
          ASSERT_EQ(seen[i], begin + static_cast<int64_t>(i));
        }
      }
    }
  }
}

TEST(StepName, IsStrict) {
  EXPECT_EQ(step_name(800), "step-000800");
  EXPECT_EQ(step_name(12345678), "step-12345678");
  EXPECT_EQ(parse_step_name("step-000800"), 800);
  for (const std::string bad : {"step-800",
                                "step-0000800",
                                "step--00001",
                                "step-",
                                "step-00080x",
                                "Step-000800",
                                ".saving-step-000800"}) {
    EXPECT_EQ(parse_step_name(bad), std::nullopt) << bad;
  }
}

/// Saves a manifest whose files are short texts; the protocol does not care what they hold.
void save_step(storage::FileSystem& files, int64_t step, int64_t keep) {
  const std::filesystem::path root = "/run/checkpoints";
  auto manifest = sample_manifest(step);
  begin_save(files, root, step);
  for (auto& file : manifest.files) {
    const std::string text = file.name + " of step " + std::to_string(step);
    file.size = text.size();
    files.write_file(staging_folder(root, step) / file.name, text);
  }
  publish_save(files, root, manifest);
  prune(files, root, step, keep);
}

TEST(Commit, KeepsTheNewestAndNamesTheLatest) {
  test::MemoryFileSystem files;
  files.make_directories("/run/checkpoints");
  for (const int64_t step : {10, 20, 30}) {
    save_step(files, step, 2);
  }

  EXPECT_EQ(complete_steps(files, "/run/checkpoints"), (std::vector<int64_t>{20, 30}));
  EXPECT_EQ(latest_step(files, "/run/checkpoints"), 30);
  save_step(files, 25, 2);  // another history: resumed from 20
  EXPECT_EQ(complete_steps(files, "/run/checkpoints"), (std::vector<int64_t>{20, 25, 30}));
  EXPECT_EQ(latest_step(files, "/run/checkpoints"), 25);
}

TEST(Commit, FallsBackWhenLatestIsDamagedMissingOrDangling) {
  test::MemoryFileSystem files;
  const std::filesystem::path root = "/run/checkpoints";
  files.make_directories(root);
  EXPECT_EQ(latest_step(files, root), std::nullopt);
  save_step(files, 1, 0);
  save_step(files, 2, 0);
  save_step(files, 3, 0);

  files.write_file(root / "step-000003" / "rank-00001.h5", "cut");
  EXPECT_EQ(latest_step(files, root), 2);
  files.write_file(root / "LATEST", "../../etc/passwd\n");
  EXPECT_EQ(latest_step(files, root), 2);
  files.remove_all(root / "LATEST");
  EXPECT_EQ(latest_step(files, root), 2);
  files.remove_all(root / "step-000002" / "manifest.json");
  EXPECT_EQ(latest_step(files, root), 1);
}

/// Every change fails once, or it and all after it: what is there afterwards must load, before and
/// after recovery.
TEST(Commit, AFailureAtAnyChangeLeavesACompleteCheckpoint) {
  const std::filesystem::path root = "/run/checkpoints";
  for (const int64_t next : {2, 1}) {  // a new step, and the same one again
    for (const bool forever : {false, true}) {
      int fail_at = 0;
      for (bool failed = true; failed; ++fail_at) {
        ASSERT_LT(fail_at, 100);
        test::MemoryFileSystem files;
        files.make_directories(root);
        save_step(files, 1, 1);
        test::FaultyFileSystem faulty(files, fail_at, forever);
        std::string text;
        try {
          save_step(faulty, next, 1);
        } catch (const core::Error& error) {
          text = error.what();
          abandon_save(faulty, root, next);
        }
        failed = faulty.num_changes() > fail_at;
        recover(files, root);
        const auto latest = latest_step(files, root);
        ASSERT_TRUE(latest.has_value()) << fail_at << " " << text;
        EXPECT_EQ(fault_of(files, root, *latest), std::nullopt);
        if (text.find("outcome unknown") != std::string::npos) {
          EXPECT_EQ(fault_of(files, root, 1), std::nullopt) << "the older one must stay";
        }
        for (const auto& name : files.list(root)) {
          EXPECT_TRUE(name == "LATEST" || parse_step_name(name))
              << name << " was left behind at " << fail_at;
        }
      }
      EXPECT_GT(fail_at, 8);
    }
  }
}

TEST(RunLock, IsHeldByOneAndReleased) {
  const test::TemporaryFolder folder;
  {
    RunLock lock(folder.path(), "", 900);
    lock.renew();
    expect_error(ErrorKind::Output, {"another run", folder.path().string()}, [&] {
      RunLock(folder.path(), "", 900);
    });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_NO_THROW(RunLock(folder.path(), "", 900));
}

std::string lock_of(const std::string& host,
                    const std::string& boot,
                    int64_t pid,
                    const std::string& owner) {
  const core::Json json = {
      {"pid", pid}, {"started", "1"}, {"host", host}, {"boot_id", boot}, {"owner", owner}};
  return json.dump();
}

TEST(RunLock, IsTakenOverFromTheDeadOnly) {
  const test::TemporaryFolder folder;
  const auto path = folder / ".lock";
  std::string host(256, '\0');
  ::gethostname(host.data(), host.size());
  host.resize(host.find('\0'));
  auto boot = test::read_text("/proc/sys/kernel/random/boot_id");
  boot.pop_back();
  const auto taken =
      [&](const std::string& text, const std::string& owner = "", int64_t lease_s = 900) {
        test::write_text(path, text);
        try {
          RunLock lock(folder.path(), owner, lease_s);
          return true;
        } catch (const core::Error&) {
          return false;
        }
      };
  EXPECT_TRUE(taken("not JSON"));
  EXPECT_TRUE(taken(lock_of(host, "before", 1, "")));
  EXPECT_TRUE(taken(lock_of(host, boot, ::getpid(), "")))
      << "same pid, but started at another time";
  EXPECT_TRUE(taken(lock_of(host, boot, 1 << 22, "")));
  EXPECT_FALSE(taken(lock_of("elsewhere", boot, 1, "")));
  EXPECT_FALSE(taken(lock_of("elsewhere", boot, 1, "job-7"), "job-8"));
  EXPECT_TRUE(taken(lock_of("elsewhere", boot, 1, "job-7"), "job-7"));
  EXPECT_TRUE(taken(lock_of("elsewhere", boot, 1, ""), "", -1)) << "lease over";
  RunLock lock(folder.path(), "", 900);
  test::write_text(path, lock_of("elsewhere", boot, 1, ""));
  expect_error(ErrorKind::Output, {"taken over"}, [&] { lock.renew(); });
}

}  // namespace
}  // namespace kamerton::checkpoint
