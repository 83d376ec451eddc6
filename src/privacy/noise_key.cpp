// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/noise_key.h"

#include "kamerton/privacy/certificate.h"
#include "kamerton/storage/filesystem.h"

#include "locked_file.h"

namespace kamerton::privacy {

Secret noise_key(const std::filesystem::path& folder) {
  storage::posix_filesystem().make_directories(folder);
  const std::filesystem::path path = folder / "noise.key";
  const LockedFile lock(folder / "noise.lock", LockedFile::Mode::Create);
  return std::filesystem::exists(path) ? read_key_file(path).seed() : make_key_file(path).seed();
}

}  // namespace kamerton::privacy
