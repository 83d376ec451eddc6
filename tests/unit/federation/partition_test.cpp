// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/partition.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

constexpr int64_t kRecords = 2000;

std::vector<std::string> labels() {
  std::vector<std::string> list;
  for (int64_t i = 0; i < kRecords; ++i) {
    list.push_back("label" + std::to_string(i % 5));
  }
  return list;
}

PartitionConfig cut(const std::string& kind, double alpha = 0.5) {
  PartitionConfig config;
  config.kind = kind;
  config.sites = 8;
  config.alpha = alpha;
  return config;
}

std::map<int64_t, int64_t> sizes_of(const std::vector<int64_t>& owner) {
  std::map<int64_t, int64_t> sizes;
  for (const int64_t site : owner) {
    ++sizes[site];
  }
  return sizes;
}

TEST(Partition, AtRandomSizesAreEqual) {
  const auto owner = partition(cut("iid"), kRecords, {}, 1);
  for (const auto& [site, size] : sizes_of(owner)) {
    EXPECT_EQ(size, kRecords / 8) << site;
  }
  EXPECT_EQ(owner, partition(cut("iid"), kRecords, {}, 1));
  EXPECT_NE(owner, partition(cut("iid"), kRecords, {}, 2));
}

/// The mean over sites of the share of the most frequent label.
double skew(double alpha) {
  const auto names = labels();
  const auto owner = partition(cut("dirichlet", alpha), kRecords, names, 3);
  std::map<int64_t, std::map<std::string, double>> counts;
  for (size_t i = 0; i < owner.size(); ++i) {
    ++counts[owner[i]][names[i]];
  }
  EXPECT_EQ(counts.size(), 8U) << "every site has something";
  double sum = 0;
  for (const auto& [site, by_label] : counts) {
    double most = 0;
    double all = 0;
    for (const auto& [label, count] : by_label) {
      most = std::max(most, count);
      all += count;
    }
    sum += most / all;
  }
  return sum / static_cast<double>(counts.size());
}

TEST(Partition, SmallAlphaMakesSitesDiffer) {
  const double uneven = skew(0.1);
  const double even = skew(100);
  EXPECT_GT(uneven, 0.55);
  EXPECT_LT(even, 0.30) << "1 of 5 labels each";
}

TEST(Partition, SizesDiffer) {
  const auto sizes = sizes_of(partition(cut("size", 0.3), kRecords, {}, 4));
  ASSERT_EQ(sizes.size(), 8U);
  const auto [least, most] = std::minmax_element(
      sizes.begin(), sizes.end(), [](auto& a, auto& b) { return a.second < b.second; });
  EXPECT_GT(most->second, 4 * least->second);
}

TEST(Partition, FilesHoldEveryRecordOnce) {
  const test::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 40; ++i) {
    text +=
        "{\"text\": \"t" + std::to_string(i) + "\", \"label\": " + std::to_string(i % 2) + "}\n";
  }
  test::write_text(folder / "all.jsonl", text);
  const auto sites =
      write_partition(cut("dirichlet"), {(folder / "all.jsonl").string()}, folder / "cut", 5);
  ASSERT_EQ(sites.size(), 8U);
  size_t bytes = 0;
  for (const SiteConfig& site : sites) {
    const std::string part = test::read_text(site.train[0]);
    EXPECT_FALSE(part.empty());
    bytes += part.size();
  }
  EXPECT_EQ(bytes, text.size());
  PartitionConfig wrong = cut("dirichlet");
  wrong.label = "kind";
  test::expect_error(core::ErrorKind::Data, {"no label", "'kind'"}, [&] {
    write_partition(wrong, {(folder / "all.jsonl").string()}, folder / "cut", 5);
  });
}

TEST(Partition, TooFewRecordsAreSaid) {
  test::expect_error(
      core::ErrorKind::Config, {"too few records"}, [] { partition(cut("iid"), 5, {}, 1); });
}

}  // namespace
}  // namespace kamerton::federation
