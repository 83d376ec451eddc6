// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/journal.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

void write_three(const std::filesystem::path& path) {
  Journal journal(path);
  for (int i = 0; i < 3; ++i) {
    journal.append({{"event", "test"}, {"n", i}});
  }
}

TEST(Journal, ComesBackAsItWas) {
  const test::TemporaryFolder folder;
  write_three(folder / "journal");
  Journal again(folder / "journal");
  ASSERT_EQ(again.past().size(), 3U);
  again.append({{"n", 3}});
  EXPECT_EQ(Journal(folder / "journal").past()[3]["n"], 3);
}

TEST(Journal, AnyTailThatACrashCutOffIsDropped) {
  const test::TemporaryFolder folder;
  write_three(folder / "journal");
  const std::string whole = test::read_text(folder / "journal");
  const size_t second = whole.find('\n', whole.find('\n') + 1) + 1;
  for (size_t length = second; length < whole.size(); ++length) {
    test::write_text(folder / "journal", whole.substr(0, length));
    Journal cut(folder / "journal");
    EXPECT_EQ(cut.past().size(), 2U) << length;
    cut.append({{"n", 7}});
    EXPECT_EQ(Journal(folder / "journal").past().back()["n"], 7);
  }
}

TEST(Journal, DamageBeforeTheEndIsSaid) {
  const test::TemporaryFolder folder;
  write_three(folder / "journal");
  const std::string whole = test::read_text(folder / "journal");
  for (const size_t at : {size_t{5}, whole.find("test"), whole.find('\n') + 3}) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    test::write_text(folder / "journal", damaged);
    test::expect_error(
        core::ErrorKind::Data, {"damaged in line"}, [&] { Journal journal(folder / "journal"); });
  }
}

}  // namespace
}  // namespace kamerton::federation
