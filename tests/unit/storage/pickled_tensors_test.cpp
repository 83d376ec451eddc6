// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/pickled_tensors.h"

#include <cstring>

#include <gtest/gtest.h>

#include "pickle_bytes.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;

std::vector<TensorEntry> parse(const std::string& bytes) {
  return PickledFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "test.bin");
}

void expect_refused(const std::string& bytes, std::initializer_list<std::string> parts) {
  test::expect_error(ErrorKind::Data, parts, [&] { parse(bytes); });
}

std::string with_tensor(const std::string& tensor) {
  return archive(pickled_dict({{"a", tensor}}));
}

TEST(PickledTensors, ReadsTheTensorsOfAStateDict) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "pytorch_model.bin", good_archive());
  const PickledModel model = PickledModel::open(folder.path());

  EXPECT_EQ(model.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(model.entry("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(model.entry("c").dtype, DType::I64);
  EXPECT_TRUE(model.entry("c").shape.empty());
  float values[2];
  ASSERT_EQ(model.bytes("b").size(), sizeof(values));
  std::memcpy(values, model.bytes("b").data(), sizeof(values));
  EXPECT_EQ(values[0], 4.5F);
  EXPECT_EQ(values[1], 5.5F);
  test::expect_error(ErrorKind::Data, {"no tensor 'd'"}, [&] { model.entry("d"); });
}

TEST(PickledTensors, ReadsShardsByTheirIndex) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "one.bin", good_archive());
  test::write_text(folder / "pytorch_model.bin.index.json",
                   R"({"weight_map": {"c": "one.bin", "a": "one.bin"}})");
  EXPECT_EQ(PickledModel::open(folder.path()).names(), (std::vector<std::string>{"c", "a"}));
  for (const char* map :
       {R"({"a": "../one.bin"})", R"({"a": "one.safetensors"})", R"({"x": "one.bin"})"}) {
    test::write_text(folder / "pytorch_model.bin.index.json",
                     std::string(R"({"weight_map": )") + map + "}");
    EXPECT_THROW(PickledModel::open(folder.path()), core::Error) << map;
  }
}

TEST(PickledTensors, EveryGlobalButThoseOfTensorsIsRefusedByName) {
  for (const char* global : {"os\nsystem",
                             "builtins\neval",
                             "torch\nload",
                             "torch._utils\nimport_module",
                             "collections\ndefaultdict",
                             "subprocess\nPopen"}) {
    std::string shown = global;
    shown.replace(shown.find('\n'), 1, ".");
    expect_refused(archive(std::string("\x80\x02"
                                       "c") +
                           global + "\nX\x02\0\0\0id\x85R."),
                   {shown, "nothing was executed"});
  }
  expect_refused(archive("\x80\x04\x8c\x02os\x8c\x06system\x93."), {"os.system"});
}

TEST(PickledTensors, OpcodesThatMakeObjectsAreRefused) {
  for (const char opcode : {'i', 'o', '\x81', '\x92', 'P', 'S', 'I', '\x82', '\x97', '0'}) {
    expect_refused(archive(std::string("\x80\x02N") + opcode + "."), {"opcode"});
  }
  expect_refused(archive("\x80\x02"
                         "ccollections\nOrderedDict\nK\x01\x85R."),
                 {"arguments"});
  expect_refused(archive("\x80\x02K\x01)R."), {"no function"});
}

TEST(PickledTensors, TensorsBeyondTheirStorageAreRefused) {
  const auto tensor = [](int elements,
                         int first,
                         const std::string& shape,
                         const std::string& strides,
                         const std::string& key = "0",
                         const std::string& type = "FloatStorage") {
    return with_tensor(pickled_tensor(type, key, elements, first, shape, strides));
  };
  const std::string one = "K\x01\x85";
  EXPECT_EQ(parse(tensor(6, 5, one, one)).size(), 1U);
  expect_refused(tensor(7, 0, one, one), {"beyond its storage"});
  expect_refused(tensor(6, 6, one, one), {"beyond its storage", "6 + 1", "6 elements"});
  expect_refused(tensor(6, 5, "K\x02\x85", one), {"beyond its storage"});
  expect_refused(tensor(6, 0, one, one, "9"), {"lacks", "9"});
  expect_refused(tensor(6, 0, one, one, "0", "DoubleStorage"), {"beyond its storage"});
  expect_refused(tensor(6, 0, "K\x02K\x02\x86", "K\x01K\x02\x86"), {"not contiguous"});
  expect_refused(
      tensor(
          6, 0, "J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87", "K\x01K\x01K\x01\x87"),
      {"cannot be"});
  expect_refused(tensor(6, 0, "J\xff\xff\xff\xff\x85", one), {"size"});
}

TEST(PickledTensors, OtherArchivesAreRefused) {
  expect_refused(
      "\x80\x02\x8a\x0al\xfc\x9c"
      "F\xf9 j\xa8P\x19.",
      {"no zip archive", "1.6"});
  expect_refused(zip_bytes({{"model/x", "y"}}), {"no usable data.pkl", "none"});
  expect_refused(zip_bytes({{"a/data.pkl", "."}, {"b/data.pkl", "."}}), {"two pickles"});
  expect_refused(zip_bytes({{"a/data.pkl", "}."}, {"a/data.pkl", "}."}}), {"twice"});
  expect_refused(zip_bytes({{"a/data.pkl", "}."}, {"a/byteorder", "big"}}), {"little-endian"});
  std::string compressed = good_archive();
  compressed[compressed.find("PK\x01\x02") + 10] = 8;
  expect_refused(compressed, {"compressed"});
}

TEST(PickledTensorsFuzz, DamagedArchivesAreRefusedOrReadWithinBounds) {
  const auto seed = good_archive();
  const test::ByteMutator mutate(20263,
                                 {"PK\x01\x02", "PK\x05\x06", "PK\x06\x06", "PK\x06\x07",
                                  "(",          "t",          "R",          "Q",
                                  "h",          "q",          "u",          "\x85",
                                  "\x8a\x08",   "ctorch\n",   "K\xff",      "J\xff\xff\xff\x7f",
                                  "}",          "]",          "e",          "b",
                                  "."});
  const uint64_t cases = test::case_count(40'000);
  uint64_t accepted = 0;
  for (uint64_t i = 0; i < cases; ++i) {
    std::string bytes = mutate(seed, i);
    if (i % 2 == 0) {  // damage within the pickle alone: the archive around it stays whole
      const auto begin = seed.find("\x80\x02");
      bytes = archive(mutate(seed.substr(begin, seed.find("PK\x03\x04", begin) - begin), i));
    }
    try {
      for (const TensorEntry& entry : parse(bytes)) {
        ASSERT_LE(entry.offset + entry.size, bytes.size()) << i;
        ASSERT_EQ(entry.size, static_cast<uint64_t>(entry.num_elements) * size_of(entry.dtype))
            << i;
      }
      ++accepted;
    } catch (const core::Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::Data) << i << ": " << error.what();
    }
  }
  EXPECT_GT(accepted, cases / 1000);
  EXPECT_LT(accepted, cases);
}

TEST(PickledTensorsFuzz, EveryTruncationIsRefused) {
  const auto whole = good_archive();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse(whole.substr(0, size)), core::Error) << size;
  }
}

}  // namespace
}  // namespace kamerton::storage
