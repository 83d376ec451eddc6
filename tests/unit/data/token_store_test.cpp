// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/random.h"
#include "kamerton/storage/hdf5_file.h"

#include "store_fixture.h"
#include "support/byte_mutator.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST_F(Store, GivesTheBatchesOfTheRawFiles) {
  const PrepareReport report = prepare();
  EXPECT_EQ(report.records, 50);
  EXPECT_GT(report.parts, 5);
  expect_same_batches();
  config.packing = true;
  config.sequence_length = 90;
  expect_same_batches();
  config.sequence_length = 40;  // examples are cut
  expect_same_batches();
}

TEST_F(Store, StandsAmongTheDataFilesInPlaceOfTheTexts) {
  const auto raw = batches("off");
  const fs::path folder = prepare().folder;
  fs::remove(config.train[0]);
  config.train = {folder.string()};
  const auto stored = batches("off");
  ASSERT_EQ(raw.size(), stored.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    EXPECT_EQ(raw[i].tokens, stored[i].tokens);
    EXPECT_EQ(raw[i].targets, stored[i].targets);
    EXPECT_EQ(raw[i].sample_ids, stored[i].sample_ids);
  }
  const Dataset set = open_train(config, bundle, 4096);
  EXPECT_EQ(set.summary().layout, "messages");
  EXPECT_EQ(set.summary().train_on, "assistant");
  EXPECT_EQ(set.record(3).kind, Record::Kind::Tokens);
  EXPECT_NE(set.record(3).completion.find("a3"), std::string::npos);
  EXPECT_NE(set.origin(3).find("manifest.json:4"), std::string::npos) << set.origin(3);
  EXPECT_NE(error_of(ErrorKind::Data, [&] { set.question(0); }).find("token store"),
            std::string::npos);
}

TEST_F(Store, AmongTheDataFilesIsRefusedWhereItDoesNotFit) {
  const fs::path folder = prepare().folder;
  const std::string raw = config.train[0];
  config.train = {folder.string()};
  const auto refused = [&](ErrorKind kind) {
    return error_of(kind, [&] { open_train(config, bundle, 4096); });
  };
  bundle = byte_bundle(kPlainTemplate);
  EXPECT_NE(refused(ErrorKind::Data).find("another tokenizer or chat template"), std::string::npos);
  bundle = byte_bundle(kMarkedTemplate);
  config.train_on = "all";
  EXPECT_NE(refused(ErrorKind::Config).find("data.train_on"), std::string::npos);
  config.train_on = "auto";
  config.layout = "text";
  EXPECT_NE(refused(ErrorKind::Config).find("data.layout"), std::string::npos);
  config.layout = "auto";
  config.train.push_back(raw);
  EXPECT_NE(refused(ErrorKind::Data).find("cannot be one source"), std::string::npos);
  config.train = {folder.string()};
  EXPECT_NE(error_of(ErrorKind::Config, [&] { prepare(); }).find("tokens already"),
            std::string::npos);
  fs::resize_file(folder / "part-00000.h5", 100);
  EXPECT_NE(refused(ErrorKind::Data).find("not what its manifest says"), std::string::npos);
}

TEST_F(Store, BytesDoNotDependOnRanksOrThreads) {
  const PrepareReport one = prepare(1);
  std::vector<std::string> before;
  for (int64_t part = 0; part < one.parts; ++part) {
    before.push_back(bytes_of(one.folder / ("part-0000" + std::to_string(part) + ".h5")));
  }
  const std::string manifest = bytes_of(one.folder / kStoreManifest);
  fs::remove_all(one.folder);
  const PrepareReport three = prepare(3);
  EXPECT_EQ(three.folder, one.folder);
  EXPECT_EQ(bytes_of(three.folder / kStoreManifest), manifest);
  for (size_t part = 0; part < before.size(); ++part) {
    EXPECT_EQ(bytes_of(three.folder / ("part-0000" + std::to_string(part) + ".h5")), before[part]);
  }
}

TEST_F(Store, AnotherTemplateTokenizerSettingOrFileMakesAnotherStore) {
  const fs::path first = prepare().folder;
  bundle = byte_bundle(kPlainTemplate);
  const fs::path other_template = prepare().folder;
  EXPECT_NE(first, other_template);
  bundle = byte_bundle(kMarkedTemplate);
  config.template_time += 1;
  EXPECT_NE(prepare().folder, first);
  config.template_time -= 1;
  config.train_on = "all";
  EXPECT_NE(prepare().folder, first);
  config.train_on = "auto";
  scratch.write("train.jsonl", chats(51));
  EXPECT_NE(prepare().folder, first);
  scratch.write("train.jsonl", chats(50));
  EXPECT_EQ(prepare().folder, first);  // made already
  config.sequence_length = 77;
  config.batch_rows = 2;
  config.packing = true;
  EXPECT_EQ(prepare().folder, first);  // what tokens do not depend on
}

TEST_F(Store, AByteChangedInTheMiddleOfTheDataIsNoticed) {
  prepare();
  std::string text = chats(50);
  text[text.size() / 2] ^= 1;
  scratch.write("train.jsonl", text);
  config.on_bad_record = "skip";
  config.store = "require";
  const std::string error = error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); });
  EXPECT_NE(error.find("data prepare"), std::string::npos) << error;
}

TEST_F(Store, KilledWorkGoesOnWhereItStopped) {
  const PrepareReport whole = prepare();
  const fs::path making = whole.folder.string() + ".making";
  fs::rename(whole.folder, making);  // as if killed before the end
  fs::remove(making / kStoreManifest);
  fs::remove(making / "part-00001.h5");    // killed before this one was renamed
  fs::remove(making / "part-00002.json");  // or before its note was
  write_bytes(making / "part-00003.json", "{\"file\": \"par");
  write_bytes(making / "part-00004.h5.77.tmp", "half");
  const PrepareReport again = prepare();
  EXPECT_EQ(made, 3);
  EXPECT_EQ(again.tokens, whole.tokens);
  EXPECT_FALSE(fs::exists(again.folder / "part-00004.h5.77.tmp"));
  expect_same_batches();
}

TEST_F(Store, ADamagedPartIsRefusedAndMendedByPreparing) {
  const PrepareReport report = prepare();
  const fs::path part = report.folder / "part-00002.h5";
  std::string bytes = bytes_of(part);
  bytes[bytes.size() - 9] ^= 4;
  write_bytes(part, bytes);
  const std::string error = error_of(ErrorKind::Data, [&] { batches("auto"); });
  EXPECT_NE(error.find("part-00002.h5"), std::string::npos) << error;
  EXPECT_NE(error.find("damaged"), std::string::npos) << error;
  prepare();
  EXPECT_EQ(made, 1);
  expect_same_batches();
}

TEST_F(Store, TwoPreparationsAtOnceAreRefused) {
  StorePreparation one(config, false, bundle, 4096);
  StorePreparation two(config, false, bundle, 4096);
  one.begin(1);
  const std::string error = error_of(ErrorKind::Output, [&] { two.begin(1); });
  EXPECT_NE(error.find("another process"), std::string::npos);
}

TEST_F(Store, BadRecordsAreSkippedAsFromRawFiles) {
  scratch.write("train.jsonl", chats(20) + "{\"messages\": []}\n" + chats(20));
  config.on_bad_record = "skip";
  EXPECT_EQ(prepare().bad, 1);
  expect_same_batches();
}

TEST_F(Store, PreferencesAndLabelsComeBackAsTheyWere) {
  std::string text;
  for (int i = 0; i < 12; ++i) {
    const core::Json record = {{"prompt", "q" + std::to_string(i) + " "},
                               {"chosen", "yes " + std::string(static_cast<size_t>(i), 'a')},
                               {"rejected", "no"}};
    text += record.dump() + "\n";
  }
  scratch.write("train.jsonl", text);
  const auto compare = [&]() -> Example {
    prepare();
    config.store = "off";
    const Dataset raw = open_train(config, bundle, 4096);
    config.store = "require";
    const Dataset stored = open_train(config, bundle, 4096);
    for (int64_t i = 0; i < raw.size(); ++i) {
      const Example want = raw.get(i);
      const Example have = stored.get(i);
      EXPECT_EQ(want.tokens, have.tokens);
      EXPECT_EQ(want.targets, have.targets);
      EXPECT_EQ(want.label, have.label);
      EXPECT_EQ(want.rejected == nullptr, have.rejected == nullptr);
      if (want.rejected && have.rejected) {
        EXPECT_EQ(want.rejected->tokens, have.rejected->tokens);
        EXPECT_EQ(want.rejected->targets, have.rejected->targets);
      }
    }
    return raw.get(0);
  };
  EXPECT_NE(compare().rejected, nullptr);
  scratch.write("train.jsonl",
                "{\"prompt\": \"a \", \"completion\": \"b\", \"label\": true}\n"
                "{\"prompt\": \"c \", \"completion\": \"d\", \"label\": false}\n");
  EXPECT_EQ(compare().label, true);
}

TEST_F(Store, RequireWithoutAStoreIsAnErrorAndOffIgnoresOne) {
  config.store = "require";
  EXPECT_NE(
      error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); }).find("no token store"),
      std::string::npos);
  prepare();
  config.store = "off";
  const Dataset raw = open_train(config, bundle, 4096);
  EXPECT_EQ(raw.summary().text().find("tokens from"), std::string::npos);
  config.store = "auto";
  const Dataset stored = open_train(config, bundle, 4096);
  EXPECT_NE(stored.summary().text().find("tokens from"), std::string::npos);
  EXPECT_EQ(raw.digest(), stored.digest());
}

TEST_F(Store, AManifestOfAnotherNameIsRefused) {
  const fs::path folder = prepare().folder;
  EXPECT_NE(
      error_of(ErrorKind::Data, [&] { TokenStore::open(folder, "00", 259, fresh_digests(1)); })
          .find("something else"),
      std::string::npos);
}

/// Cases of the fuzz tests: 100,000 and more by environment, fewer by default.
uint64_t fuzz_cases(uint64_t otherwise) {
  const char* given = std::getenv("KAMERTON_FUZZ_CASES");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
}

class StoreFuzz : public Store {
 protected:
  /// A store of one small part, its manifest, and a folder to damage copies in.
  void SetUp() override {
    Store::SetUp();
    config.train = {scratch.write("train.jsonl", chats(6))};
    folder = prepare(1, 1 << 20).folder;
    manifest = *read_manifest(folder);
    part = bytes_of(folder / "part-00000.h5");
    hurt = scratch / "hurt";
    fs::create_directories(hurt);
    write_bytes(hurt / "part-00000.h5", part);
  }
  /// Opens the damaged copy and reads everything. false: refused.
  bool survives(uint64_t number) const {
    try {
      const TokenStore store = TokenStore::open(hurt, manifest.key.hex, 259, fresh_digests(1));
      for (int64_t i = 0; i < store.size(); ++i) {
        const auto got = store.get(i);
        if (got && got->pair.chosen.ids.size() != got->pair.chosen.trained.size()) {
          ADD_FAILURE() << number;
        }
      }
      return true;
    } catch (const core::Error& error) {
      const bool clear = error.kind() == ErrorKind::Data || error.kind() == ErrorKind::Io;
      EXPECT_TRUE(clear) << number << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find("hurt"), std::string::npos) << error.what();
      return false;
    }
  }

  fs::path folder;
  fs::path hurt;
  StoreManifest manifest;
  std::string part;
};

TEST_F(StoreFuzz, DamagedPartsAreRefusedByTheirDigest) {
  const test::ByteMutator mutate(20261, {"OHDR", "\x89HDF", std::string(8, '\xFF')});
  write_bytes(hurt / kStoreManifest, to_text(manifest));
  for (uint64_t i = 0; i < fuzz_cases(800); ++i) {
    const std::string bytes = mutate(part, i);
    if (bytes == part) {
      continue;
    }
    write_bytes(hurt / "part-00000.h5", bytes);
    ASSERT_FALSE(survives(i)) << i;
  }
}

TEST_F(StoreFuzz, DamagedManifestsAreRefused) {
  const test::ByteMutator mutate(20262,
                                 {"{", "]", "\"records\"", "-1", "9223372036854775807", "null"});
  const std::string good = to_text(manifest);
  for (uint64_t i = 0; i < fuzz_cases(1500); ++i) {
    const std::string bytes = mutate(good, i);
    if (bytes == good) {
      continue;
    }
    write_bytes(hurt / kStoreManifest, bytes);
    const bool same_meaning =  // blanks between values
        core::Json::parse(bytes, nullptr, false) == core::Json::parse(good);
    ASSERT_TRUE(same_meaning || !survives(i)) << i << "\n" << bytes;
  }
}

/// Damage with its digest made right again, as an attacker would: HDF5's own checksums and our
/// bounds are what is left. Contents may be other ones; nothing may be read out of bounds.
TEST_F(StoreFuzz, DamageBehindARightDigestStaysWithinBounds) {
  const core::RandomStream random(20263, "test.store_fuzz");
  uint64_t accepted = 0;
  const uint64_t cases = fuzz_cases(800);
  for (uint64_t i = 0; i < cases; ++i) {
    std::string bytes = part;
    uint64_t draw = i * 16;
    for (uint64_t change = 1 + random.below(draw++, 3); change > 0; --change) {
      const size_t at = random.below(draw++, bytes.size() - 8);
      const int64_t border[] = {-1, 0, 1, 1 << 20, INT64_MAX, static_cast<int64_t>(bytes.size())};
      const int64_t value = border[random.below(draw++, 6)];
      std::memcpy(bytes.data() + at / 4 * 4, &value, random.below(draw++, 2) == 0 ? 8 : 4);
    }
    StoreManifest damaged = manifest;
    write_bytes(hurt / "part-00000.h5", bytes);
    damaged.parts[0].digest = fresh_digests(1)(hurt / "part-00000.h5");
    write_bytes(hurt / kStoreManifest, to_text(damaged));
    accepted += survives(i) ? 1 : 0;
  }
  EXPECT_LT(accepted, cases);
}

TEST_F(StoreFuzz, EveryTruncationIsRefused) {
  write_bytes(hurt / kStoreManifest, to_text(manifest));
  for (size_t size = 0; size < part.size(); size += 1 + part.size() / 500) {
    write_bytes(hurt / "part-00000.h5", part.substr(0, size));
    ASSERT_FALSE(survives(size));
  }
}

/// A part written by somebody else: right digest, right names, tokens that lie in another file.
TEST_F(StoreFuzz, ADatasetThatReachesElsewhereIsRefused) {
  using storage::DType;
  const PartInfo& info = manifest.parts[0];
  write_bytes(hurt / "other.h5", part);
  auto file = storage::Hdf5File::create(hurt / "part-00000.h5");
  file.create_virtual_dataset("tokens",
                              DType::I32,
                              {info.tokens},
                              {{.file = "other.h5",
                                .dataset = "tokens",
                                .source_length = info.tokens,
                                .source_offset = 0,
                                .start = {0},
                                .count = {info.tokens}}});
  file.create_dataset("offsets", DType::I64, info.records + 1);
  file.create_dataset("spans", DType::I32, info.spans * 2);
  file.create_dataset("span_offsets", DType::I64, info.records + 1);
  file.create_dataset("splits", DType::I32, info.records);
  file.create_dataset("flags", DType::U8, info.records);
  file.close();
  StoreManifest signed_again = manifest;
  signed_again.parts[0].bytes = static_cast<int64_t>(fs::file_size(hurt / "part-00000.h5"));
  signed_again.parts[0].digest = fresh_digests(1)(hurt / "part-00000.h5");
  write_bytes(hurt / kStoreManifest, to_text(signed_again));
  const std::string error = error_of(
      ErrorKind::Data, [&] { TokenStore::open(hurt, manifest.key.hex, 259, fresh_digests(1)); });
  EXPECT_NE(error.find("stored in another way"), std::string::npos) << error;
}

}  // namespace
}  // namespace kamerton::data
