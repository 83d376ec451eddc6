// SPDX-License-Identifier: Apache-2.0
// Finding a source's layout, and checking all its records against it.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "sources.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kSourceLayoutWhere[] = "data.sources";
constexpr int64_t kDetectRecords = 16;

}  // namespace

void Sources::find_layout(Part& part) {
  if (part.made_for) {
    return;
  }
  const bool any_text = std::any_of(files_.begin(), files_.end(), [&](const File& file) {
    return &parts_[file.part] == &part && is_plain_text(file.form);
  });
  if (part.config.layout != "auto" && (!any_text || part.config.layout == "text")) {
    part.layout = layout_from(part.config.layout);
    return;
  }
  for (const File& file : files_) {
    if (&parts_[file.part] != &part) {
      continue;
    }
    const auto records = static_cast<int64_t>(file.index.size());
    const int64_t count = is_plain_text(file.form) ? 1 : std::min(kDetectRecords, records);
    for (int64_t i = 0; i < count; ++i) {
      note_layout(part, file.first + i);
    }
  }
  if (!part.detected) {
    throw Error(ErrorKind::Data,
                {.where = kSourceLayoutWhere,
                 .what = part.files.front() +
                         ": none of the first records can be read, so their layout is unknown"});
  }
}

void Sources::note_layout(Part& part, int64_t record) {
  const Place found = place(record);
  const std::string origin = origin_of(found);
  std::optional<Layout> layout = Layout::Text;
  std::string columns;
  if (!is_plain_text(found.file.form)) {
    try {
      const core::Json json = json_of(found, origin);
      const std::optional<Layout> mapped = part.columns.layout();
      layout = mapped ? mapped : detect_layout(json);
      columns = describe_columns(json);
    } catch (const Error&) {
      count_bad(record, origin);
      return;
    }
  }
  if (!layout) {
    throw Error(ErrorKind::Data,
                {.where = kSourceLayoutWhere,
                 .what = origin + ": no known layout",
                 .got = columns,
                 .allowed = "messages; prompt and completion (and label); instruction and output; "
                            "conversations; chosen and rejected; text",
                 .hint = "data.columns: {prompt: NAME, completion: NAME}, or data.layout"});
  }
  if (part.detected && *layout != part.layout) {
    throw Error(ErrorKind::Data,
                {.where = kSourceLayoutWhere,
                 .what = origin + ": another layout than in the records before",
                 .got = std::string(name_of(*layout)),
                 .allowed = std::string(name_of(part.layout)),
                 .hint = "files of one layout, data.layout, or a source of its own in "
                         "data.sources"});
  }
  part.layout = *layout;
  part.detected = true;
}

void Sources::check_all() const {
  int64_t bad = 0;
  std::string first;
  for (int64_t i = 0; i < size_; ++i) {
    if (parts_[part_of(i)].made_for) {
      continue;  // checked when the store was made
    }
    try {
      record(i);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Data || skips_bad()) {
        tolerate_current_error(i);
        continue;
      }
      if (bad++ == 0) {
        first = error.what();
      }
    }
  }
  if (bad > 0) {
    const size_t bracket = first.find("] ");
    throw Error(ErrorKind::Data,
                {.where = kSourceLayoutWhere,
                 .what = bracket == std::string::npos ? first : first.substr(bracket + 2),
                 .got = fmt::format("{} bad records of {}", bad, size_),
                 .hint = "mend the file, or data.on_bad_record: skip"});
  }
}

}  // namespace kamerton::data
