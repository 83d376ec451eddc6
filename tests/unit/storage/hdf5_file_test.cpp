// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/hdf5_file.h"

#include <cstdlib>
#include <fstream>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;
using test::expect_error;

std::vector<float> counted(size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 0.5F);
  return values;
}

void write_sample(const std::filesystem::path& path) {
  const auto values = counted(100);
  auto file = Hdf5File::create(path);
  file.create_dataset("exp_avg/model.norm.weight", DType::F32, 100);
  file.write("exp_avg/model.norm.weight", DType::F32, 40, 60, values.data() + 40);
  file.write("exp_avg/model.norm.weight", DType::F32, 0, 40, values.data());
  file.create_dataset("none", DType::I64, 0);
  file.set_attribute("", "program", "kamerton");
  file.set_attribute("none", "shape", std::vector<int64_t>{3, -1, int64_t{1} << 40});
  file.set_attribute("none", "nothing", std::vector<int64_t>{});
  file.set_attribute("none", "note", "");
  file.close();
}

TEST(Hdf5File, GivesBackWhatWasWritten) {
  const test::TemporaryFolder folder;
  write_sample(folder / "x.h5");
  auto file = Hdf5File::open(folder / "x.h5");
  std::vector<float> part(20);
  file.read("exp_avg/model.norm.weight", DType::F32, 30, 20, part.data());

  EXPECT_EQ(part[0], 30.5F);
  EXPECT_EQ(part[19], 49.5F);
  EXPECT_EQ(file.length("none"), 0);
  EXPECT_EQ(file.text_attribute("", "program"), "kamerton");
  EXPECT_EQ(file.text_attribute("none", "note"), "");
  EXPECT_EQ(file.integer_attribute("none", "shape"),
            (std::vector<int64_t>{3, -1, int64_t{1} << 40}));
  EXPECT_TRUE(file.integer_attribute("none", "nothing").empty());
  file.close();
}

TEST(Hdf5File, HasTheSameBytesInEveryRun) {
  const test::TemporaryFolder folder;
  write_sample(folder / "a.h5");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5's times have seconds
  write_sample(folder / "b.h5");

  EXPECT_EQ(test::read_text(folder / "a.h5"), test::read_text(folder / "b.h5"));
}

TEST(Hdf5File, KeepsEveryTypeToTheBit) {
  const test::TemporaryFolder folder;
  constexpr int64_t kLength = 64;
  for (int i = 0; i <= static_cast<int>(DType::Bool); ++i) {
    const auto dtype = static_cast<DType>(i);
    const auto path = folder / ("t" + std::to_string(i));
    std::vector<unsigned char> bytes(kLength * size_of(dtype));
    for (size_t j = 0; j < bytes.size(); ++j) {
      bytes[j] = static_cast<unsigned char>(dtype == DType::Bool ? j % 2 : j * 89 + 3);
    }
    auto writer = Hdf5File::create(path);
    writer.create_dataset("x", dtype, kLength);
    writer.write("x", dtype, 0, kLength, bytes.data());
    writer.close();

    auto reader = Hdf5File::open(path);
    std::vector<unsigned char> back(bytes.size());
    reader.read("x", dtype, 0, kLength, back.data());
    EXPECT_EQ(back, bytes) << name_of(dtype);
    const auto other = dtype == DType::F32 ? DType::I32 : DType::F32;
    std::vector<float> wrong(kLength);
    expect_error(ErrorKind::Data, {"'x'", "another type"}, [&] {
      reader.read("x", other, 0, kLength, wrong.data());
    });
  }
}

TEST(Hdf5File, RefusesBadNamesRangesAndFiles) {
  const test::TemporaryFolder folder;
  auto file = Hdf5File::create(folder / "x.h5");
  for (const std::string name : {"", "/a", "a/", "a//b", ".", "a/../b", "./a"}) {
    expect_error(ErrorKind::Data, {"a name that HDF5 cannot hold"}, [&] {
      file.create_dataset(name, DType::F32, 1);
    });
  }
  file.create_dataset("a", DType::F32, 4);
  expect_error(ErrorKind::Io, {"x.h5", "'a'"}, [&] { file.create_dataset("a", DType::F32, 4); });
  expect_error(
      ErrorKind::Io, {"x.h5", "'a/b'"}, [&] { file.create_dataset("a/b", DType::F32, 4); });
  file.close();

  auto reader = Hdf5File::open(folder / "x.h5");
  std::vector<float> values(8);
  expect_error(
      ErrorKind::Data, {"shorter"}, [&] { reader.read("a", DType::F32, 1, 4, values.data()); });
  expect_error(
      ErrorKind::Data, {"shorter"}, [&] { reader.read("a", DType::F32, -1, 4, values.data()); });
  expect_error(ErrorKind::Io, {"'b'"}, [&] { reader.read("b", DType::F32, 0, 4, values.data()); });
  expect_error(ErrorKind::Io, {"'a'"}, [&] { reader.text_attribute("a", "missing"); });
  test::write_text(folder / "text", "this is no HDF5 file at all");
  expect_error(ErrorKind::Io, {"text"}, [&] { Hdf5File::open(folder / "text"); });
  expect_error(ErrorKind::Data, {"gone"}, [&] { Hdf5File::open(folder / "gone"); });
  expect_error(ErrorKind::Output, {"none/x"}, [&] { Hdf5File::create(folder / "none" / "x"); });
}

TEST(Hdf5File, RefusesLinksAndLayoutsThatReachElsewhere) {
  const test::TemporaryFolder folder;
  write_sample(folder / "data.h5");
  auto index = Hdf5File::create(folder / "index.h5");
  index.create_virtual_dataset(
      "v", DType::F32, {100}, {{"data.h5", "exp_avg/model.norm.weight", 100, 0, {0}, {100}}});
  index.close();

  auto reader = Hdf5File::open(folder / "index.h5");
  std::vector<float> values(100);
  expect_error(ErrorKind::Data, {"'v'", "stored in another way"}, [&] {
    reader.read("v", DType::F32, 0, 100, values.data());
  });
}

TEST(Hdf5File, IsUsableFromManyThreads) {
  const test::TemporaryFolder folder;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { write_sample(folder / ("x" + std::to_string(i))); });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(test::read_text(folder / "x0"), test::read_text(folder / "x3"));
}

TEST(Hdf5File, ReportsAFullDiskAndStaysUsable) {
  // Every write to /dev/full fails with ENOSPC; HDF5 will not create its file there, so the file is
  // a small limit instead.
  if (::system("mount -t tmpfs -o size=1m none /mnt 2>/dev/null && umount /mnt") != 0) {
    GTEST_SKIP() << "mounting a small tmpfs is not allowed here (needs root)";
  }
  const test::TemporaryFolder folder;
  const auto mount = "mount -t tmpfs -o size=1m none " + folder.path().string();
  ASSERT_EQ(::system(mount.c_str()), 0);
  const auto values = counted(1 << 20);
  {
    auto file = Hdf5File::create(folder / "x.h5");
    file.create_dataset("a", DType::F32, 1 << 20);
    expect_error(ErrorKind::Io, {"no space", "x.h5", "needed", "free"}, [&] {
      file.write("a", DType::F32, 0, 1 << 20, values.data());
      file.close();
    });
  }
  std::filesystem::remove(folder / "x.h5");
  EXPECT_NO_THROW(write_sample(folder / "small.h5"));
  ASSERT_EQ(::system(("umount " + folder.path().string()).c_str()), 0);
}

}  // namespace
}  // namespace kamerton::storage
