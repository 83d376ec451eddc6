// SPDX-License-Identifier: Apache-2.0
#include "zip_directory.h"

#include <algorithm>
#include <cstring>

#include "kamerton/core/error.h"

namespace kamerton::storage {
namespace {

constexpr uint32_t kLocal = 0x04034b50;
constexpr uint32_t kCentral = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kLocator64 = 0x07064b50;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kLocatorBytes = 20;
constexpr uint64_t kCentralBytes = 46;
constexpr uint64_t kLocalBytes = 30;
constexpr uint64_t kMaxComment = 65'535;
constexpr uint64_t kMaxRecords = 1'000'000;

class Zip {
 public:
  Zip(std::span<const std::byte> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  std::map<std::string, ZipRecord, std::less<>> read() {
    uint64_t count = 0;
    uint64_t at = 0;
    find_directory(count, at);
    if (count > std::min(kMaxRecords, bytes_.size() / kCentralBytes)) {
      reject("its directory cannot have so many records", std::to_string(count));
    }
    std::map<std::string, ZipRecord, std::less<>> records;
    for (uint64_t i = 0; i < count; ++i) {
      at = read_record(at, records);
    }
    return records;
  }

 private:
  [[noreturn]] void reject(const std::string& what, const std::string& got = "") const {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "storage.zip",
                       .what = "'" + origin_ + "': " + what,
                       .got = got,
                       .allowed = "",
                       .hint = "fetching the file again"});
  }

  template <class T>
  T number(uint64_t at) const {
    if (at > bytes_.size() || sizeof(T) > bytes_.size() - at) {
      reject("the archive's directory points beyond the file", std::to_string(at));
    }
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }

  /// The end record is the last thing in the file but for a comment.
  uint64_t find_end() const {
    const uint64_t size = bytes_.size();
    if (size >= kEndBytes) {
      const uint64_t last = size - kEndBytes;
      const uint64_t first = last - std::min(last, kMaxComment);
      for (uint64_t at = last + 1; at-- > first;) {
        if (number<uint32_t>(at) == kEnd && number<uint16_t>(at + 20) == last - at) {
          return at;
        }
      }
    }
    reject(
        "it is no zip archive: torch.save has written such since PyTorch 1.6, and older files "
        "are not read");
  }

  void find_directory(uint64_t& count, uint64_t& at) const {
    const uint64_t end = find_end();
    count = number<uint16_t>(end + 10);
    at = number<uint32_t>(end + 16);
    if (end >= kLocatorBytes && number<uint32_t>(end - kLocatorBytes) == kLocator64) {
      const auto end64 = number<uint64_t>(end - kLocatorBytes + 8);
      if (end64 > bytes_.size() || number<uint32_t>(end64) != kEnd64) {
        reject("its 64-bit end record is not where it should be", std::to_string(end64));
      }
      count = number<uint64_t>(end64 + 32);
      at = number<uint64_t>(end64 + 48);
    }
  }

  /// Sizes and offset that do not fit 32 bits stand in an extra field, in this order.
  void read_zip64(uint64_t at, uint64_t length, uint64_t* fields[3]) const {
    const uint64_t end = at + length;
    while (end - at >= 4) {
      const auto id = number<uint16_t>(at);
      const uint64_t size = number<uint16_t>(at + 2);
      at += 4;
      if (size > end - at) {
        reject("a record's extra field is longer than its place");
      }
      for (uint64_t used = 0, i = 0; id == 1 && i < 3; ++i) {
        if (*fields[i] == 0xffffffffU && size - used >= 8) {
          *fields[i] = number<uint64_t>(at + used);
          used += 8;
        }
      }
      at += size;
    }
  }

  uint64_t read_record(uint64_t at, std::map<std::string, ZipRecord, std::less<>>& records) const {
    if (number<uint32_t>(at) != kCentral) {
      reject("a record of its directory is damaged", "byte " + std::to_string(at));
    }
    const auto flags = number<uint16_t>(at + 8);
    const auto method = number<uint16_t>(at + 10);
    uint64_t stored = number<uint32_t>(at + 20);
    uint64_t size = number<uint32_t>(at + 24);
    uint64_t local = number<uint32_t>(at + 42);
    const uint64_t name_length = number<uint16_t>(at + 28);
    const uint64_t extra_length = number<uint16_t>(at + 30);
    const uint64_t next =
        at + kCentralBytes + name_length + extra_length + number<uint16_t>(at + 32);
    if (next > bytes_.size()) {
      reject("a record of its directory ends beyond the file", "byte " + std::to_string(at));
    }
    uint64_t* fields[3] = {&size, &stored, &local};
    read_zip64(at + kCentralBytes + name_length, extra_length, fields);
    std::string name(reinterpret_cast<const char*>(bytes_.data() + at + kCentralBytes),
                     name_length);
    if (method != 0 || (flags & 1U) != 0 || stored != size) {
      reject("record '" + name + "' is compressed or encrypted; only stored ones are read");
    }
    if (!records.emplace(name, ZipRecord{data_of(name, local, size), size}).second) {
      reject("record '" + name + "' occurs twice");
    }
    return next;
  }

  /// Where a record's bytes begin: behind its local header, whose lengths are its own.
  uint64_t data_of(const std::string& name, uint64_t local, uint64_t size) const {
    if (local > bytes_.size() || number<uint32_t>(local) != kLocal) {
      reject("record '" + name + "' is not where the directory says", std::to_string(local));
    }
    const uint64_t begin =
        local + kLocalBytes + number<uint16_t>(local + 26) + number<uint16_t>(local + 28);
    if (begin > bytes_.size() || size > bytes_.size() - begin) {
      reject("record '" + name + "' ends beyond the file",
             std::to_string(begin) + " + " + std::to_string(size));
    }
    return begin;
  }

  std::span<const std::byte> bytes_;
  const std::string& origin_;
};

}  // namespace

std::map<std::string, ZipRecord, std::less<>> read_zip_directory(std::span<const std::byte> bytes,
                                                                 const std::string& origin) {
  return Zip(bytes, origin).read();
}

}  // namespace kamerton::storage
