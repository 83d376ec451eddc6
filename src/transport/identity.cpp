// SPDX-License-Identifier: Apache-2.0
#include "kamerton/transport/identity.h"

#include "kamerton/core/error.h"

namespace kamerton::transport {

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
}

}  // namespace kamerton::transport
