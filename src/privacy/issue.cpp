// SPDX-License-Identifier: Apache-2.0
#include "issue.h"

#include <array>

#include <openssl/obj_mac.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "certificate_time.h"
#include "faults.h"
#include "openssl_handle.h"

namespace kamerton::privacy {
namespace {

constexpr int64_t kDay = 86400;
/// Clocks of sites differ; a certificate is good a little earlier.
constexpr int64_t kEarly = 300;

void add_extension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  const bool good = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  library_check(good, "X509_add_ext");
}

Certificate start(EVP_PKEY* subject, int64_t now, int64_t days, RandomSource& random) {
  Certificate certificate(X509_new());
  library_check(certificate != nullptr && X509_set_version(certificate.get(), 2) == 1 &&
                    X509_set_pubkey(certificate.get(), subject) == 1,
                "X509_new");
  std::array<uint8_t, 16> serial;
  random.fill(serial);
  serial[0] = static_cast<uint8_t>((serial[0] & 0x3f) | 0x40);  // positive, of full length
  BIGNUM* number = BN_bin2bn(serial.data(), serial.size(), nullptr);
  const bool good = number != nullptr &&
                    BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate.get())) != nullptr;
  BN_free(number);
  library_check(good, "BN_to_ASN1_INTEGER");
  set_seconds(X509_getm_notBefore(certificate.get()), now - kEarly);
  set_seconds(X509_getm_notAfter(certificate.get()), now + days * kDay);
  return certificate;
}

std::string finish(X509* certificate, const SigningKey& key) {
  const Key signer = private_key(key);
  library_check(X509_sign(certificate, signer.get(), nullptr) > 0, "X509_sign");
  const Bio bio = writing();
  library_check(PEM_write_bio_X509(bio.get(), certificate) == 1, "PEM_write_bio_X509");
  return text_of(bio.get());
}

}  // namespace

std::string issue_root(const SigningKey& key,
                       const std::string& federation,
                       int64_t now,
                       int64_t days,
                       RandomSource& random) {
  const Key own = private_key(key);
  const Certificate certificate = start(own.get(), now, days, random);
  X509_NAME* name = X509_get_subject_name(certificate.get());
  fill_name(name, federation, name_of(Role::Authority), federation);
  library_check(X509_set_issuer_name(certificate.get(), name) == 1, "X509_set_issuer_name");
  add_extension(
      certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  add_extension(
      certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash");
  return finish(certificate.get(), key);
}

std::string issue_member(const SigningKey& authority,
                         const std::string& authority_pem,
                         const RequestInfo& request,
                         int64_t now,
                         int64_t days,
                         RandomSource& random) {
  const Certificate root = parse_certificate(authority_pem);
  const Key subject(EVP_PKEY_new_raw_public_key(
      EVP_PKEY_ED25519, nullptr, request.key.data(), request.key.size()));
  library_check(subject != nullptr, "EVP_PKEY_new_raw_public_key");
  const Certificate certificate = start(subject.get(), now, days, random);
  fill_name(X509_get_subject_name(certificate.get()),
            request.federation,
            name_of(request.role),
            request.name);
  library_check(X509_set_issuer_name(certificate.get(), X509_get_subject_name(root.get())) == 1,
                "X509_set_issuer_name");
  X509* raw = certificate.get();
  add_extension(raw, root.get(), NID_basic_constraints, "critical,CA:FALSE");
  add_extension(raw, root.get(), NID_key_usage, "critical,digitalSignature");
  add_extension(raw,
                root.get(),
                NID_ext_key_usage,
                request.role == Role::Coordinator ? "serverAuth,clientAuth" : "clientAuth");
  add_extension(raw, root.get(), NID_subject_alt_name, ("DNS:" + request.name).c_str());
  add_extension(raw, root.get(), NID_subject_key_identifier, "hash");
  add_extension(raw, root.get(), NID_authority_key_identifier, "keyid:always");
  return finish(raw, authority);
}

std::string issue_revocations(const SigningKey& authority,
                              const std::string& authority_pem,
                              const Roster& roster,
                              int64_t now) {
  const Certificate root = parse_certificate(authority_pem);
  const RevocationList list(X509_CRL_new());
  library_check(list != nullptr && X509_CRL_set_version(list.get(), 1) == 1 &&
                    X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(root.get())) == 1,
                "X509_CRL_new");
  ASN1_TIME* time = ASN1_TIME_set(nullptr, static_cast<time_t>(now - kEarly));
  library_check(time != nullptr && X509_CRL_set1_lastUpdate(list.get(), time) == 1,
                "X509_CRL_set1_lastUpdate");
  set_seconds(time, now + 30 * kDay);
  library_check(X509_CRL_set1_nextUpdate(list.get(), time) == 1, "X509_CRL_set1_nextUpdate");
  for (const RevokedCertificate& one : roster.revoked) {
    BIGNUM* number = nullptr;
    library_check(BN_hex2bn(&number, one.serial.c_str()) > 0, "BN_hex2bn");
    ASN1_INTEGER* serial = BN_to_ASN1_INTEGER(number, nullptr);
    BN_free(number);
    set_seconds(time, one.time);
    X509_REVOKED* revoked = X509_REVOKED_new();
    library_check(serial != nullptr && X509_REVOKED_set_serialNumber(revoked, serial) == 1 &&
                      X509_REVOKED_set_revocationDate(revoked, time) == 1 &&
                      X509_CRL_add0_revoked(list.get(), revoked) == 1,
                  "X509_CRL_add0_revoked");
    ASN1_INTEGER_free(serial);
  }
  ASN1_TIME_free(time);
  ASN1_INTEGER* number = ASN1_INTEGER_new();
  library_check(number != nullptr && ASN1_INTEGER_set_uint64(number, roster.version) == 1 &&
                    X509_CRL_add1_ext_i2d(list.get(), NID_crl_number, number, 0, 0) == 1,
                "X509_CRL_add1_ext_i2d");
  ASN1_INTEGER_free(number);
  const Key signer = private_key(authority);
  library_check(
      X509_CRL_sort(list.get()) == 1 && X509_CRL_sign(list.get(), signer.get(), nullptr) > 0,
      "X509_CRL_sign");
  const Bio bio = writing();
  library_check(PEM_write_bio_X509_CRL(bio.get(), list.get()) == 1, "PEM_write_bio_X509_CRL");
  return text_of(bio.get());
}

}  // namespace kamerton::privacy
