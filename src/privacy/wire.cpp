// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/wire.h"

#include <bit>
#include <cstring>

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kWireWhere[] = "privacy.wire";
constexpr std::string_view kWireStart = "KPRV";

}  // namespace

WireWriter::WireWriter(uint16_t kind, uint16_t version) {
  bytes_ = kWireStart;
  u16(kind);
  u16(version);
}

void WireWriter::integer(uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    bytes_ += static_cast<char>((value >> (8 * i)) & 0xff);
  }
}

void WireWriter::u8(uint8_t value) {
  integer(value, 1);
}
void WireWriter::u16(uint16_t value) {
  integer(value, 2);
}
void WireWriter::u32(uint32_t value) {
  integer(value, 4);
}
void WireWriter::u64(uint64_t value) {
  integer(value, 8);
}
void WireWriter::f64(double value) {
  integer(std::bit_cast<uint64_t>(value), 8);
}

void WireWriter::raw(std::span<const uint8_t> bytes) {
  bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void WireWriter::text(std::string_view bytes) {
  if (bytes.size() > UINT32_MAX) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kWireWhere, .what = "a string is too long for a message"});
  }
  u32(static_cast<uint32_t>(bytes.size()));
  bytes_ += bytes;
}

WireReader::WireReader(std::string_view bytes, std::string what)
    : rest_(bytes), what_(std::move(what)) {}

WireReader::WireReader(std::string_view bytes, uint16_t kind, uint16_t version, std::string what)
    : rest_(bytes), what_(std::move(what)) {
  if (take(kWireStart.size()) != kWireStart) {
    refuse("it does not begin as our messages do");
  }
  if (const uint16_t found = u16(); found != kind) {
    refuse("it is another kind of message", std::to_string(found));
  }
  if (const uint16_t found = u16(); found != version) {
    refuse("its version is not ours (" + std::to_string(version) + ")", std::to_string(found));
  }
}

void WireReader::refuse(const std::string& why, const std::string& got) const {
  bad_data(kWireWhere, what_ + " is not valid: " + why, got);
}

std::string_view WireReader::take(size_t bytes) {
  if (bytes > rest_.size()) {
    refuse(
        "it ends early",
        std::to_string(rest_.size()) + " bytes where " + std::to_string(bytes) + " were expected");
  }
  const std::string_view piece = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return piece;
}

uint64_t WireReader::integer(int bytes) {
  const std::string_view piece = take(static_cast<size_t>(bytes));
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(piece[static_cast<size_t>(i)])) << (8 * i);
  }
  return value;
}

uint8_t WireReader::u8() {
  return static_cast<uint8_t>(integer(1));
}
uint16_t WireReader::u16() {
  return static_cast<uint16_t>(integer(2));
}
uint32_t WireReader::u32() {
  return static_cast<uint32_t>(integer(4));
}
uint64_t WireReader::u64() {
  return integer(8);
}
double WireReader::f64() {
  return std::bit_cast<double>(integer(8));
}

void WireReader::raw(std::span<uint8_t> bytes) {
  const std::string_view piece = take(bytes.size());
  std::memcpy(bytes.data(), piece.data(), piece.size());
}

std::string WireReader::text(size_t max_bytes) {
  const uint32_t length = u32();
  if (length > max_bytes) {
    refuse("a string is longer than " + std::to_string(max_bytes) + " bytes",
           std::to_string(length));
  }
  return std::string(take(length));
}

size_t WireReader::count(size_t max_count, size_t bytes_each) {
  const uint32_t found = u32();
  if (found > max_count) {
    refuse("a list is longer than " + std::to_string(max_count), std::to_string(found));
  }
  if (found * bytes_each > rest_.size()) {
    refuse("a list is longer than the message", std::to_string(found));
  }
  return found;
}

void WireReader::finish() const {
  if (!rest_.empty()) {
    refuse("bytes follow its end", std::to_string(rest_.size()));
  }
}

}  // namespace kamerton::privacy
