// SPDX-License-Identifier: Apache-2.0
#include "kamerton/transport/gate.h"

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "kamerton/core/error.h"
#include "kamerton/privacy/certificate.h"
#include "kamerton/privacy/roster.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::transport {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostCertificate = 64 << 10;
constexpr uint64_t kMostRoster = 64 << 20;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// The roster as it is on disk now.
class RosterFile {
 public:
  explicit RosterFile(const fs::path& folder)
      : path_(folder / "roster.json"),
        authority_pem_(
            storage::posix_filesystem().read_file(folder / "authority.pem", kMostCertificate)),
        key_(privacy::read_certificate(authority_pem_).key) {}

  std::string admit(const std::string& pem) {
    const privacy::CertificateInfo info = privacy::verify_certificate(pem, authority_pem_, now());
    return read().admit(info, privacy::Role::Site, now()).name;
  }

  privacy::SecureSite member(const std::string& name) {
    const privacy::Roster roster = read();
    const privacy::Member* found = roster.find(name);
    if (found == nullptr || found->revoked_at != 0) {
      throw core::Error(
          core::ErrorKind::Permission,
          {.where = "transport.gate", .what = "a site is not in the roster any more", .got = name});
    }
    return {found->id, found->name, found->key};
  }

 private:
  privacy::Roster read() {
    const std::lock_guard lock(mutex_);
    const auto stamp = std::pair(fs::last_write_time(path_), fs::file_size(path_));
    if (!roster_.has_value() || stamp != stamp_) {
      privacy::Roster fresh = privacy::Roster::from_signed_text(
          storage::posix_filesystem().read_file(path_, kMostRoster), key_);
      if (roster_.has_value() && fresh.version < roster_->version) {
        throw core::Error(
            core::ErrorKind::Permission,
            {.where = "transport.gate", .what = "the roster is older than one that was in force"});
      }
      roster_ = std::move(fresh);
      stamp_ = stamp;
    }
    return *roster_;
  }

  fs::path path_;
  std::string authority_pem_;
  privacy::PublicKey key_;
  std::mutex mutex_;
  std::optional<privacy::Roster> roster_;
  std::pair<fs::file_time_type, uintmax_t> stamp_;
};

}  // namespace

Admit admit_sites(const fs::path& authority_folder) {
  const auto roster = std::make_shared<RosterFile>(authority_folder);
  return [roster](const std::string& pem) { return roster->admit(pem); };
}

std::function<privacy::SecureSite(const std::string&)> members_of(
    const fs::path& authority_folder) {
  const auto roster = std::make_shared<RosterFile>(authority_folder);
  return [roster](const std::string& name) { return roster->member(name); };
}

Admit admit_coordinator(const fs::path& authority_certificate) {
  const std::string authority =
      storage::posix_filesystem().read_file(authority_certificate, kMostCertificate);
  return [authority](const std::string& pem) {
    const privacy::CertificateInfo info = privacy::verify_certificate(pem, authority, now());
    if (info.role != privacy::Role::Coordinator) {
      throw core::Error(core::ErrorKind::Permission,
                        {.where = "transport.gate",
                         .what = "this is not a coordinator's certificate",
                         .got = info.name + ", " + std::string(privacy::name_of(info.role))});
    }
    return info.name;
  };
}

}  // namespace kamerton::transport
