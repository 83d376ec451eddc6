// SPDX-License-Identifier: Apache-2.0
// The bytes of a TensorBoard event file. Formats: TFRecord framing
// (tensorflow/core/lib/io/record_writer.h) and the protocol buffers Event and Summary
// (tensorflow/core/util/event.proto, framework/summary.proto), fields as named below.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kamerton::telemetry {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78).
uint32_t crc32c(std::string_view bytes);
/// The rotation that TFRecord applies, so that a CRC of data that holds CRCs stays useful.
uint32_t masked_crc32c(std::string_view bytes);

/// length (8 bytes, little endian), masked CRC of the length, the bytes, masked CRC of the bytes.
std::string frame_record(std::string_view bytes);

/// Event{wall_time = 1, file_version = 3: "brain.Event:2"}: the first record of a file.
std::string encode_version_event(double wall_time_s);
/// Event{wall_time = 1, step = 2, summary = 5 {value = 1 {tag = 1, simple_value = 2} ...}}.
std::string encode_scalar_event(double wall_time_s,
                                int64_t step,
                                const std::vector<std::pair<std::string, float>>& scalars);

}  // namespace kamerton::telemetry
