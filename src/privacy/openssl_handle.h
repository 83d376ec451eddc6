// SPDX-License-Identifier: Apache-2.0
// OpenSSL's objects, owned.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "kamerton/privacy/keys.h"

namespace kamerton::privacy {

template <auto Free>
struct FreeWith {
  template <class Object>
  void operator()(Object* object) const {
    Free(object);
  }
};

using Bio = std::unique_ptr<BIO, FreeWith<&BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, FreeWith<&EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<&X509_free>>;
using Request = std::unique_ptr<X509_REQ, FreeWith<&X509_REQ_free>>;
using RevocationList = std::unique_ptr<X509_CRL, FreeWith<&X509_CRL_free>>;

/// A BIO over bytes that outlive it.
Bio reading(std::string_view bytes);
Bio writing();
std::string text_of(BIO* bio);

Key private_key(const SigningKey& key);
/// Throws ErrorKind::Data naming `what` unless it is an Ed25519 key.
PublicKey raw_public_key(EVP_PKEY* key, const std::string& what);

/// One certificate of at most 64 KiB; ErrorKind::Data otherwise.
Certificate parse_certificate(std::string_view pem);
Request parse_request(std::string_view pem);

/// The entry of a name that is there exactly once; ErrorKind::Data otherwise.
std::string name_entry(const X509_NAME* name, int nid, const std::string& what);
/// organization, organizational unit, common name.
void fill_name(X509_NAME* name,
               const std::string& federation,
               std::string_view role,
               const std::string& member);

}  // namespace kamerton::privacy
