// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/gguf_writer.h"

#include <bit>
#include <cerrno>
#include <map>

#include <fcntl.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/dtype.h"
#include "kamerton/storage/filesystem.h"

#include "posix_error.h"

namespace kamerton::storage {
namespace {

namespace fs = std::filesystem;

constexpr char kGgufWriterWhere[] = "storage.gguf_writer";
constexpr uint64_t kAlignment = 32;       // the format's default
constexpr size_t kGgufWriterMaxDims = 4;  // ggml's GGML_MAX_DIMS

// Value types of the format.
constexpr uint32_t kU32 = 4;
constexpr uint32_t kI32 = 5;
constexpr uint32_t kF32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kText = 8;
constexpr uint32_t kArray = 9;

[[noreturn]] void misuse_gguf(const std::string& what, const std::string& got) {
  throw core::Error(
      core::ErrorKind::Internal,
      {.where = kGgufWriterWhere, .what = what, .got = got, .allowed = "", .hint = ""});
}

template <class T>
void put(std::string& bytes, T value) {
  static_assert(std::endian::native == std::endian::little,
                "files are little-endian, and so are our machines");
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_text(std::string& bytes, std::string_view text) {
  put<uint64_t>(bytes, text.size());
  bytes += text;
}

template <class T>
void put_list(std::string& bytes, uint32_t type, const std::vector<T>& values) {
  put<uint32_t>(bytes, type);
  put<uint64_t>(bytes, values.size());
  for (const T value : values) {
    put<T>(bytes, value);
  }
}

uint64_t aligned(uint64_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

uint64_t bytes_of(const GgufDeclaration& tensor) {
  const auto num_elements = checked_num_elements(tensor.shape);
  const GgmlBlock block = block_of(tensor.type);
  const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (!num_elements || tensor.name.empty() || tensor.shape.size() > kGgufWriterMaxDims ||
      row % block.num_elements != 0) {
    misuse_gguf("a tensor cannot be declared so", "'" + tensor.name + "'");
  }
  uint64_t size = 0;
  if (__builtin_mul_overflow(
          static_cast<uint64_t>(*num_elements / block.num_elements), block.size, &size)) {
    misuse_gguf("the size of a declared tensor overflows", "'" + tensor.name + "'");
  }
  return size;
}

/// Where a tensor lies in the file and how much of it has been written.
struct GgufWriterSlot {
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t written = 0;
};

}  // namespace

void GgufMetadata::begin(std::string_view key, uint32_t type) {
  if (key.empty() || !keys_.emplace(key).second) {
    misuse_gguf("a metadata key is empty or given twice", "'" + std::string(key) + "'");
  }
  put_text(bytes_, key);
  put<uint32_t>(bytes_, type);
}

void GgufMetadata::add_count(std::string_view key, uint32_t value) {
  begin(key, kU32);
  put<uint32_t>(bytes_, value);
}

void GgufMetadata::add_real(std::string_view key, float value) {
  begin(key, kF32);
  put<float>(bytes_, value);
}

void GgufMetadata::add_flag(std::string_view key, bool value) {
  begin(key, kBool);
  put<uint8_t>(bytes_, value ? 1 : 0);
}

void GgufMetadata::add_text(std::string_view key, std::string_view value) {
  begin(key, kText);
  put_text(bytes_, value);
}

void GgufMetadata::add_texts(std::string_view key, const std::vector<std::string>& values) {
  begin(key, kArray);
  put<uint32_t>(bytes_, kText);
  put<uint64_t>(bytes_, values.size());
  for (const std::string& value : values) {
    put_text(bytes_, value);
  }
}

void GgufMetadata::add_integers(std::string_view key, const std::vector<int32_t>& values) {
  begin(key, kArray);
  put_list(bytes_, kI32, values);
}

void GgufMetadata::add_reals(std::string_view key, const std::vector<float>& values) {
  begin(key, kArray);
  put_list(bytes_, kF32, values);
}

void GgufMetadata::append(const GgufMetadata& other) {
  for (const std::string& key : other.keys_) {
    if (!keys_.insert(key).second) {
      misuse_gguf("a metadata key is given twice", "'" + key + "'");
    }
  }
  bytes_ += other.bytes_;
}

struct GgufWriter::State {
  fs::path path;
  fs::path temporary;
  Descriptor file;
  uint64_t total = 0;
  std::map<std::string, GgufWriterSlot, std::less<>> slots;

  ~State() {
    if (file) {
      ::unlink(temporary.c_str());
    }
  }

  void write(const void* data, uint64_t size, uint64_t offset) {
    if (const int error = write_fully(file.get(), data, size, offset); error != 0) {
      throw_write_error(kGgufWriterWhere, path, error, total);
    }
  }

  /// The head of the file; places the tensors behind it.
  std::string head(const GgufMetadata& metadata, const std::vector<GgufDeclaration>& tensors) {
    std::string bytes = "GGUF";
    put<uint32_t>(bytes, 3);
    put<uint64_t>(bytes, tensors.size());
    put<uint64_t>(bytes, metadata.size());
    bytes += metadata.bytes();
    uint64_t offset = 0;
    for (const GgufDeclaration& tensor : tensors) {
      const uint64_t size = bytes_of(tensor);
      put_text(bytes, tensor.name);
      put<uint32_t>(bytes, static_cast<uint32_t>(tensor.shape.size()));
      for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) {
        put<int64_t>(bytes, *dim);
      }
      put<uint32_t>(bytes, static_cast<uint32_t>(tensor.type));
      put<uint64_t>(bytes, offset);
      if (!slots.emplace(tensor.name, GgufWriterSlot{.offset = offset, .size = size}).second) {
        misuse_gguf("a tensor was declared twice", "'" + tensor.name + "'");
      }
      offset = aligned(offset + size);
    }
    bytes.resize(aligned(bytes.size()), '\0');
    for (auto& [name, slot] : slots) {
      slot.offset += bytes.size();
    }
    total = bytes.size() + offset;
    return bytes;
  }

  /// Claims the space at once, so that a full disk shows before the work is done.
  void reserve() {
    const auto size = static_cast<off_t>(total);
    if (::fallocate(file.get(), 0, 0, size) == 0) {
      return;
    }
    if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS) {
      throw_write_error(kGgufWriterWhere, path, errno, total);
    }
    if (::ftruncate(file.get(), size) != 0) {
      throw_write_error(kGgufWriterWhere, path, errno, total);
    }
  }
};

GgufWriter::GgufWriter(const fs::path& path,
                       const GgufMetadata& metadata,
                       const std::vector<GgufDeclaration>& tensors)
    : state_(std::make_unique<State>()) {
  const std::string head = state_->head(metadata, tensors);
  state_->path = path;
  state_->temporary = path;
  state_->temporary += ".tmp";
  state_->file =
      Descriptor(::open(state_->temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!state_->file) {
    throw_write_error(kGgufWriterWhere, state_->temporary, errno, state_->total);
  }
  state_->reserve();
  state_->write(head.data(), head.size(), 0);
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end()) {
    misuse_gguf("a tensor that was not declared", "'" + std::string(name) + "'");
  }
  GgufWriterSlot& slot = found->second;
  if (bytes.size() > slot.size - slot.written) {
    misuse_gguf("tensor '" + found->first + "': bytes beyond its end",
                std::to_string(slot.written) + " + " + std::to_string(bytes.size()));
  }
  state_->write(bytes.data(), bytes.size(), slot.offset + slot.written);
  slot.written += bytes.size();
}

void GgufWriter::finish() {
  for (const auto& [name, slot] : state_->slots) {
    if (slot.written != slot.size) {
      misuse_gguf("'" + state_->path.string() + "' is not complete",
                  "tensor '" + name + "' lacks bytes");
    }
  }
  if (::fsync(state_->file.get()) != 0) {
    throw_write_error(kGgufWriterWhere, state_->path, errno, state_->total);
  }
  FileSystem& files = posix_filesystem();
  files.rename(state_->temporary, state_->path);
  // From here on the file stands; a late error of close or of the folder is reported, nothing is
  // removed.
  if (const int error = state_->file.close(); error != 0) {
    throw_write_error(kGgufWriterWhere, state_->path, error, state_->total);
  }
  files.sync_directory(state_->path.parent_path());
}

}  // namespace kamerton::storage
