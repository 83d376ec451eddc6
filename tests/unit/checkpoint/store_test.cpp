// SPDX-License-Identifier: Apache-2.0
#include "kamerton/checkpoint/store.h"

#include <cstdlib>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/comm/local_group.h"

#include "state_samples.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::checkpoint {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using test::expect_error;

void save_samples(const fs::path& folder, int world, int64_t step, StoreOptions options = {}) {
  comm::run_local(world, [&](comm::Group group) {
    Store store(folder, group, options);
    SampleShard shard(group.rank(), group.size(), step, true);
    const auto report =
        store.save(step, shard.slices(), {{"step", step}}, "{\"log_history\": []}\n");
    EXPECT_EQ(report.step, step);
    EXPECT_GT(report.bytes, 1000);
    EXPECT_EQ(report.folder, folder / Store::folder_name(step));
  });
}

/// Loads on `world` ranks; the number of wrong bytes over all ranks.
int64_t load_samples(const fs::path& folder, int world, int64_t step) {
  std::atomic<int64_t> wrong = 0;
  comm::run_local(world, [&](comm::Group group) {
    const Store store(folder, group, {.read_only = true});
    SampleShard shard(group.rank(), group.size(), step, false);
    store.load(step, shard.slices());
    wrong += shard.num_wrong();
  });
  return wrong;
}

TEST(Store, LoadsOnAnyNumberOfRanksWithTheSameBits) {
  for (const int from : {1, 2, 3, 4}) {
    const test::TemporaryFolder folder;
    save_samples(folder.path(), from, 10 + from);
    for (const int to : {1, 2, 3, 4}) {
      EXPECT_EQ(load_samples(folder.path(), to, 10 + from), 0) << from << " -> " << to;
    }
  }
}

TEST(Store, ReadsAnyRangesAndKeepsExtraAndContents) {
  const test::TemporaryFolder folder;
  save_samples(folder.path(), 3, 5, {.program_version = "1.2"});
  const Store store(folder.path(), {}, {.read_only = true});
  std::vector<float> part(31);
  store.read(5, {{"model.embed.weight", storage::DType::F32, {17, 6}, 40, 31, part.data()}});

  const auto* bytes = reinterpret_cast<const unsigned char*>(part.data());
  for (size_t i = 0; i < part.size() * 4; ++i) {
    ASSERT_EQ(bytes[i], sample_byte(0, 5, 160 + i));
  }
  EXPECT_EQ(store.read_extra(5).at("step"), 5);
  const auto contents = store.contents(5);
  EXPECT_EQ(contents.world_size, 3);
  EXPECT_EQ(contents.program_version, "1.2");
  EXPECT_EQ(contents.tensors.size(), sample_tensors().size());
  EXPECT_EQ(
      contents.files,
      (std::vector<std::string>{
          "rank-00000.h5", "rank-00001.h5", "rank-00002.h5", "index.h5", "trainer_state.json"}));
  EXPECT_NO_THROW(store.verify(5));
}

TEST(Store, SaysWhatDoesNotFit) {
  const test::TemporaryFolder folder;
  save_samples(folder.path(), 2, 5);
  const auto refused = [&](std::initializer_list<std::string> parts, auto&& change) {
    expect_error(ErrorKind::Data, parts, [&] {
      comm::run_local(2, [&](comm::Group group) {
        const Store store(folder.path(), group, {.read_only = true});
        SampleShard shard(group.rank(), group.size(), 5, false);
        change(shard.slices());
        store.load(5, shard.slices());
      });
    });
  };
  refused({"does not know", "'count'"}, [](auto& slices) {
    std::erase_if(slices, [](const Slice& s) { return s.name == "count"; });
  });
  refused({"lacks tensor 'other'"}, [](auto& slices) { slices[0].name = "other"; });
  refused({"another dtype", "'model.norm.weight'", "BF16", "F16"},
          [](auto& slices) { slices[1].dtype = storage::DType::F16; });
  refused({"another shape", "'model.embed.weight'", "[17,6]", "[6,17]"}, [](auto& slices) {
    slices[0].shape = {6, 17};
  });
  expect_error(ErrorKind::Data, {"no checkpoint", "step-000006"}, [&] {
    load_samples(folder.path(), 2, 6);
  });
}

TEST(Store, RefusesToSaveWhatIsNotWholeOnEveryRank) {
  const test::TemporaryFolder folder;
  save_samples(folder.path(), 2, 1);
  const auto refused = [&](std::initializer_list<std::string> parts, auto&& change) {
    expect_error(ErrorKind::Internal, parts, [&] {
      comm::run_local(2, [&](comm::Group group) {
        Store store(folder.path(), group);
        SampleShard shard(group.rank(), group.size(), 2, true);
        if (group.rank() == 1) {
          change(shard.slices());
        }
        store.save(2, shard.slices(), {});
      });
    });
    EXPECT_EQ(load_samples(folder.path(), 2, 1), 0);
    EXPECT_FALSE(fs::exists(folder / "step-000002"));
    EXPECT_FALSE(fs::exists(folder / ".saving-step-000002"));
  };
  refused({"'conv'"}, [](auto& slices) {
    std::erase_if(slices, [](const Slice& s) { return s.name == "conv"; });
  });
  refused({"'mask'", "beyond"}, [](auto& slices) { slices[5].length += 1; });
  refused({"'mask'", "twice"}, [](auto& slices) { slices[5].offset -= 1; });
  refused({"'conv'", "without memory"}, [](auto& slices) { slices[3].data = nullptr; });
  refused({"empty"}, [](auto& slices) {
    slices.push_back({"nothing", storage::DType::F32, {0, 4}, 0, 0, nullptr});
  });
}

TEST(Store, KeepsTheLatestAndReplacesAStep) {
  const test::TemporaryFolder folder;
  comm::run_local(2, [&](comm::Group group) {
    Store store(folder.path(), group, {.keep = 2});
    EXPECT_EQ(store.latest(), std::nullopt);
    for (const int64_t step : {1, 2, 3, 3}) {
      SampleShard shard(group.rank(), group.size(), step, true);
      store.save(step, shard.slices(), {{"step", step}});
    }
    EXPECT_EQ(store.list(), (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(store.latest(), 3);
    SampleShard shard(group.rank(), group.size(), 3, false);
    store.load(3, shard.slices());
    EXPECT_EQ(shard.num_wrong(), 0);
    store.remove(3);
    EXPECT_EQ(store.latest(), 2);
  });
  EXPECT_EQ(test::read_text(folder / "LATEST"), "step-000003\n");
}

TEST(Store, HasTheSameBytesForTheSameState) {
  const test::TemporaryFolder first;
  const test::TemporaryFolder second;
  save_samples(first.path(), 2, 9);
  save_samples(second.path(), 2, 9);

  for (const auto& entry : fs::directory_iterator(first / "step-000009")) {
    EXPECT_EQ(test::read_text(entry.path()),
              test::read_text(second / "step-000009" / entry.path().filename().string()))
        << entry.path();
  }
}

TEST(Store, RefusesEveryDamagedByteOfAFile) {
  const test::TemporaryFolder folder;
  save_samples(folder.path(), 2, 4);
  const auto path = folder / "step-000004" / "rank-00001.h5";
  const auto whole = test::read_text(path);
  // Every 7th byte of the metadata at the front, then a sample of the whole file.
  for (size_t i = 0; i < whole.size(); i += i < 2048 ? 7 : whole.size() / 64) {
    auto damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    test::write_text(path, damaged);
    expect_error(ErrorKind::Io, {"rank-00001.h5", "damaged", "digest"}, [&] {
      load_samples(folder.path(), 1, 4);
    });
  }
  for (const size_t size : {whole.size() - 1, whole.size() / 2, size_t{1}, size_t{0}}) {
    test::write_text(path, whole.substr(0, size));
    expect_error(
        ErrorKind::Data,
        {"rank-00001.h5", "wrong size", std::to_string(whole.size()), std::to_string(size)},
        [&] { load_samples(folder.path(), 1, 4); });
  }
  fs::remove(path);
  expect_error(
      ErrorKind::Data, {"rank-00001.h5", "missing"}, [&] { load_samples(folder.path(), 2, 4); });
  expect_error(ErrorKind::Data, {"rank-00001.h5"}, [&] {
    Store(folder.path(), {}, {.read_only = true}).verify(4);
  });
  test::write_text(path, whole);
  EXPECT_EQ(load_samples(folder.path(), 2, 4), 0);
}

TEST(Store, CleansUpAfterAnInterruptedSaveAndFallsBack) {
  const test::TemporaryFolder folder;
  save_samples(folder.path(), 1, 1);
  save_samples(folder.path(), 1, 2);
  fs::create_directories(folder / ".saving-step-000003");
  test::write_text(folder / ".saving-step-000003" / "rank-00000.h5", "half");
  fs::create_directories(folder / ".removing-step-000000");
  test::write_text(folder / "LATEST.tmp", "step-0000");
  fs::resize_file(folder / "step-000002" / "rank-00000.h5", 100);

  Store store(folder.path(), {});
  EXPECT_EQ(store.latest(), 1);
  EXPECT_EQ(store.list(), (std::vector<int64_t>{1}));
  EXPECT_FALSE(fs::exists(folder / ".saving-step-000003"));
  EXPECT_FALSE(fs::exists(folder / ".removing-step-000000"));
  EXPECT_FALSE(fs::exists(folder / "LATEST.tmp"));
}

TEST(Store, ReportsAnOutputThatCannotBe) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "file", "");
  expect_error(ErrorKind::Output, {"file/sub"}, [&] {
    comm::run_local(3, [&](comm::Group group) { Store(folder / "file" / "sub", group); });
  });
  expect_error(ErrorKind::Internal, {"for reading"}, [&] {
    Store(folder.path(), {}, {.read_only = true}).save(1, {}, {});
  });
  expect_error(ErrorKind::Io, {"not enough space", "free", "needed"}, [&] {
    Store(folder.path(), {}).require_space(int64_t{1} << 60);
  });
}

TEST(Store, KeepsThePreviousCheckpointWhenTheDiskIsFull) {
  if (::system("mount -t tmpfs -o size=1m none /mnt 2>/dev/null && umount /mnt") != 0) {
    GTEST_SKIP() << "mounting a small tmpfs is not allowed here (needs root)";
  }
  const test::TemporaryFolder folder;
  ASSERT_EQ(::system(("mount -t tmpfs -o size=20m none " + folder.path().string()).c_str()), 0);
  std::vector<float> large((size_t{3} << 20) / 4 * 4);  // 12 MiB
  save_samples(folder.path(), 2, 1);
  const auto save_large = [&](comm::Group group) {
    Store store(folder.path(), group);
    const auto n = static_cast<int64_t>(large.size());
    std::vector<Slice> slices;
    if (group.rank() == 1) {
      slices.push_back({"large", storage::DType::F32, {n}, 0, n, large.data()});
    }
    store.save(2, slices, {});
  };
  expect_error(
      ErrorKind::Io, {"not enough space", "needed"}, [&] { comm::run_local(2, save_large); });
  EXPECT_EQ(load_samples(folder.path(), 2, 1), 0);
  EXPECT_EQ(::system(("umount " + folder.path().string()).c_str()), 0);
}

TEST(Store, IsReadableByH5pyAsWholeTensors) {
  if (::system("/usr/bin/python3 -c 'import h5py' 2>/dev/null") != 0) {
    GTEST_SKIP() << "/usr/bin/python3 has no h5py";
  }
  const test::TemporaryFolder folder;
  save_samples(folder.path(), 3, 6);
  test::write_text(folder / "look.py", R"(
import h5py, sys
f = h5py.File(sys.argv[1], 'r')
def expected(t, n): return bytes(((t*59 + 6*31 + b*7 + (b >> 8)) & 255) for b in range(n))
w = f['model.embed.weight']; assert w.shape == (17, 6), w.shape
assert w[:].tobytes() == expected(0, 17*6*4)
assert f['exp_avg/model.embed.weight'][:].tobytes() == expected(2, 17*6*4)
c = f['conv']; assert c.shape == (2, 3, 4, 3) and c.dtype == 'float16' and c[:].tobytes() == expected(3, 72*2)
assert f['count'].shape == (1,)
assert f['mask'].dtype == bool and f['mask'][:].tobytes() == bytes(b & 1 for b in expected(5, 9))
assert f['model.norm.weight'].shape == (5,)
r = h5py.File(sys.argv[1].replace('index', 'rank-00001'), 'r')
assert list(r['model.embed.weight'].attrs['shape']) == [17, 6] and list(r['model.embed.weight'].attrs['slices']) == [34, 34]
)");
  const auto command = "/usr/bin/python3 " + (folder / "look.py").string() + " " +
                       (folder / "step-000006" / "index.h5").string();
  EXPECT_EQ(::system(command.c_str()), 0);
}

}  // namespace
}  // namespace kamerton::checkpoint
