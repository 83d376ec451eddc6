// SPDX-License-Identifier: Apache-2.0
// The form of an audit record on the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/audit_log.h"

namespace kamerton::privacy {

inline constexpr uint64_t kMaxAuditBytes = uint64_t{1} << 32;
inline constexpr size_t kMaxAuditLine = size_t{1} << 20;
inline constexpr char kRecordPurpose[] = "audit record";
inline constexpr char kHeadPurpose[] = "audit head";

/// One line of JSON without its end: the record, the digest of the line before, and a signature
/// over the line as it is without the signature.
std::string audit_line(const AuditRecord& record,
                       const std::string& previous,
                       const SigningKey& key);

std::filesystem::path head_path(const std::filesystem::path& path);

AuditReport verify_audit_text(std::string_view text,
                              const std::filesystem::path& path,
                              const PublicKey& key,
                              const std::vector<AuditHead>& known);

}  // namespace kamerton::privacy
