// SPDX-License-Identifier: Apache-2.0
#include "staging.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"

#include "cache_file.h"
#include "columnar.h"
#include "compression.h"

namespace kamerton::data {
namespace {

constexpr uint64_t kAlwaysAllowed = uint64_t{64} << 20;

uint64_t max_bytes(const DataFile& file, const DataConfig& config) {
  const auto factor = static_cast<uint64_t>(config.max_expansion);
  const bool huge = file.size() > (uint64_t{1} << 62) / factor;
  return huge ? uint64_t{1} << 62 : std::max(kAlwaysAllowed, file.size() * factor);
}

/// The text of `file`, on disk, under the file's name.
DataFile make_copy(const DataFile& file,
                   const std::string& how,
                   const DataConfig& config,
                   const std::function<void(const std::function<void(std::string_view)>&)>& fill) {
  std::error_code ignored;
  const std::string key =
      fmt::format("plain 1|{}|{}|{}|{}|{}",
                  std::filesystem::weakly_canonical(file.path(), ignored).string(),
                  file.fingerprint(),
                  file.modified_ns(),
                  max_bytes(file, config),
                  how);
  const CacheFile copy = CacheFile::open_or_build(
      config.index_dir, key, "plain", [&](CacheWriter& writer) -> CacheNumbers {
        core::log_info(fmt::format("{}: unpacking", file.path()));
        fill([&](std::string_view text) { writer.append(std::as_bytes(std::span(text))); });
        return {};
      });
  return DataFile::open_copy(copy.path().string(), CacheFile::payload_start(), file.path());
}

std::optional<DataFile> unpacked(const DataFile& file,
                                 const std::string& format,
                                 const DataConfig& config,
                                 const std::vector<std::string>& columns) {
  if (const Compression compression = detect_compression(file); compression != Compression::None) {
    return make_copy(file, "text", config, [&](const auto& sink) {
      decompress(file, compression, max_bytes(file, config), sink);
    });
  }
  if (const ColumnarForm form = detect_columnar(file, format); form != ColumnarForm::None) {
    const std::string how = fmt::format("{}|{}", static_cast<int>(form), fmt::join(columns, "|"));
    return make_copy(file, how, config, [&](const auto& sink) {
      convert_columnar(file, form, columns, max_bytes(file, config), sink);
    });
  }
  return std::nullopt;
}

}  // namespace

StagedFile stage(const std::string& path,
                 const std::string& format,
                 const DataConfig& config,
                 const std::vector<std::string>& columns) {
  DataFile file = DataFile::open(path);
  const std::string fingerprint = file.fingerprint();
  const uint64_t bytes = file.size();
  bool lines = false;
  if (std::optional<DataFile> copy = unpacked(file, format, config, columns)) {
    lines = detect_compression(file) == Compression::None;
    file = std::move(*copy);
  }
  FileForm form = lines ? FileForm::Jsonl : detect_form(file, format, config.text_split);
  if (form == FileForm::WholeText && config.text_windows) {
    form = FileForm::TextPieces;
  }
  return {std::move(file), form, fingerprint, bytes};
}

}  // namespace kamerton::data
