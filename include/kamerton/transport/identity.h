// SPDX-License-Identifier: Apache-2.0
// The files that a member of a federation shows itself with.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace kamerton::transport {

/// A folder with member.key (PEM, mode 0600), member.pem (certificate) and authority.pem. The key
/// and the certificate are looked at again while a server or client runs: a renewed pair serves the
/// next connection.
struct Identity {
  std::filesystem::path folder;

  std::filesystem::path key() const { return folder / "member.key"; }
  std::filesystem::path certificate() const { return folder / "member.pem"; }
  std::filesystem::path authority() const { return folder / "authority.pem"; }
  /// Throws ErrorKind::Config naming a file that is missing, ErrorKind::Permission for a
  /// certificate that its authority has not issued or that is not valid now, by this machine's
  /// clock: the other side would only see a failed handshake.
  void check() const;
};

/// From the other side's certificate (PEM) to its name; throws ErrorKind::Permission for one that
/// may not speak (now): asked at every call.
using Admit = std::function<std::string(const std::string& certificate)>;

}  // namespace kamerton::transport
