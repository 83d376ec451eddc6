// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/jsonl_sink.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"

namespace kamerton::telemetry {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void complain(core::ErrorKind kind,
                           const std::string& what,
                           const std::string& path,
                           int error) {
  throw core::Error(kind,
                    {.where = "telemetry.jsonl_sink",
                     .what = what + " " + path,
                     .got = error == 0 ? "" : std::strerror(error)});
}

/// The step of a whole line; empty when the line is not one of ours (torn by a crash).
std::optional<int64_t> step_of(const std::string& line) {
  try {
    const core::Json record =
        core::parse_json(line, "metrics line", {.max_bytes = size_t{1} << 20, .max_depth = 8});
    return core::json_int(record, "step", "metrics line");
  } catch (const core::Error&) {
    return std::nullopt;
  }
}

/// Copies the lines of steps before `next_step` to `kept_path`. Returns whether any line was left
/// out.
bool copy_kept_lines(const std::string& path, const std::string& kept_path, int64_t next_step) {
  std::ifstream old_lines(path, std::ios::binary);
  std::ofstream kept(kept_path, std::ios::binary | std::ios::trunc);
  if (!old_lines || !kept) {
    complain(core::ErrorKind::Output, "cannot rewrite the metrics file", path, errno);
  }
  bool dropped = false;
  std::string line;
  while (std::getline(old_lines, line)) {
    const bool is_whole = !old_lines.eof();  // the last line without its newline was torn
    const auto step = is_whole ? step_of(line) : std::nullopt;
    if (step && *step < next_step) {
      kept << line << '\n';
    } else {
      dropped = true;
    }
  }
  kept.close();
  if (old_lines.bad() || !kept) {
    complain(core::ErrorKind::Io, "cannot rewrite the metrics file", path, errno);
  }
  return dropped;
}

/// Through a second file and a rename: a crash here loses no line.
void drop_lines_from(const std::string& path, int64_t next_step) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    return;
  }
  const std::string kept_path = path + ".kept";
  if (copy_kept_lines(path, kept_path, next_step)) {
    fs::rename(kept_path, path, error);
  } else {
    fs::remove(kept_path, error);
  }
  if (error) {
    complain(core::ErrorKind::Io, "cannot rewrite the metrics file", path, error.value());
  }
}

}  // namespace

std::string to_json_line(const Record& record) {
  core::Json line = core::Json::object();
  line["step"] = record.step;
  for (const auto& [name, value] : record.values) {
    if (const auto* real = std::get_if<double>(&value)) {
      line[name] = std::isfinite(*real) ? core::Json(*real) : core::Json(nullptr);
    } else if (const auto* integer = std::get_if<int64_t>(&value)) {
      line[name] = *integer;
    } else {
      line[name] = std::get<std::string>(value);
    }
  }
  // Text that is not UTF-8 must not stop a run: its bad bytes are replaced.
  return line.dump(-1, ' ', false, core::Json::error_handler_t::replace) + "\n";
}

JsonlSink::JsonlSink(std::string path, int64_t next_step, std::string kind)
    : path_(std::move(path)), kind_(std::move(kind)) {
  drop_lines_from(path_, next_step);
  file_.reset(std::fopen(path_.c_str(), "ab"));
  if (!file_) {
    complain(core::ErrorKind::Output, "cannot open the metrics file", path_, errno);
  }
}

void JsonlSink::write(const Record& record) {
  if (record.kind != kind_) {
    return;
  }
  const std::string line = to_json_line(record);
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size()) {
    complain(core::ErrorKind::Io, "cannot write the metrics file", path_, errno);
  }
  flush();
}

void JsonlSink::flush() {
  if (std::fflush(file_.get()) != 0) {
    complain(core::ErrorKind::Io, "cannot write the metrics file", path_, errno);
  }
}

}  // namespace kamerton::telemetry
