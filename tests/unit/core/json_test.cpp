// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/json.h"

#include <ctime>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::core {
namespace {

using testing::HasSubstr;

std::string fault_of(std::string_view text,
                     const JsonLimits& limits = {},
                     const std::string& origin = "file.json") {
  try {
    parse_json(text, origin, limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Data);
    return error.what();
  }
  return "no error";
}

TEST(ParseJson, KeepsTheOrderOfKeysAndEveryKindOfValue) {
  const Json value =
      parse_json(R"({"z":1,"a":[true,null,-2,1.5,"x"],"m":{"k":18446744073709551615}})", "t");

  EXPECT_EQ(value.dump(), R"({"z":1,"a":[true,null,-2,1.5,"x"],"m":{"k":18446744073709551615}})");
}

TEST(ParseJson, NamesLineAndColumnOfASyntaxError) {
  EXPECT_THAT(fault_of("{\"a\": 1,\n  \"b\": tru }"), HasSubstr("file.json:2:"));
  EXPECT_THAT(fault_of("{\"a\": }", {}, "rows.jsonl:12"),
              HasSubstr("rows.jsonl:12:7: not valid JSON"));
}

TEST(ParseJson, RefusesDuplicateKeysInSmallAndLargeObjects) {
  EXPECT_THAT(fault_of("{\"a\":1,\n\"b\":2,\"a\":3}"),
              HasSubstr("file.json:2:9: the key appears twice in one object; got 'a'"));
  std::string large = "{";
  for (int i = 0; i < 1000; ++i) {
    large += "\"k" + std::to_string(i) + "\":0,";
  }
  EXPECT_THAT(fault_of(large + "\"k3\":1}"), HasSubstr("'k3'"));
  EXPECT_THAT(fault_of(large + "\"k999\":1}"), HasSubstr("'k999'"));
  EXPECT_EQ(parse_json(large + "\"k\":1}", "t").size(), 1001);
}

TEST(ParseJson, SeesDuplicatesThroughEscapes) {
  EXPECT_THAT(fault_of(R"({"a":1,"\u0061":2})"), HasSubstr("twice"));
}

TEST(ParseJson, AllowsTheSameKeyInDifferentObjects) {
  EXPECT_EQ(parse_json(R"([{"a":1},{"a":2,"b":{"a":3}}])", "t").size(), 2);
}

TEST(ParseJson, RefusesIntegersBeyond64Bits) {
  EXPECT_THAT(fault_of("[18446744073709551616]"),
              HasSubstr("does not fit 64 bits; got 18446744073709551616"));
  EXPECT_THAT(fault_of("[-9223372036854775809]"), HasSubstr("does not fit 64 bits"));
  EXPECT_EQ(parse_json("[-9223372036854775808]", "t")[0].get<int64_t>(),
            std::numeric_limits<int64_t>::min());
  EXPECT_DOUBLE_EQ(parse_json("[1e30]", "t")[0].get<double>(), 1e30);
}

TEST(ParseJson, RefusesNumbersThatOverflowADouble) {
  EXPECT_THAT(fault_of("[1e400]"), HasSubstr("file.json:1:"));
}

TEST(ParseJson, RefusesTextAfterTheValue) {
  EXPECT_THAT(fault_of("{} {}"), HasSubstr("file.json:1:4"));
  EXPECT_THAT(fault_of(std::string("{}\0junk", 7)), HasSubstr("zero byte"));
  EXPECT_THAT(fault_of(std::string("\"a\0b\"", 5)), HasSubstr("file.json:1:3: a zero byte"));
}

TEST(ParseJson, RefusesHostileText) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[",
                           "[1,]",
                           "{\"a\":1,}",
                           "{'a':1}",
                           "NaN",
                           "[Infinity]",
                           "01",
                           "+1",
                           ".5",
                           "[1 2]",
                           "\"\x01\"",
                           "\"\xff\"",
                           "\"\xc0\xaf\"",
                           "\"\xed\xa0\x80\"",
                           "\"\\ud800\"",
                           "\"\\ud800\\u0041\"",
                           "\"\\x41\"",
                           "// c\n1",
                           "\"open",
                           "{\"a\" 1}",
                           "{1:2}",
                           "]"}) {
    EXPECT_NE(fault_of(text), "no error") << text;
  }
}

TEST(ParseJson, DecodesSurrogatePairsAndUnicode) {
  EXPECT_EQ(parse_json(R"("\ud83d\ude00 zażółć")", "t").get<std::string>(),
            "\xF0\x9F\x98\x80 zażółć");
}

TEST(ParseJson, EnforcesDepthAndSize) {
  EXPECT_EQ(fault_of(std::string(128, '[') + std::string(128, ']')), "no error");
  EXPECT_THAT(fault_of(std::string(129, '[') + std::string(129, ']')),
              HasSubstr("file.json:1:129: nested deeper"));
  EXPECT_THAT(fault_of(std::string(1'000'000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(fault_of("[1,2,3]", {.max_bytes = 6}),
              HasSubstr("longer than the limit of 6 bytes; got 7 bytes"));
}

double seconds_to_parse(int keys) {
  std::string text = "{";
  for (int i = 0; i < keys; ++i) {
    text += (i == 0 ? "\"token" : ",\"token") + std::to_string(i) + "\":" + std::to_string(i);
  }
  text += "}";
  const std::clock_t begin = std::clock();  // of this process: a busy machine does not matter
  EXPECT_EQ(parse_json(text, "vocab").size(), keys);
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(ParseJson, TakesTimeLinearInTheNumberOfKeys) {
  // A quadratic parser needs about a minute for this.
  EXPECT_LT(seconds_to_parse(150'000), 2.0);
}

TEST(JsonAccess, ReturnsStrictlyTypedMembers) {
  const Json object =
      parse_json(R"({"i":3,"d":1.5,"b":true,"s":"x","n":null,"u":9223372036854775808})", "t");

  EXPECT_EQ(json_int(object, "i", "t"), 3);
  EXPECT_EQ(json_number(object, "i", "t"), 3.0);
  EXPECT_EQ(json_number(object, "d", "t"), 1.5);
  EXPECT_TRUE(json_bool(object, "b", "t"));
  EXPECT_EQ(json_string(object, "s", "t"), "x");
  EXPECT_EQ(json_find(object, "n"), nullptr);
  EXPECT_EQ(json_find(object, "absent"), nullptr);
  EXPECT_EQ(json_find(object["i"], "i"), nullptr);
}

TEST(JsonAccess, NamesOriginKeyAndTypeWhenItDoesNotFit) {
  const Json object = parse_json(R"({"i":3,"d":1.0,"u":9223372036854775808,"s":"x"})", "t");
  const auto fault = [](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };

  EXPECT_THAT(fault([&] { json_int(object, "gone", "conf.json"); }),
              HasSubstr("conf.json: the key 'gone' is missing"));
  EXPECT_THAT(fault([&] { json_int(object, "d", "conf.json"); }),
              HasSubstr("got number 1.0; allowed an integer"));
  EXPECT_THAT(fault([&] { json_int(object, "u", "conf.json"); }),
              HasSubstr("'u' has the wrong type"));
  EXPECT_THAT(fault([&] { json_bool(object, "i", "conf.json"); }),
              HasSubstr("allowed true or false"));
  EXPECT_THAT(fault([&] { json_string(object, "i", "conf.json"); }), HasSubstr("allowed a string"));
  EXPECT_THAT(fault([&] { json_number(object, "s", "conf.json"); }), HasSubstr("got string \"x\""));
}

}  // namespace
}  // namespace kamerton::core
