// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/authority.h"

#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "bytes.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace kamerton::privacy {
namespace {

constexpr int64_t kNow = 1800000000;
constexpr int64_t kDay = 86400;

struct Federation {
  Federation() : authority(Authority::create(folder.path() / "ca", "north", kNow)) {}

  std::string certificate(const std::string& name, uint64_t lane, Role role = Role::Site) {
    return authority.issue(make_request(key(lane), name, role, "north"), kNow, 30);
  }
  static SigningKey key(uint64_t lane) { return SigningKey(test_random(lane).secret()); }
  CertificateInfo check(const std::string& pem, int64_t now = kNow) const {
    return verify_certificate(pem, authority.certificate(), now);
  }

  support::ScratchFolder folder;
  Authority authority;
};

template <class Body>
void refused(const std::string& why, Body&& body) {
  test::expect_error(core::ErrorKind::Permission, {why}, body);
}

TEST(Authority, IssuesCertificatesThatSayWhoTheyAreFor) {
  Federation north;
  const std::string pem = north.certificate("st-mary", 1);

  const CertificateInfo info = north.check(pem);

  EXPECT_EQ(info.name, "st-mary");
  EXPECT_EQ(info.role, Role::Site);
  EXPECT_EQ(info.federation, "north");
  EXPECT_EQ(info.key, Federation::key(1).public_key());
  EXPECT_EQ(info.not_after, kNow + 30 * kDay);
  EXPECT_EQ(info.fingerprint.size(), 64);
  EXPECT_EQ(north.authority.roster().admit(info, Role::Site, kNow).id, 1);
}

TEST(Authority, IsTheSameAfterItIsOpenedAgain) {
  Federation north;
  const std::string pem = north.certificate("st-mary", 1);
  const Authority again = Authority::open(north.folder.path() / "ca");

  EXPECT_EQ(again.certificate(), north.authority.certificate());
  EXPECT_EQ(again.roster().members.size(), 1);
  test::expect_error(core::ErrorKind::Output, {"key already"}, [&] {
    Authority::create(north.folder.path() / "ca", "north", kNow);
  });
  struct stat status = {};
  ASSERT_EQ(::stat((north.folder.path() / "ca" / "authority.key").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600);
}

TEST(Certificate, OfAnotherAuthorityOrSelfMadeIsRefused) {
  Federation north;
  Federation south;
  const std::string pem = south.certificate("st-mary", 1);

  refused("not issued", [&] { north.check(pem); });
  refused("not issued", [&] { north.check(south.authority.certificate()); });
  refused("is none",
          [&] { verify_certificate(north.certificate("a", 1), north.certificate("b", 2), kNow); });
}

TEST(Certificate, IsGoodBetweenItsDatesOnly) {
  Federation north;
  const std::string pem = north.certificate("st-mary", 1);

  EXPECT_NO_THROW(north.check(pem, kNow + 30 * kDay));
  refused("expired", [&] { north.check(pem, kNow + 30 * kDay + 1); });
  refused("not valid yet", [&] { north.check(pem, kNow - 3600); });
  const CertificateInfo info = north.check(pem);
  refused("expired", [&] { north.authority.roster().admit(info, Role::Site, kNow + 31 * kDay); });
}

TEST(Certificate, AnyDamageIsRefused) {
  Federation north;
  const std::string pem = north.certificate("st-mary", 1);
  size_t accepted = 0;
  for (size_t i = 30; i + 30 < pem.size(); i += 3) {
    std::string damaged = pem;
    damaged[i] = damaged[i] == 'A' ? 'B' : 'A';
    if (damaged == pem) {
      continue;
    }
    try {
      const CertificateInfo info = north.check(damaged);
      // Base64 may hold bits that mean nothing: then it is the same certificate.
      EXPECT_EQ(info.serial, north.check(pem).serial);
      ++accepted;
    } catch (const core::Error& error) {
      EXPECT_TRUE(error.kind() == core::ErrorKind::Data ||
                  error.kind() == core::ErrorKind::Permission);
    }
  }
  EXPECT_LE(accepted, 2);
}

TEST(Roster, AdmitsMembersInTheirRoleWithTheirKeyOnly) {
  Federation north;
  const CertificateInfo site = north.check(north.certificate("st-mary", 1));
  const CertificateInfo boss = north.check(north.certificate("hub", 2, Role::Coordinator));
  const Roster roster = north.authority.roster();
  CertificateInfo stranger = site;
  stranger.name = "st-john";
  CertificateInfo other_key = site;
  other_key.fingerprint = boss.fingerprint;

  EXPECT_EQ(roster.admit(boss, Role::Coordinator, kNow).name, "hub");
  refused("may not act as coordinator", [&] { roster.admit(site, Role::Coordinator, kNow); });
  refused("not a member", [&] { roster.admit(stranger, Role::Site, kNow); });
  refused("another key", [&] { roster.admit(other_key, Role::Site, kNow); });
}

TEST(Roster, IsSignedByTheAuthority) {
  Federation north;
  north.certificate("st-mary", 1);
  const std::string text =
      north.authority.roster().to_signed_text(SigningKey(test_random(77).secret()));
  std::ifstream file(north.folder.path() / "ca" / "roster.json");
  std::string good((std::istreambuf_iterator<char>(file)), {});
  std::string edited = good;
  edited.replace(edited.find("st-mary"), 7, "st-mark");

  refused("not signed", [&] { Roster::from_signed_text(text, north.authority.public_key()); });
  refused("not signed", [&] { Roster::from_signed_text(edited, north.authority.public_key()); });
  EXPECT_NO_THROW(Roster::from_signed_text(good, north.authority.public_key()));
}

TEST(Authority, RevocationTakesEffectAtOnceAndForGood) {
  Federation north;
  const std::string pem = north.certificate("st-mary", 1);
  const CertificateInfo info = north.check(pem);
  const storage::Digest before = north.authority.roster().digest();

  north.authority.revoke("st-mary", "laptop lost", kNow + 5);

  const Roster roster = Authority::open(north.folder.path() / "ca").roster();
  refused("revoked (laptop lost)", [&] { roster.admit(info, Role::Site, kNow + 6); });
  EXPECT_NE(roster.digest(), before);
  EXPECT_EQ(roster.revoked.size(), 1);
  EXPECT_NE(north.authority.revocation_list().find("BEGIN X509 CRL"), std::string::npos);
  refused("names are not used twice", [&] { north.certificate("st-mary", 3); });
  refused("revoked", [&] {
    const std::string request = make_request(Federation::key(1), "st-mary", Role::Site, "north");
    north.authority.renew(pem, request, Federation::key(1).sign("renew", request), kNow + 6, 30);
  });
  test::expect_error(
      core::ErrorKind::Config, {"no member"}, [&] { north.authority.revoke("nobody", "", kNow); });
}

TEST(Authority, RenewalKeepsTheMemberAndRevokesAnOldKey) {
  constexpr int64_t kLater = kNow + kDay;
  Federation north;
  const std::string old = north.certificate("st-mary", 1);
  const std::string same = make_request(Federation::key(1), "st-mary", Role::Site, "north");
  const std::string fresh = make_request(Federation::key(2), "st-mary", Role::Site, "north");
  const std::string other = make_request(Federation::key(2), "st-john", Role::Site, "north");
  const auto renewed = [&](const std::string& from, const std::string& request, uint64_t signer) {
    return north.authority.renew(
        from, request, Federation::key(signer).sign("renew", request), kLater, 30);
  };
  const auto admitted = [&](const std::string& pem) {
    return north.authority.roster().admit(north.check(pem, kLater), Role::Site, kLater).id;
  };

  const std::string longer = renewed(old, same, 1);
  EXPECT_EQ(north.check(longer, kLater).not_after, kLater + 30 * kDay);
  EXPECT_EQ(admitted(old), 1);  // until it expires
  EXPECT_EQ(admitted(longer), 1);

  refused("not signed with its present key", [&] { renewed(longer, fresh, 2); });
  refused("keeps name", [&] { renewed(longer, other, 1); });
  const std::string rekeyed = renewed(longer, fresh, 1);

  EXPECT_EQ(north.authority.roster().members.size(), 1);
  EXPECT_EQ(admitted(rekeyed), 1);
  refused("revoked", [&] { admitted(longer); });
  refused("another key", [&] { admitted(old); });
}

TEST(Authority, InvitationIsGoodOnceForItsNameRoleAndTime) {
  Federation north;
  const std::string token = north.authority.invite("st-mary", Role::Site, kNow, kNow + kDay);
  const std::string late = north.authority.invite("st-john", Role::Site, kNow, kNow + 10);
  const std::string request = make_request(Federation::key(1), "st-mary", Role::Site, "north");
  const std::string wrong = make_request(Federation::key(1), "st-mary", Role::Coordinator, "north");
  const std::string john = make_request(Federation::key(2), "st-john", Role::Site, "north");

  EXPECT_EQ(read_token(token).authority,
            read_certificate(north.authority.certificate()).fingerprint);
  refused("another name or role", [&] { north.authority.join(token, wrong, kNow, 30); });
  refused("another name or role", [&] { north.authority.join(token, john, kNow, 30); });
  refused("expired", [&] { north.authority.join(late, john, kNow + 11, 30); });
  EXPECT_EQ(north.check(north.authority.join(token, request, kNow, 30)).name, "st-mary");
  refused("used before", [&] { north.authority.join(token, request, kNow, 30); });
  std::string forged = token;
  forged[20] = forged[20] == '0' ? '1' : '0';
  refused("not one of", [&] { north.authority.join(forged, request, kNow, 30); });
  refused("one authority", [&] { north.authority.invite("x", Role::Authority, kNow, kNow + 10); });
  // The folder keeps digests only.
  EXPECT_EQ(north.folder.read("ca/invites.json").find(token.substr(18, 64)), std::string::npos);
}

TEST(Authority, ARequestForAnotherFederationOrWithAKnownKeyIsRefused) {
  Federation north;
  north.certificate("st-mary", 1);
  refused("another federation", [&] {
    north.authority.issue(make_request(Federation::key(2), "x", Role::Site, "south"), kNow, 30);
  });
  refused("cannot be that of another", [&] { north.certificate("st-john", 1); });
}

TEST(Certificate, NamesArePlain) {
  for (const char* bad : {"", ".x", "a/b", "a b", "../x", "a\n", "é"}) {
    test::expect_error(core::ErrorKind::Config, {"name"}, [&] { check_member_name(bad); });
  }
  EXPECT_NO_THROW(check_member_name("st.mary-2_b"));
}

TEST(KeyFile, IsPrivateMadeOnceAndReadBack) {
  const support::ScratchFolder folder;
  auto random = test_random();
  const SigningKey key = make_key_file(folder.path() / "site.key", random);

  EXPECT_EQ(read_key_file(folder.path() / "site.key").public_key(), key.public_key());
  test::expect_error(core::ErrorKind::Output, {"not replaced"}, [&] {
    make_key_file(folder.path() / "site.key", random);
  });
  ASSERT_EQ(::chmod(folder.file("site.key").c_str(), 0644), 0);
  refused("can read the private key", [&] { read_key_file(folder.path() / "site.key"); });
}

TEST(CertificateFuzz, DamagedFormsAreRefusedOrRead) {
  Federation north;
  const std::string pem = north.certificate("st-mary", 1);
  const std::string request = make_request(Federation::key(2), "x", Role::Site, "north");
  const std::string token = north.authority.invite("y", Role::Site, kNow, kNow + 10);
  const std::string roster = north.folder.read("ca/roster.json");
  const std::string key = key_to_pem(Federation::key(3));
  const test::ByteMutator mutate(20267, {"-----", "AAAA", "\n", "=", "\"", "null"});
  const std::vector<std::pair<std::string, std::function<void(const std::string&)>>> parsers = {
      {pem, [](const std::string& text) { read_certificate(text); }},
      {request, [](const std::string& text) { read_request(text); }},
      {token, [](const std::string& text) { read_token(text); }},
      {key, [](const std::string& text) { key_from_pem(text); }},
      {roster, [&](const std::string& text) {
         Roster::from_signed_text(text, north.authority.public_key());
       }}};
  for (uint64_t i = 0; i < test::case_count(5000); ++i) {
    const auto& [good, parse] = parsers[i % parsers.size()];
    try {
      parse(mutate(good, i));
    } catch (const core::Error& error) {
      ASSERT_TRUE(error.kind() == core::ErrorKind::Data ||
                  error.kind() == core::ErrorKind::Permission)
          << i << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace kamerton::privacy
