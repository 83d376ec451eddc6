// SPDX-License-Identifier: Apache-2.0
#include "openssl_handle.h"

#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/pem.h>

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kOpensslHandleWhere[] = "privacy.certificate";
constexpr size_t kMaxPem = size_t{64} << 10;

void check_size(std::string_view pem, const std::string& what) {
  if (pem.empty() || pem.size() > kMaxPem) {
    bad_data(
        kOpensslHandleWhere, what + " is empty or too long", std::to_string(pem.size()) + " bytes");
  }
}

/// A key file must never make a program wait for a passphrase.
int no_passphrase(char*, int, int, void*) {
  return -1;
}

}  // namespace

Bio reading(std::string_view bytes) {
  Bio bio(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
  library_check(bio != nullptr, "BIO_new_mem_buf");
  return bio;
}

Bio writing() {
  Bio bio(BIO_new(BIO_s_mem()));
  library_check(bio != nullptr, "BIO_new");
  return bio;
}

std::string text_of(BIO* bio) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  return {bytes, static_cast<size_t>(size)};
}

Key private_key(const SigningKey& key) {
  Key result(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, key.seed().data(), Secret::kBytes));
  library_check(result != nullptr, "EVP_PKEY_new_raw_private_key");
  return result;
}

PublicKey raw_public_key(EVP_PKEY* key, const std::string& what) {
  PublicKey raw;
  size_t size = raw.size();
  if (key == nullptr || EVP_PKEY_id(key) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_public_key(key, raw.data(), &size) != 1 || size != raw.size()) {
    ERR_clear_error();
    bad_data(kOpensslHandleWhere, what + " does not hold an Ed25519 key");
  }
  return raw;
}

Certificate parse_certificate(std::string_view pem) {
  check_size(pem, "a certificate");
  const Bio bio = reading(pem);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) {
    bad_data(kOpensslHandleWhere, "this is not a certificate in PEM form");
  }
  return certificate;
}

Request parse_request(std::string_view pem) {
  check_size(pem, "a certificate request");
  const Bio bio = reading(pem);
  Request request(PEM_read_bio_X509_REQ(bio.get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  if (request == nullptr) {
    bad_data(kOpensslHandleWhere, "this is not a certificate request in PEM form");
  }
  return request;
}

std::string name_entry(const X509_NAME* name, int nid, const std::string& what) {
  const int at = X509_NAME_get_index_by_NID(name, nid, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0) {
    bad_data(kOpensslHandleWhere, what + " must have exactly one " + OBJ_nid2ln(nid));
  }
  unsigned char* bytes = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&bytes, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
  if (size < 0) {
    ERR_clear_error();
    bad_data(kOpensslHandleWhere, what + " has a name that is not text");
  }
  std::string text(reinterpret_cast<char*>(bytes), static_cast<size_t>(size));
  OPENSSL_free(bytes);
  return text;
}

void fill_name(X509_NAME* name,
               const std::string& federation,
               std::string_view role,
               const std::string& member) {
  const auto add = [&](int nid, std::string_view text) {
    library_check(X509_NAME_add_entry_by_NID(name,
                                             nid,
                                             MBSTRING_UTF8,
                                             reinterpret_cast<const unsigned char*>(text.data()),
                                             static_cast<int>(text.size()),
                                             -1,
                                             0) == 1,
                  "X509_NAME_add_entry_by_NID");
  };
  add(NID_organizationName, federation);
  add(NID_organizationalUnitName, role);
  add(NID_commonName, member);
}

}  // namespace kamerton::privacy
