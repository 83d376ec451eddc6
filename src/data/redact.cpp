// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/redact.h"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

#include "personal_data.h"
#include "sources.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kRedactWhere[] = "data.redact";
static_assert(kPersonalKinds == std::tuple_size_v<decltype(RedactReport::found)>);

[[noreturn]] void cannot(const fs::path& path, const char* what, int code) {
  throw Error(code == ENOSPC || code == EIO || code == EDQUOT ? ErrorKind::Io : ErrorKind::Output,
              {.where = kRedactWhere,
               .what = fmt::format(
                   "{}: {}: {}", path.string(), what, std::generic_category().message(code))});
}

/// A file that appears under its name when it is complete.
class LineWriter {
 public:
  explicit LineWriter(fs::path path)
      : path_(std::move(path)),
        temporary_(fmt::format("{}.{}.part", path_.string(), ::getpid())),
        stream_(std::fopen(temporary_.c_str(), "wbx"), &std::fclose) {
    if (stream_ == nullptr) {
      cannot(path_, "the clean copy cannot be made", errno);
    }
  }
  ~LineWriter() {
    std::error_code ignored;
    fs::remove(temporary_, ignored);
  }
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  void line(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stream_.get()) != text.size() ||
        std::fputc('\n', stream_.get()) == EOF) {
      cannot(path_, "the clean copy cannot be written", errno);
    }
  }
  void publish() {
    if (std::fclose(stream_.release()) != 0) {
      cannot(path_, "the clean copy cannot be written", errno);
    }
    storage::sync_file(temporary_);
    storage::posix_filesystem().rename(temporary_, path_);
  }

 private:
  fs::path path_;
  fs::path temporary_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream_;
};

/// Every string below `value`. The parser has bounded the depth.
void redact_json(Json& value, PersonalCounts& counts) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (!find_personal(text).empty()) {
      value = redact_personal(text, counts);
    }
  } else if (value.is_number_integer()) {
    const std::string digits = value.dump();
    if (!find_personal(digits).empty()) {
      value = redact_personal(digits, counts);
    }
  } else if (value.is_structured()) {
    for (Json& item : value) {
      redact_json(item, counts);
    }
  }
}

}  // namespace

RedactReport redact(const std::vector<std::string>& paths,
                    const DataConfig& config,
                    const fs::path& to) {
  if (fs::exists(to)) {
    throw Error(ErrorKind::Output,
                {.where = kRedactWhere,
                 .what = to.string() + ": the file for the clean copy exists",
                 .hint = "another name, or remove it first"});
  }
  DataConfig any = config;  // whatever its columns are, a record is copied
  any.layout = "text";
  any.check_bytes = 0;
  const Sources sources(sources_of_files(paths, any), any, Side::All, nullptr);
  LineWriter writer(to);
  RedactReport report;
  for (int64_t i = 0; i < sources.size(); ++i) {
    Json record = sources.json(i);
    PersonalCounts counts = {};
    redact_json(record, counts);
    bool changed = false;
    for (size_t kind = 0; kind < kPersonalKinds; ++kind) {
      report.found[kind] += counts[kind];
      changed = changed || counts[kind] > 0;
    }
    ++report.records;
    report.changed += changed ? 1 : 0;
    writer.line(record.dump());
  }
  writer.publish();
  return report;
}

std::string RedactReport::text() const {
  std::string out = fmt::format("{} records, {} changed\n", records, changed);
  for (size_t kind = 0; kind < kPersonalKinds; ++kind) {
    const auto personal = static_cast<Personal>(kind);
    out +=
        fmt::format("{:>9} {} -> {}\n", found[kind], name_of(personal), placeholder_of(personal));
  }
  return out;
}

}  // namespace kamerton::data
