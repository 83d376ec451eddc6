// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/tensorboard_sink.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "event_format.h"

namespace kamerton::telemetry {
namespace {

[[noreturn]] void complain(core::ErrorKind kind,
                           const std::string& what,
                           const std::string& path,
                           int error) {
  throw core::Error(kind,
                    {.where = "telemetry.tensorboard_sink",
                     .what = what + " " + path,
                     .got = std::strerror(error)});
}

}  // namespace

double TensorboardSink::unix_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TensorboardSink::TensorboardSink(const std::string& folder,
                                 const std::string& label,
                                 std::function<double()> wall_time_s)
    : wall_time_s_(std::move(wall_time_s)) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    complain(core::ErrorKind::Output, "cannot make the folder", folder, error.value());
  }
  // "wbx" never overwrites: a run resumed within the same second takes the next free number.
  const std::string stem = fmt::format(
      "{}/events.out.tfevents.{:010}.{}", folder, static_cast<int64_t>(wall_time_s_()), label);
  path_ = stem;
  for (int number = 1; !file_ && number < 1000; ++number) {
    file_.reset(std::fopen(path_.c_str(), "wbx"));
    if (!file_ && errno != EEXIST) {
      break;
    }
    if (!file_) {
      path_ = fmt::format("{}.{}", stem, number);
    }
  }
  if (!file_) {
    complain(core::ErrorKind::Output, "cannot make the event file", path_, errno);
  }
  write_frame(encode_version_event(wall_time_s_()));
  flush();
}

void TensorboardSink::write(const Record& record) {
  std::vector<std::pair<std::string, float>> scalars;
  for (const auto& [name, value] : record.values) {
    if (!std::holds_alternative<std::string>(value)) {
      scalars.emplace_back(record.kind + "/" + name, static_cast<float>(record.number(name, 0)));
    }
  }
  if (!scalars.empty()) {
    write_frame(encode_scalar_event(wall_time_s_(), record.step, scalars));
    flush();
  }
}

void TensorboardSink::flush() {
  if (std::fflush(file_.get()) != 0) {
    complain(core::ErrorKind::Io, "cannot write the event file", path_, errno);
  }
}

void TensorboardSink::write_frame(const std::string& event) {
  const std::string frame = frame_record(event);
  if (std::fwrite(frame.data(), 1, frame.size(), file_.get()) != frame.size()) {
    complain(core::ErrorKind::Io, "cannot write the event file", path_, errno);
  }
}

}  // namespace kamerton::telemetry
