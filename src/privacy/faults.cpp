// SPDX-License-Identifier: Apache-2.0
#include "faults.h"

#include <sodium.h>

namespace kamerton::privacy {

void refuse(const std::string& where,
            const std::string& what,
            const std::string& got,
            const std::string& allowed,
            const std::string& hint) {
  throw core::Error(core::ErrorKind::Permission,
                    {.where = where, .what = what, .got = got, .allowed = allowed, .hint = hint});
}

void bad_data(const std::string& where,
              const std::string& what,
              const std::string& got,
              const std::string& allowed) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = where, .what = what, .got = got, .allowed = allowed});
}

void bad_choice(const std::string& where,
                const std::string& what,
                const std::string& got,
                const std::string& allowed,
                const std::string& hint) {
  throw core::Error(core::ErrorKind::Config,
                    {.where = where, .what = what, .got = got, .allowed = allowed, .hint = hint});
}

void library_check(bool good, const char* call) {
  if (!good) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "privacy", .what = std::string(call) + " failed"});
  }
}

void start_sodium() {
  library_check(sodium_init() >= 0, "sodium_init");
}

}  // namespace kamerton::privacy
