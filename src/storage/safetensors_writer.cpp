// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <map>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/safetensors.h"

#include "posix_error.h"

namespace kamerton::storage {
namespace {

namespace fs = std::filesystem;

constexpr char kSafetensorsWriterWhere[] = "storage.safetensors_writer";

[[noreturn]] void misuse(const std::string& what,
                         const std::string& got = "",
                         const std::string& allowed = "") {
  throw core::Error(
      core::ErrorKind::Internal,
      {.where = kSafetensorsWriterWhere, .what = what, .got = got, .allowed = allowed, .hint = ""});
}

/// Where a tensor lies in the file and which of its bytes have been written (merged ranges, begin
/// -> end).
struct SafetensorsWriterSlot {
  TensorEntry entry;
  std::map<uint64_t, uint64_t> written;

  void mark(uint64_t begin, uint64_t end) {
    auto next = written.upper_bound(begin);
    const bool before = next != written.begin() && std::prev(next)->second > begin;
    const bool after = next != written.end() && next->first < end;
    if (before || after) {
      misuse("tensor '" + entry.name + "': bytes written twice",
             std::to_string(begin) + " to " + std::to_string(end));
    }
    if (next != written.end() && next->first == end) {
      end = next->second;
      next = written.erase(next);
    }
    if (next != written.begin() && std::prev(next)->second == begin) {
      std::prev(next)->second = end;
    } else {
      written.emplace(begin, end);
    }
  }

  bool complete() const {
    return entry.size == 0 || (written.size() == 1 && written.begin()->first == 0 &&
                               written.begin()->second == entry.size);
  }
};

/// Widest elements first, then by name, as the reference does: every tensor is then aligned to its
/// element.
std::vector<TensorEntry> layout(const std::vector<TensorDeclaration>& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& tensor : tensors) {
    const auto num_elements = checked_num_elements(tensor.shape);
    if (!num_elements || tensor.name.empty() || tensor.name == "__metadata__") {
      misuse("a tensor without a usable name or shape was declared", "'" + tensor.name + "'");
    }
    TensorEntry entry;
    entry.name = tensor.name;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.num_elements = *num_elements;
    if (__builtin_mul_overflow(
            static_cast<uint64_t>(*num_elements), size_of(tensor.dtype), &entry.size)) {
      misuse("the size of a declared tensor overflows", "'" + tensor.name + "'");
    }
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    const auto wide_a = size_of(a.dtype);
    const auto wide_b = size_of(b.dtype);
    return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
  });
  uint64_t offset = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0 && entries[i].name == entries[i - 1].name) {
      misuse("a tensor was declared twice", "'" + entries[i].name + "'");
    }
    entries[i].offset = offset;
    offset += entries[i].size;
  }
  return entries;
}

/// Length, JSON, and spaces up to a multiple of eight. Moves the entries' offsets behind it.
std::string header_text(std::vector<TensorEntry>& entries, const TextPairs& metadata) {
  // Built by hand: an ordered object with n keys costs n^2 to fill.
  std::string json = "{";
  const auto quoted = [](const std::string& text) { return core::Json(text).dump(); };
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (size_t i = 0; i < metadata.size(); ++i) {
      json += (i > 0 ? "," : "") + quoted(metadata[i].first) + ":" + quoted(metadata[i].second);
    }
    json += "}";
  }
  for (const auto& entry : entries) {
    json += json.size() > 1 ? "," : "";
    json += quoted(entry.name) + ":{\"dtype\":\"" + std::string(name_of(entry.dtype)) +
            "\",\"shape\":[";
    for (size_t i = 0; i < entry.shape.size(); ++i) {
      json += (i > 0 ? "," : "") + std::to_string(entry.shape[i]);
    }
    json += "],\"data_offsets\":[" + std::to_string(entry.offset) + "," +
            std::to_string(entry.offset + entry.size) + "]}";
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string text;
  for (size_t i = 0; i < 8; ++i) {
    text += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  }
  text += json;
  for (auto& entry : entries) {
    entry.offset += text.size();
  }
  return text;
}

}  // namespace

struct SafetensorsWriter::State {
  fs::path path;
  fs::path temporary;
  Descriptor file;
  uint64_t total = 0;
  std::map<std::string, SafetensorsWriterSlot, std::less<>> slots;

  ~State() {
    if (file) {
      ::unlink(temporary.c_str());
    }
  }

  void write(const void* data, uint64_t size, uint64_t offset) {
    if (const int error = write_fully(file.get(), data, size, offset); error != 0) {
      throw_write_error(kSafetensorsWriterWhere, path, error, total);
    }
  }

  /// Claims the space at once, so that a full disk shows before the work is done.
  void reserve() {
    if (::fallocate(file.get(), 0, 0, static_cast<off_t>(total)) == 0) {
      return;
    }
    if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS) {
      throw_write_error(kSafetensorsWriterWhere, path, errno, total);
    }
    if (::ftruncate(file.get(), static_cast<off_t>(total)) != 0) {
      throw_write_error(kSafetensorsWriterWhere, path, errno, total);
    }
  }
};

SafetensorsWriter::SafetensorsWriter(const fs::path& path,
                                     const std::vector<TensorDeclaration>& tensors,
                                     const TextPairs& metadata)
    : state_(std::make_unique<State>()) {
  auto entries = layout(tensors);
  const auto header = header_text(entries, metadata);
  state_->path = path;
  state_->temporary = path;
  state_->temporary += ".tmp";
  state_->total = entries.empty() ? header.size() : entries.back().offset + entries.back().size;
  state_->file =
      Descriptor(::open(state_->temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!state_->file) {
    throw_write_error(kSafetensorsWriterWhere, state_->temporary, errno, state_->total);
  }
  state_->reserve();
  state_->write(header.data(), header.size(), 0);
  for (auto& entry : entries) {
    auto name = entry.name;
    state_->slots.emplace(std::move(name), SafetensorsWriterSlot{std::move(entry), {}});
  }
}

SafetensorsWriter::~SafetensorsWriter() = default;
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;

void SafetensorsWriter::write(std::string_view name,
                              uint64_t byte_offset,
                              std::span<const std::byte> bytes) {
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end()) {
    misuse("a tensor that was not declared", "'" + std::string(name) + "'");
  }
  auto& slot = found->second;
  if (byte_offset > slot.entry.size || bytes.size() > slot.entry.size - byte_offset) {
    misuse("tensor '" + slot.entry.name + "': bytes beyond its end",
           std::to_string(byte_offset) + " + " + std::to_string(bytes.size()),
           std::to_string(slot.entry.size));
  }
  if (bytes.empty()) {
    return;
  }
  slot.mark(byte_offset, byte_offset + bytes.size());
  state_->write(bytes.data(), bytes.size(), slot.entry.offset + byte_offset);
}

void SafetensorsWriter::finish() {
  for (const auto& [name, slot] : state_->slots) {
    if (!slot.complete()) {
      misuse("'" + state_->path.string() + "' is not complete: tensor '" + name + "' lacks bytes");
    }
  }
  if (::fsync(state_->file.get()) != 0) {
    throw_write_error(kSafetensorsWriterWhere, state_->path, errno, state_->total);
  }
  auto& files = posix_filesystem();
  files.rename(state_->temporary, state_->path);
  // From here on the file stands; a late error of close or of the folder is reported, nothing is
  // removed.
  if (const int error = state_->file.close(); error != 0) {
    throw_write_error(kSafetensorsWriterWhere, state_->path, error, state_->total);
  }
  files.sync_directory(state_->path.parent_path());
}

}  // namespace kamerton::storage
