// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include <openssl/asn1.h>

#include "kamerton/privacy/keys.h"

namespace kamerton::privacy {

/// Seconds since 1970.
int64_t seconds_of(const ASN1_TIME* time);
void set_seconds(ASN1_TIME* time, int64_t seconds);

/// Of a key as a certificate holds it.
std::string fingerprint_of(const PublicKey& key);

}  // namespace kamerton::privacy
