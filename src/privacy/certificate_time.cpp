// SPDX-License-Identifier: Apache-2.0
#include "certificate_time.h"

#include <ctime>

#include <openssl/err.h>

#include "faults.h"

namespace kamerton::privacy {

int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) {
    ERR_clear_error();
    bad_data("privacy.certificate", "a certificate has a date that is none");
  }
  return static_cast<int64_t>(::timegm(&parts));
}

void set_seconds(ASN1_TIME* time, int64_t seconds) {
  library_check(ASN1_TIME_set(time, static_cast<time_t>(seconds)) != nullptr, "ASN1_TIME_set");
}

}  // namespace kamerton::privacy
