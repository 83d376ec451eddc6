// SPDX-License-Identifier: Apache-2.0
// Messages as bytes: little-endian integers, strings with a length in front, nothing that could
// allocate more than the message is long.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kamerton::privacy {

class WireWriter {
 public:
  /// Every message starts so: "KPRV", kind, version.
  WireWriter(uint16_t kind, uint16_t version);
  /// Bytes without such a start: what is signed or hashed.
  WireWriter() = default;

  void u8(uint8_t value);
  void u16(uint16_t value);
  void u32(uint32_t value);
  void u64(uint64_t value);
  void f64(double value);
  void raw(std::span<const uint8_t> bytes);
  /// A 32-bit length, then the bytes.
  void text(std::string_view bytes);
  const std::string& bytes() const noexcept { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  void integer(uint64_t value, int bytes);
  std::string bytes_;
};

/// Every getter throws ErrorKind::Data naming `what` when the bytes end early or say something that
/// is not allowed; nothing is allocated before its length has been checked against the rest.
class WireReader {
 public:
  /// Checks the start that WireWriter writes; another kind or version is refused by name.
  WireReader(std::string_view bytes, uint16_t kind, uint16_t version, std::string what);
  WireReader(std::string_view bytes, std::string what);

  uint8_t u8();
  uint16_t u16();
  uint32_t u32();
  uint64_t u64();
  double f64();
  void raw(std::span<uint8_t> bytes);
  std::string text(size_t max_bytes);
  /// A 32-bit count of elements of at least `bytes_each` bytes.
  size_t count(size_t max_count, size_t bytes_each);
  size_t left() const noexcept { return rest_.size(); }
  /// Refuses bytes after the message.
  void finish() const;
  [[noreturn]] void refuse(const std::string& why, const std::string& got = "") const;

 private:
  uint64_t integer(int bytes);
  std::string_view take(size_t bytes);
  std::string_view rest_;
  std::string what_;
};

}  // namespace kamerton::privacy
