// SPDX-License-Identifier: Apache-2.0
// kamerton federate init | invite | join | admit | renew | revoke | status: who belongs to a
// federation. Keys are made where they are used and never leave.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/privacy/authority.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/transport/client.h"
#include "kamerton/transport/gate.h"

#include "command.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using privacy::Authority;
using privacy::Role;

constexpr int64_t kDay = 86400;
constexpr uint64_t kMostPem = 64 << 10;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string read(const fs::path& path) {
  return storage::posix_filesystem().read_file(path, kMostPem);
}

void write(const fs::path& path, const std::string& text) {
  if (path.has_parent_path()) {
    storage::posix_filesystem().make_directories(path.parent_path());
  }
  storage::write_file_atomic(storage::posix_filesystem(), path, text);
}

std::string date(int64_t seconds) {
  const std::time_t time = seconds;
  std::tm utc = {};
  gmtime_r(&time, &utc);
  return fmt::format("{:04}-{:02}-{:02}", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday);
}

/// The member's key: there already, or made now.
privacy::SigningKey key_in(const transport::Identity& identity) {
  storage::posix_filesystem().make_directories(identity.folder);
  return fs::exists(identity.key()) ? privacy::read_key_file(identity.key())
                                    : privacy::make_key_file(identity.key());
}

void place(const transport::Identity& identity,
           const std::string& certificate,
           const std::string& authority) {
  privacy::verify_certificate(certificate, authority, now());
  write(identity.authority(), authority);
  write(identity.certificate(), certificate);
}

int64_t days_of(const po::variables_map& arguments, int64_t otherwise) {
  return value_or<int64_t>(arguments, "days", otherwise);
}

int run_init(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_init_command();
  const fs::path folder = required(arguments, "authority", self);
  const std::string federation = required(arguments, "name", self);
  Authority authority = Authority::create(folder, federation, now());
  const transport::Identity identity{folder / "coordinator"};
  const privacy::SigningKey key = key_in(identity);
  const std::string name = value_or<std::string>(arguments, "coordinator", "coordinator");
  place(identity,
        authority.issue(privacy::make_request(key, name, Role::Coordinator, federation),
                        now(),
                        days_of(arguments, 365)),
        authority.certificate());
  std::printf(
      "federation %s: authority in %s, coordinator's identity in %s\n"
      "next: kamerton federate invite SITE --authority %s\n",
      federation.c_str(),
      folder.c_str(),
      identity.folder.c_str(),
      folder.c_str());
  return 0;
}

int run_invite(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_invite_command();
  Authority authority = Authority::open(required(arguments, "authority", self));
  const std::string name = required(arguments, "name", self);
  const int64_t hours = value_or<int64_t>(arguments, "hours", 72);
  const Role role = privacy::role_named(value_or<std::string>(arguments, "role", "site"));
  std::printf("%s\n", authority.invite(name, role, now(), now() + hours * 3600).c_str());
  return 0;
}

/// Certificate and authority's certificate, wherever they come from.
int run_join(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_join_command();
  const transport::Identity identity{required(arguments, "identity", self)};
  const privacy::SigningKey key = key_in(identity);
  if (arguments.count("certificate") != 0) {
    const fs::path authority = required(arguments, "authority-certificate", self);
    const std::string certificate = read(arguments["certificate"].as<std::string>());
    if (privacy::read_certificate(certificate).key != key.public_key()) {
      throw Error(ErrorKind::Permission,
                  {.where = "cli.federate", .what = "the certificate is for another key"});
    }
    place(identity, certificate, read(authority));
    std::printf("joined: identity in %s\n", identity.folder.c_str());
    return 0;
  }
  const std::string name = required(arguments, "name", self);
  if (arguments.count("authority") == 0) {
    const std::string federation = required(arguments, "federation", self);
    const fs::path request = identity.folder / "request.pem";
    write(request, privacy::make_request(key, name, Role::Site, federation));
    std::printf("%s: send it to the operator, who answers with a certificate (federate admit)\n",
                request.c_str());
    return 0;
  }
  Authority authority = Authority::open(arguments["authority"].as<std::string>());
  const std::string request = privacy::make_request(key, name, Role::Site, authority.federation());
  place(identity,
        authority.join(required(arguments, "token", self), request, now(), days_of(arguments, 90)),
        authority.certificate());
  std::printf("joined %s as %s: identity in %s\n",
              authority.federation().c_str(),
              name.c_str(),
              identity.folder.c_str());
  return 0;
}

int run_admit(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_admit_command();
  Authority authority = Authority::open(required(arguments, "authority", self));
  const std::string request = read(required(arguments, "request", self));
  const std::string certificate =
      authority.join(required(arguments, "token", self), request, now(), days_of(arguments, 90));
  const fs::path to = required(arguments, "to", self);
  write(to, certificate);
  std::printf("%s: send it to the site, with authority.pem\n", to.c_str());
  return 0;
}

int run_renew(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_renew_command();
  const transport::Identity identity{required(arguments, "identity", self)};
  Authority authority = Authority::open(required(arguments, "authority", self));
  const privacy::SigningKey key = privacy::read_key_file(identity.key());
  const std::string old = read(identity.certificate());
  const privacy::CertificateInfo info = privacy::read_certificate(old);
  const std::string request =
      privacy::make_request(key, info.name, info.role, authority.federation());
  place(identity,
        authority.renew(old, request, key.sign("renew", request), now(), days_of(arguments, 90)),
        authority.certificate());
  std::printf("%s is good until %s; a running program takes it over by itself\n",
              info.name.c_str(),
              date(privacy::read_certificate(read(identity.certificate())).not_after).c_str());
  return 0;
}

int run_revoke(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_revoke_command();
  Authority authority = Authority::open(required(arguments, "authority", self));
  const std::string name = required(arguments, "name", self);
  authority.revoke(name, value_or<std::string>(arguments, "reason", "revoked"), now());
  std::printf("%s is revoked, from its next call on\n", name.c_str());
  return 0;
}

int run_status(const po::variables_map& arguments, comm::Session*) {
  if (arguments.count("coordinator") != 0) {
    static const Command self = federate_status_command();
    const transport::Identity identity{required(arguments, "identity", self)};
    transport::Client client({.address = arguments["coordinator"].as<std::string>(),
                              .identity = identity,
                              .admit = transport::admit_coordinator(identity.authority()),
                              .give_up_s = 10});
    std::printf("%s\n", client.status().c_str());
    return 0;
  }
  static const Command self = federate_status_command();
  const Authority authority = Authority::open(required(arguments, "authority", self));
  std::printf("federation %s\n%-24s %-12s %-11s %s\n",
              authority.federation().c_str(),
              "member",
              "role",
              "good until",
              "state");
  for (const privacy::Member& member : authority.roster().members) {
    const bool expired = member.not_after < now();
    std::printf("%-24s %-12s %-11s %s\n",
                member.name.c_str(),
                std::string(privacy::name_of(member.role)).c_str(),
                date(member.not_after).c_str(),
                member.revoked_at != 0 ? ("revoked: " + member.reason).c_str()
                : expired              ? "expired"
                                       : "in force");
  }
  return 0;
}

using Adder = void (*)(po::options_description&, po::positional_options_description&);

Command member_command(const std::string& word,
                       const std::string& summary,
                       const std::string& usage,
                       const std::string& description,
                       Adder add,
                       int (*run)(const po::variables_map&, comm::Session*)) {
  return {.name = "federate " + word,
          .summary = summary,
          .usage = "kamerton federate " + word + " " + usage,
          .description = description,
          .needs_ranks = false,
          .add_options = add,
          .run = run};
}

}  // namespace

Command federate_init_command() {
  return member_command(
      "init",
      "found a federation: its authority and the coordinator's identity",
      "NAME --authority DIR",
      "Makes the authority's key (mode 0600), its certificate, an empty roster, and the "
      "coordinator's\nidentity in DIR/coordinator.\n\nExample:\n"
      "  kamerton federate init branches --authority federation/authority",
      [](po::options_description& options, po::positional_options_description& positional) {
        options.add_options()("name", po::value<std::string>(), "the federation's name")(
            "authority", po::value<std::string>(), "the folder to make")(
            "coordinator", po::value<std::string>(), "the coordinator's name; coordinator")(
            "days", po::value<int64_t>(), "its certificate is good for; 365");
        positional.add("name", 1);
      },
      run_init);
}

Command federate_invite_command() {
  return member_command(
      "invite",
      "a token that lets a site join once",
      "SITE --authority DIR",
      "Prints the token; the authority keeps its digest only. Hand it over by a way that you "
      "trust.\n\nExample:\n  kamerton federate invite north --authority federation/authority",
      [](po::options_description& options, po::positional_options_description& positional) {
        options.add_options()("name", po::value<std::string>(), "the site's name")(
            "authority", po::value<std::string>(), "the authority's folder")(
            "hours", po::value<int64_t>(), "the token is good for; 72")(
            "role", po::value<std::string>(), "site or auditor; site");
        positional.add("name", 1);
      },
      run_invite);
}

Command federate_join_command() {
  return member_command(
      "join",
      "make this site's key and get its certificate",
      "--identity DIR --name SITE (--authority DIR --token TOKEN | --federation NAME | "
      "--certificate FILE --authority-certificate FILE)",
      "The key is made here and stays. Where the authority's folder can be reached, the token gets "
      "the certificate at once.\nElsewhere in two steps: --federation writes a request to send to "
      "the operator (federate admit); --certificate\ntakes the answer.\n\nExample:\n"
      "  kamerton federate join --identity federation/north --name north --authority "
      "federation/authority --token TOKEN",
      [](po::options_description& options, po::positional_options_description&) {
        options.add_options()("identity", po::value<std::string>(), "the folder to make")(
            "name", po::value<std::string>(), "the site's name, as invited")(
            "authority", po::value<std::string>(), "the authority's folder, if it can be reached")(
            "token", po::value<std::string>(), "from federate invite")(
            "federation", po::value<std::string>(), "write a request for this federation")(
            "certificate", po::value<std::string>(), "the operator's answer")(
            "authority-certificate", po::value<std::string>(), "the authority's authority.pem")(
            "days", po::value<int64_t>(), "the certificate is good for; 90");
      },
      run_join);
}

Command federate_admit_command() {
  return member_command(
      "admit",
      "answer a site's request with a certificate",
      "REQUEST.pem --authority DIR --token TOKEN --to CERTIFICATE.pem",
      "For sites that cannot reach the authority's folder. The token is used up.\n\nExample:\n"
      "  kamerton federate admit request.pem --authority federation/authority --token TOKEN --to "
      "north.pem",
      [](po::options_description& options, po::positional_options_description& positional) {
        options.add_options()("request", po::value<std::string>(), "from federate join")(
            "authority", po::value<std::string>(), "the authority's folder")(
            "token", po::value<std::string>(), "that the site was given")(
            "to", po::value<std::string>(), "the file to write")(
            "days", po::value<int64_t>(), "the certificate is good for; 90");
        positional.add("request", 1);
      },
      run_admit);
}

Command federate_renew_command() {
  return member_command(
      "renew",
      "a new certificate for a member, also while a run goes on",
      "--identity DIR --authority DIR",
      "A running coordinator or site takes the new certificate over by itself.\n\nExample:\n"
      "  kamerton federate renew --identity federation/north --authority federation/authority",
      [](po::options_description& options, po::positional_options_description&) {
        options.add_options()("identity", po::value<std::string>(), "the member's folder")(
            "authority", po::value<std::string>(), "the authority's folder")(
            "days", po::value<int64_t>(), "the certificate is good for; 90");
      },
      run_renew);
}

Command federate_revoke_command() {
  return member_command(
      "revoke",
      "shut a member out, from its next call on",
      "SITE --authority DIR [--reason TEXT]",
      "No restart is needed: a running coordinator reads the roster again when it "
      "changes.\n\nExample:\n"
      "  kamerton federate revoke north --authority federation/authority --reason 'laptop lost'",
      [](po::options_description& options, po::positional_options_description& positional) {
        options.add_options()("name", po::value<std::string>(), "the member's name")(
            "authority", po::value<std::string>(), "the authority's folder")(
            "reason", po::value<std::string>(), "for the roster");
        positional.add("name", 1);
      },
      run_revoke);
}

Command federate_status_command() {
  return member_command(
      "status",
      "the roster, or how a running federation stands",
      "--authority DIR | --coordinator HOST:PORT --identity DIR",
      "With --coordinator: round, sites, losses as JSON.\n\nExamples:\n"
      "  kamerton federate status --authority federation/authority\n"
      "  kamerton federate status --coordinator hub.example.org:7443 --identity federation/north",
      [](po::options_description& options, po::positional_options_description&) {
        options.add_options()("authority", po::value<std::string>(), "the authority's folder")(
            "coordinator", po::value<std::string>(), "HOST:PORT of a running coordinator")(
            "identity", po::value<std::string>(), "this member's folder");
      },
      run_status);
}

}  // namespace kamerton::cli
