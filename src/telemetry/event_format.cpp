// SPDX-License-Identifier: Apache-2.0
#include "event_format.h"

#include <array>
#include <bit>

namespace kamerton::telemetry {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 1U) != 0 ? (crc >> 1) ^ 0x82F63B78U : crc >> 1;
    }
    table[i] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

enum class WireType : uint32_t { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

template <class Unsigned>
void append_little_endian(std::string& out, Unsigned value) {
  for (size_t i = 0; i < sizeof(value); ++i) {
    out += static_cast<char>(value >> (8 * i) & 0xFF);
  }
}

void append_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>((value & 0x7F) | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

void append_tag(std::string& out, uint32_t field, WireType type) {
  append_varint(out, field << 3 | static_cast<uint32_t>(type));
}

void append_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  append_tag(out, field, WireType::Bytes);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_double(std::string& out, uint32_t field, double value) {
  append_tag(out, field, WireType::Fixed64);
  append_little_endian(out, std::bit_cast<uint64_t>(value));
}

void append_float(std::string& out, uint32_t field, float value) {
  append_tag(out, field, WireType::Fixed32);
  append_little_endian(out, std::bit_cast<uint32_t>(value));
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFU;
  for (const char c : bytes) {
    crc = kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xFFU] ^ (crc >> 8);
  }
  return crc ^ 0xFFFFFFFFU;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8U;
}

std::string frame_record(std::string_view bytes) {
  std::string frame;
  frame.reserve(bytes.size() + 16);
  append_little_endian(frame, static_cast<uint64_t>(bytes.size()));
  append_little_endian(frame, masked_crc32c(frame));
  frame += bytes;
  append_little_endian(frame, masked_crc32c(bytes));
  return frame;
}

std::string encode_version_event(double wall_time_s) {
  std::string event;
  append_double(event, 1, wall_time_s);
  append_bytes(event, 3, "brain.Event:2");
  return event;
}

std::string encode_scalar_event(double wall_time_s,
                                int64_t step,
                                const std::vector<std::pair<std::string, float>>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    append_bytes(value, 1, tag);
    append_float(value, 2, number);
    append_bytes(summary, 1, value);
  }
  std::string event;
  append_double(event, 1, wall_time_s);
  append_tag(event, 2, WireType::Varint);
  append_varint(event, static_cast<uint64_t>(step));
  append_bytes(event, 5, summary);
  return event;
}

}  // namespace kamerton::telemetry
