// SPDX-License-Identifier: Apache-2.0
#include "file_list.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"

#include "compression.h"
#include "stored_tokens.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

constexpr char kFileListWhere[] = "data.files";
constexpr size_t kMaxFiles = 1'000'000;
constexpr int kMaxDepth = 64;
constexpr std::array<std::string_view, 12> kSuffixes = {".jsonl",
                                                        ".ndjson",
                                                        ".json",
                                                        ".csv",
                                                        ".tsv",
                                                        ".txt",
                                                        ".text",
                                                        ".md",
                                                        ".parquet",
                                                        ".arrow",
                                                        ".feather",
                                                        ".h5"};

bool has_signs(const std::string& text) {
  return text.find_first_of("*?[") != std::string::npos;
}

bool is_data_file(const std::string& path) {
  const std::string plain = without_compression_suffix(path);
  return std::any_of(kSuffixes.begin(), kSuffixes.end(), [&](std::string_view suffix) {
    return plain.ends_with(suffix);
  });
}

/// Names in a folder, sorted; hidden ones left out.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder.empty() ? "." : folder, error), end; !error && at != end;
       at.increment(error)) {
    std::string name = at->path().filename().string();
    if (!name.starts_with('.')) {
      names.push_back(std::move(name));
    }
  }
  if (error) {
    throw Error(error == std::errc::permission_denied ? ErrorKind::Permission : ErrorKind::Io,
                {.where = kFileListWhere,
                 .what = folder.string() + ": the folder cannot be read: " + error.message()});
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// A link to a folder is not gone into below `**` or a folder: it may lead in circles.
bool is_own_folder(const fs::path& path) {
  std::error_code ignored;
  return is_folder(path) && !fs::is_symlink(path, ignored);
}

void add(const fs::path& path, std::vector<std::string>& found) {
  if (found.size() == kMaxFiles) {
    throw Error(ErrorKind::Data,
                {.where = kFileListWhere,
                 .what = path.string() + ": too many files",
                 .allowed = std::to_string(kMaxFiles)});
  }
  found.push_back(path.string());
}

void walk(const fs::path& folder, int depth, std::vector<std::string>& found) {
  for (const std::string& name : names_in(folder)) {
    const fs::path path = folder / name;
    if (depth < kMaxDepth && is_own_folder(path)) {
      walk(path, depth + 1, found);
    } else if (is_data_file(name) && !is_folder(path)) {
      add(path, found);
    }
  }
}

/// Files that match the parts of a pattern from `parts[at]` on, below `folder`.
void match(const fs::path& folder,
           const std::vector<std::string>& parts,
           size_t at,
           int depth,
           std::vector<std::string>& found) {
  const std::string& part = parts[at];
  const bool last = at + 1 == parts.size();
  if (part == "**") {
    if (!last) {
      match(folder, parts, at + 1, depth, found);
    }
    for (const std::string& name : names_in(folder)) {
      const fs::path path = folder / name;
      if (depth < kMaxDepth && is_own_folder(path)) {
        match(path, parts, at, depth + 1, found);
      } else if (last && !is_folder(path)) {
        add(path, found);
      }
    }
    return;
  }
  if (!has_signs(part)) {
    const fs::path path = folder / part;
    std::error_code ignored;
    if (last ? fs::exists(path, ignored) && !is_folder(path) : is_folder(path)) {
      last ? add(path, found) : match(path, parts, at + 1, depth, found);
    }
    return;
  }
  for (const std::string& name : names_in(folder)) {
    const fs::path path = folder / name;
    if (::fnmatch(part.c_str(), name.c_str(), FNM_PERIOD) != 0 || is_folder(path) == last) {
      continue;
    }
    last ? add(path, found) : match(path, parts, at + 1, depth, found);
  }
}

/// The deepest folder of a pattern that exists, and some names in it.
std::string what_is_near(const std::string& pattern) {
  fs::path folder = fs::path(pattern).parent_path();
  while (!folder.empty() && folder != folder.root_path() &&
         (has_signs(folder.string()) || !is_folder(folder))) {
    folder = folder.parent_path();
  }
  const std::string place = folder.empty() ? "the current folder" : folder.string();
  if (!folder.empty() && !is_folder(folder)) {
    return place + " is not a folder";
  }
  std::vector<std::string> names = names_in(folder);
  const size_t count = names.size();
  names.resize(std::min<size_t>(count, 6));
  if (names.empty()) {
    return place + " is empty";
  }
  return fmt::format("{} holds {}{}",
                     place,
                     fmt::join(names, ", "),
                     count > names.size() ? fmt::format(" and {} more", count - names.size()) : "");
}

[[noreturn]] void nothing(const std::string& entry, const char* what) {
  throw Error(ErrorKind::Data,
              {.where = kFileListWhere,
               .what = entry + ": " + what,
               .got = what_is_near(entry + (is_folder(entry) ? "/*" : "")),
               .allowed = fmt::format("files ending in {}, also with .gz or .zst",
                                      fmt::join(kSuffixes, " ")),
               .hint = "check the run's file; paths are relative to where the program "
                       "was started"});
}

std::vector<std::string> expand_pattern(const std::string& pattern) {
  std::vector<std::string> parts;
  const fs::path path(pattern);
  for (const fs::path& part : path.relative_path()) {
    if (!part.empty()) {
      parts.push_back(part.string());
    }
  }
  std::vector<std::string> found;
  match(path.root_path(), parts, 0, 0, found);
  // `**` at two places finds a file by two ways.
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  if (found.empty()) {
    nothing(pattern, "no file matches the pattern");
  }
  return found;
}

std::vector<std::string> expand_folder(const std::string& folder) {
  std::vector<std::string> found;
  if (const fs::path manifest = fs::path(folder) / kStoreManifest;
      fs::exists(manifest) && is_store_manifest(manifest.string())) {
    return {manifest.string()};
  }
  walk(folder, 0, found);
  std::sort(found.begin(), found.end());
  if (found.empty()) {
    nothing(folder, "the folder holds no data files");
  }
  return found;
}

}  // namespace

std::vector<std::string> expand_files(const std::vector<std::string>& entries) {
  std::vector<std::string> files;
  std::set<std::string> seen;
  for (const std::string& entry : entries) {
    std::error_code ignored;
    const bool exists = fs::exists(entry, ignored);
    const bool folder = exists && is_folder(entry);
    if (!folder && (exists || !has_signs(entry))) {
      files.push_back(entry);
      seen.insert(fs::path(entry).lexically_normal().string());
      continue;
    }
    const std::vector<std::string> found = folder ? expand_folder(entry) : expand_pattern(entry);
    size_t taken = 0;
    for (const std::string& file : found) {
      if (seen.insert(fs::path(file).lexically_normal().string()).second) {
        files.push_back(file);
        ++taken;
      }
    }
    core::log_info(fmt::format("{}: {} files, {} to {}{}",
                               entry,
                               taken,
                               found.front(),
                               found.back(),
                               taken < found.size() ? " (others were listed before)" : ""));
  }
  return files;
}

}  // namespace kamerton::data
