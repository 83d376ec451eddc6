// SPDX-License-Identifier: Apache-2.0
#include "column_map.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr std::array<const char*, 20> kKnown = {
    "text",        "messages", "conversations", "prompt",    "completion",
    "chosen",      "rejected", "label",         "margin",    "answer",
    "completions", "labels",   "instruction",   "input",     "output",
    "system",      "history",  "tools",         "documents", "chat_template_kwargs"};

/// Any value of the right kind, to ask detect_layout with.
Json stand_in(const std::string& name) {
  if (name == "label") {
    return true;
  }
  return name == "conversations" ? Json::array({{{"from", "human"}, {"value", ""}}}) : Json("");
}

}  // namespace

Json ColumnNames::apply(Json record, const std::string& origin) const {
  if (given_.empty() || !record.is_object()) {
    return record;
  }
  Json renamed = Json::object();
  for (const auto& [name, column] : given_) {
    const auto found = record.find(column);
    if (found == record.end()) {
      throw Error(ErrorKind::Data,
                  {.where = "data.columns",
                   .what = fmt::format("{}: the column '{}' is missing", origin, column),
                   .got = describe_columns(record),
                   .allowed = "the column that data.columns." + name + " names"});
    }
    renamed[name] = *found;  // two names may share a column
  }
  const auto taken = [&](const std::string& key) {
    return std::any_of(given_.begin(), given_.end(), [&](const auto& pair) {
      return key == pair.first || key == pair.second;
    });
  };
  for (auto& [key, value] : record.items()) {
    if (!taken(key)) {
      renamed[key] = std::move(value);
    }
  }
  return renamed;
}

std::optional<Layout> ColumnNames::layout() const {
  Json record = Json::object();
  for (const auto& [name, column] : given_) {
    record[name] = stand_in(name);
  }
  return detect_layout(record);
}

std::vector<std::string> ColumnNames::wanted() const {
  std::vector<std::string> names(kKnown.begin(), kKnown.end());
  for (const auto& [name, column] : given_) {
    std::replace(names.begin(), names.end(), name, column);
  }
  return names;
}

Json record_of_row(std::string_view row,
                   const CsvHeader& header,
                   const ColumnNames& names,
                   const std::string& origin) {
  std::vector<std::string> fields = split_csv(row, header.delimiter);
  if (fields.size() != header.columns.size()) {
    throw Error(ErrorKind::Data,
                {.where = "data.csv",
                 .what = origin + ": the row has another number of columns than the header",
                 .got = std::to_string(fields.size()),
                 .allowed = std::to_string(header.columns.size())});
  }
  Json record = Json::object();
  auto& members = record.get_ref<Json::object_t&>();
  for (size_t i = 0; i < fields.size(); ++i) {
    members.emplace_back(header.columns[i], std::move(fields[i]));  // the names differ: no search
  }
  record = names.apply(std::move(record), origin);
  for (const char* name : {"messages", "conversations", "history"}) {
    const auto cell = record.find(name);
    if (cell == record.end()) {
      continue;
    }
    const std::string text = cell->get<std::string>();
    if (text.empty()) {
      *cell = nullptr;
    } else {
      *cell = parse_record(text, fmt::format("{}: {}", origin, name), text.size());
    }
  }
  return record;
}

}  // namespace kamerton::data
