// SPDX-License-Identifier: Apache-2.0
// A token store made from a small file, and the batches with and without it.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/data/prepare.h"
#include "kamerton/data/stream.h"

#include "support.h"
#include "token_store.h"

namespace kamerton::data {

inline std::string chats(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const core::Json record = {
        {"messages",
         core::Json::array(
             {{{"role", "user"}, {"content", "q" + std::string(static_cast<size_t>(i % 7), 'x')}},
              {{"role", "assistant"}, {"content", "a" + std::to_string(i)}},
              {{"role", "user"}, {"content", "and"}},
              {{"role", "assistant"}, {"content", "b"}}})}};
    text += record.dump() + "\n";
  }
  return text;
}

class Store : public testing::Test {
 protected:
  void SetUp() override {
    config.train = {scratch.write("train.jsonl", chats(50))};
    config.store_dir = scratch / "stores";
    config.index_dir = scratch / "index";
    config.batch_rows = 4;
  }
  PrepareReport prepare(int ranks = 1, int64_t part_bytes = 700) {
    std::vector<StorePreparation> work;
    for (int rank = 0; rank < ranks; ++rank) {
      work.emplace_back(config, false, bundle, 4096, part_bytes);
    }
    if (work[0].begin(2)) {
      return {.folder = work[0].folder()};
    }
    made = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      made += work[static_cast<size_t>(rank)].make_parts(rank, ranks, 2);
    }
    return work[0].publish();
  }
  TokenStore open(const std::filesystem::path& folder) const {
    const auto manifest = read_manifest(folder);
    return TokenStore::open(folder, manifest ? manifest->key.hex : "", 259, fresh_digests(1));
  }
  std::vector<Batch> batches(const std::string& store) const {
    DataConfig with = config;
    with.store = store;
    TrainStream stream(with, 7, bundle, 0, 1, 4096);
    std::vector<Batch> all;
    for (int step = 0; step < 20; ++step) {
      for (Batch& batch : stream.next()) {
        all.push_back(std::move(batch));
      }
    }
    return all;
  }
  void expect_same_batches() const {
    const auto raw = batches("off");
    const auto stored = batches("require");
    ASSERT_EQ(raw.size(), stored.size());
    for (size_t i = 0; i < raw.size(); ++i) {
      EXPECT_EQ(raw[i].tokens, stored[i].tokens);
      EXPECT_EQ(raw[i].targets, stored[i].targets);
      EXPECT_EQ(raw[i].document_offsets, stored[i].document_offsets);
      EXPECT_EQ(raw[i].sample_ids, stored[i].sample_ids);
    }
  }

  Scratch scratch;
  text::TokenizerBundle bundle = byte_bundle(kMarkedTemplate);
  DataConfig config;
  int64_t made = 0;
};

}  // namespace kamerton::data
