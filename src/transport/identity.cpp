// SPDX-License-Identifier: Apache-2.0
#include "kamerton/transport/identity.h"

#include <chrono>

#include "kamerton/core/error.h"
#include "kamerton/privacy/certificate.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::transport {
namespace {

constexpr uint64_t kMostOfIdentity = 1 << 16;

}  // namespace

void Identity::check() const {
  for (const std::filesystem::path& file : {key(), certificate(), authority()}) {
    if (!std::filesystem::exists(file)) {
      throw core::Error(core::ErrorKind::Config,
                        {.where = "transport.identity",
                         .what = "a file of the identity is missing",
                         .got = file.string(),
                         .hint = "kamerton federate join makes the folder"});
    }
  }
  const auto read = [](const std::filesystem::path& file) {
    return storage::posix_filesystem().read_file(file, kMostOfIdentity);
  };
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  privacy::verify_certificate(read(certificate()),
                              read(authority()),
                              std::chrono::duration_cast<std::chrono::seconds>(now).count());
}

}  // namespace kamerton::transport
