// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/certificate.h"

#include <algorithm>

#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"

#include "certificate_time.h"
#include "faults.h"
#include "json_line.h"
#include "locked_file.h"
#include "openssl_handle.h"

namespace kamerton::privacy {
namespace {

constexpr char kCertificateWhere[] = "privacy.certificate";
constexpr std::pair<Role, std::string_view> kRoles[] = {{Role::Authority, "authority"},
                                                        {Role::Coordinator, "coordinator"},
                                                        {Role::Site, "site"},
                                                        {Role::Auditor, "auditor"}};

std::string serial_of(const X509* certificate) {
  BIGNUM* number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr);
  char* digits = number == nullptr ? nullptr : BN_bn2hex(number);
  BN_free(number);
  library_check(digits != nullptr, "BN_bn2hex");
  std::string text = digits;
  OPENSSL_free(digits);
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

/// The members of a subject name that carry meaning here.
struct Subject {
  std::string name;
  Role role;
  std::string federation;
};

Subject subject_of(const X509_NAME* name, const std::string& what) {
  Subject subject{.name = name_entry(name, NID_commonName, what),
                  .role = role_named(name_entry(name, NID_organizationalUnitName, what)),
                  .federation = name_entry(name, NID_organizationName, what)};
  try {
    check_member_name(subject.name);
    check_member_name(subject.federation);
  } catch (const core::Error& error) {
    bad_data(kCertificateWhere, what + ": " + error.what());
  }
  return subject;
}

}  // namespace

std::string fingerprint_of(const PublicKey& key) {
  // The fixed DER head of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
  constexpr uint8_t kHead[] = {
      0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
  std::string info(reinterpret_cast<const char*>(kHead), sizeof kHead);
  info.append(reinterpret_cast<const char*>(key.data()), key.size());
  return storage::to_hex(storage::digest_of(info));
}

std::string_view name_of(Role role) noexcept {
  for (const auto& [known, name] : kRoles) {
    if (known == role) {
      return name;
    }
  }
  return "site";
}

Role role_named(std::string_view name) {
  for (const auto& [role, known] : kRoles) {
    if (known == name) {
      return role;
    }
  }
  bad_data(kCertificateWhere,
           "there is no such role",
           "'" + std::string(name.substr(0, 64)) + "'",
           "authority, coordinator, site, auditor");
}

void check_member_name(std::string_view name) {
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const bool good = !name.empty() && name.size() <= 64 && letter(name.front()) &&
                    std::all_of(name.begin(), name.end(), [&](char c) {
                      return letter(c) || c == '.' || c == '-' || c == '_';
                    });
  if (!good) {
    bad_choice(
        kCertificateWhere,
        "a name has 1 to 64 letters, digits, '.', '-' or '_' and begins with a letter or digit",
        "'" + std::string(name.substr(0, 80)) + "'");
  }
}

CertificateInfo read_certificate(std::string_view pem) {
  const Certificate certificate = parse_certificate(pem);
  const Subject subject = subject_of(X509_get_subject_name(certificate.get()), "a certificate");
  CertificateInfo info{.name = subject.name,
                       .role = subject.role,
                       .federation = subject.federation,
                       .key = raw_public_key(X509_get0_pubkey(certificate.get()), "a certificate"),
                       .serial = serial_of(certificate.get()),
                       .fingerprint = {}};
  info.fingerprint = fingerprint_of(info.key);
  info.not_before = seconds_of(X509_get0_notBefore(certificate.get()));
  info.not_after = seconds_of(X509_get0_notAfter(certificate.get()));
  return info;
}

CertificateInfo verify_certificate(std::string_view pem,
                                   std::string_view authority_pem,
                                   int64_t now) {
  const CertificateInfo authority = read_certificate(authority_pem);
  const CertificateInfo info = read_certificate(pem);
  const Certificate leaf = parse_certificate(pem);
  const Certificate root = parse_certificate(authority_pem);
  const bool is_root = authority.role == Role::Authority && X509_check_ca(root.get()) == 1 &&
                       X509_verify(root.get(), X509_get0_pubkey(root.get())) == 1;
  const bool issued =
      X509_NAME_cmp(X509_get_issuer_name(leaf.get()), X509_get_subject_name(root.get())) == 0 &&
      X509_verify(leaf.get(), X509_get0_pubkey(root.get())) == 1;
  ERR_clear_error();
  const std::string who =
      "the certificate of " + std::string(name_of(info.role)) + " '" + info.name + "'";
  if (!is_root) {
    refuse(kCertificateWhere, "what is given as the authority's certificate is none");
  }
  if (!issued || info.federation != authority.federation) {
    refuse(kCertificateWhere,
           who + " was not issued by the authority of '" + authority.federation + "'");
  }
  for (const CertificateInfo* each : {&authority, &info}) {
    if (now < each->not_before || now > each->not_after) {
      refuse(kCertificateWhere,
             (each == &info ? who : "the authority's certificate") +
                 (now < each->not_before ? " is not valid yet" : " has expired"),
             time_text(now),
             time_text(each->not_before) + " to " + time_text(each->not_after),
             now < each->not_before ? "setting this machine's clock"
                                    : "kamerton federate renew, or setting this machine's clock");
    }
  }
  return info;
}

std::string key_to_pem(const SigningKey& key) {
  const Key handle = private_key(key);
  const Bio bio = writing();
  library_check(PEM_write_bio_PKCS8PrivateKey(
                    bio.get(), handle.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1,
                "PEM_write_bio_PKCS8PrivateKey");
  return text_of(bio.get());
}

SigningKey key_from_pem(std::string_view pem) {
  const Bio bio = reading(pem.substr(0, size_t{64} << 10));
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  Secret seed;
  size_t size = Secret::kBytes;
  const bool good = key != nullptr && EVP_PKEY_id(key.get()) == EVP_PKEY_ED25519 &&
                    EVP_PKEY_get_raw_private_key(key.get(), seed.data(), &size) == 1 &&
                    size == Secret::kBytes;
  ERR_clear_error();
  if (!good) {
    bad_data(kCertificateWhere,
             "this is not an Ed25519 private key in PEM form without a passphrase");
  }
  return SigningKey(seed);
}

SigningKey make_key_file(const std::filesystem::path& path, RandomSource& random) {
  if (std::filesystem::exists(path)) {
    throw core::Error(core::ErrorKind::Output,
                      {.where = kCertificateWhere,
                       .what = "there is a key already, and it is not replaced",
                       .got = "'" + path.string() + "'",
                       .hint = "move it away first"});
  }
  SigningKey key = SigningKey::generate(random);
  std::string pem = key_to_pem(key);
  write_private_file(path, pem);
  wipe(pem.data(), pem.size());
  return key;
}

SigningKey read_key_file(const std::filesystem::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & 077) != 0) {
    refuse(kCertificateWhere,
           "others than the owner can read the private key '" + path.string() + "'",
           {},
           {},
           "chmod 600");
  }
  std::string pem = storage::posix_filesystem().read_file(path, size_t{64} << 10);
  SigningKey key = key_from_pem(pem);
  wipe(pem.data(), pem.size());
  return key;
}

std::string make_request(const SigningKey& key,
                         const std::string& name,
                         Role role,
                         const std::string& federation) {
  check_member_name(name);
  check_member_name(federation);
  const Key handle = private_key(key);
  const Request request(X509_REQ_new());
  library_check(request != nullptr && X509_REQ_set_version(request.get(), 0) == 1 &&
                    X509_REQ_set_pubkey(request.get(), handle.get()) == 1,
                "X509_REQ_new");
  fill_name(X509_REQ_get_subject_name(request.get()), federation, name_of(role), name);
  library_check(X509_REQ_sign(request.get(), handle.get(), nullptr) > 0, "X509_REQ_sign");
  const Bio bio = writing();
  library_check(PEM_write_bio_X509_REQ(bio.get(), request.get()) == 1, "PEM_write_bio_X509_REQ");
  return text_of(bio.get());
}

RequestInfo read_request(std::string_view pem) {
  const Request request = parse_request(pem);
  const Subject subject =
      subject_of(X509_REQ_get_subject_name(request.get()), "a certificate request");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  RequestInfo info{.name = subject.name,
                   .role = subject.role,
                   .federation = subject.federation,
                   .key = raw_public_key(key, "a certificate request")};
  const bool own = X509_REQ_verify(request.get(), key) == 1;
  ERR_clear_error();
  if (!own) {
    bad_data(kCertificateWhere, "a certificate request is not signed with its own key");
  }
  return info;
}

}  // namespace kamerton::privacy
