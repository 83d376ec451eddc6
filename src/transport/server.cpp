// SPDX-License-Identifier: Apache-2.0
#include "kamerton/transport/server.h"

#include <chrono>
#include <string>

#include <federation.grpc.pb.h>
#include <fmt/format.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/privacy/audit_log.h"

#include "status_text.h"

namespace kamerton::transport {
namespace {

namespace pb = kamerton::federation;
using core::Error;
using core::ErrorKind;

constexpr int kMostMessageBytes = 64 << 20;  ///< the layout of a large model is the largest message
constexpr int64_t kReloadSeconds = 5;
constexpr core::JsonLimits kResultLimits{.max_bytes = 1 << 20, .max_depth = 4};

class Service final : public pb::Federation::Service {
 public:
  Service(federation::Coordinator& coordinator, const ServerOptions& options)
      : coordinator_(coordinator), options_(options) {}

  grpc::Status Join(grpc::ServerContext* context,
                    const pb::JoinCall* call,
                    pb::JoinAnswer* answer) override {
    return answering(context, "join", [&](const std::string& site) {
      if (call->protocol() < kOldestProtocol || call->protocol() > kProtocol) {
        throw Error(ErrorKind::Config,
                    {.where = "transport.join",
                     .what = "the site speaks another version of the protocol",
                     .got = fmt::format("{}", call->protocol()),
                     .allowed = fmt::format("{} to {}", kOldestProtocol, kProtocol),
                     .hint = "the same version of kamerton at both ends"});
      }
      coordinator_.join({site, call->run(), call->digest(), call->layout()});
      answer->set_protocol(kProtocol);
      answer->set_site(site);
      answer->set_update_bytes(coordinator_.update_bytes());
      answer->set_piece_bytes(kPieceBytes);
    });
  }

  grpc::Status Task(grpc::ServerContext* context,
                    const pb::TaskCall*,
                    pb::TaskAnswer* answer) override {
    return answering(context, "task", [&](const std::string& site) {
      const federation::Task task = coordinator_.task(site);
      answer->set_kind(static_cast<pb::TaskAnswer::Kind>(task.kind));
      answer->set_round(task.round);
      answer->set_measure(task.measure);
      answer->set_text(task.text);
      answer->set_secure_round(task.secure_round);
      if (options_.audit_head && task.kind != federation::Task::Kind::Wait) {
        answer->set_audit_head(options_.audit_head());
      }
      for (const federation::ModelFile& model : task.models) {
        pb::Model* item = answer->add_models();
        item->set_round(model.round);
        item->set_elements(model.elements);
        item->set_digest(model.digest);
        item->mutable_shares()->Add(model.shares.begin(), model.shares.end());
      }
    });
  }

  grpc::Status Download(grpc::ServerContext* context,
                        const pb::DownloadCall* call,
                        grpc::ServerWriter<pb::Piece>* writer) override {
    return answering(context, "download", [&](const std::string& site) {
      const int64_t bytes = model_bytes(site, call->round());
      if (call->begin() < 0 || call->end() > bytes || call->begin() > call->end()) {
        throw Error(ErrorKind::Data,
                    {.where = "transport.download", .what = "bytes beyond the model's end"});
      }
      const auto file = federation::RangeFile::open(coordinator_.model_path(call->round()), bytes);
      pb::Piece piece;
      for (int64_t at = call->begin(); at < call->end();) {
        std::string* data = piece.mutable_data();
        data->resize(static_cast<size_t>(std::min<int64_t>(kPieceBytes, call->end() - at)));
        file.read(at, std::as_writable_bytes(std::span(*data)));
        at += static_cast<int64_t>(data->size());
        if (!writer->Write(piece)) {
          return;  // the site is gone; it will ask again
        }
      }
    });
  }

  grpc::Status Received(grpc::ServerContext* context,
                        const pb::ShardCall* call,
                        pb::ShardAnswer* answer) override {
    return answering(context, "received", [&](const std::string& site) {
      answer->set_offset(coordinator_.received(site, call->round(), call->shard(), call->shards()));
    });
  }

  grpc::Status Upload(grpc::ServerContext* context,
                      grpc::ServerReader<pb::UploadPiece>* reader,
                      pb::ShardAnswer* answer) override {
    return answering(context, "upload", [&](const std::string& site) {
      pb::UploadPiece piece;
      pb::ShardCall shard;
      int64_t offset = -1;
      while (reader->Read(&piece)) {
        if (offset < 0) {
          shard = piece.shard();
          offset = piece.offset();
        }
        if (piece.data().size() > kPieceBytes) {
          throw Error(ErrorKind::Data,
                      {.where = "transport.upload",
                       .what = "a piece is too large",
                       .got = fmt::format("{} bytes", piece.data().size()),
                       .allowed = fmt::format("{}", kPieceBytes)});
        }
        admitted(context);  // a site may be revoked while it sends
        offset = coordinator_.receive(site,
                                      shard.round(),
                                      shard.shard(),
                                      shard.shards(),
                                      offset,
                                      std::as_bytes(std::span(piece.data())));
      }
      answer->set_offset(offset);
    });
  }

  grpc::Status Submit(grpc::ServerContext* context,
                      const pb::SubmitCall* call,
                      pb::SubmitAnswer* answer) override {
    return answering(context, "submit", [&](const std::string& site) {
      const auto result = federation::Submission::from_json(
          core::parse_json(call->result(), "result of " + site, kResultLimits),
          "result of " + site);
      if (result.site != site) {
        throw Error(ErrorKind::Permission,
                    {.where = "transport.submit",
                     .what = "a site speaks for another",
                     .got = result.site,
                     .allowed = site});
      }
      if (!call->audit_head().empty()) {
        privacy::parse_head(call->audit_head());
      }
      const federation::Receipt receipt = coordinator_.submit(result);
      const bool counts = receipt.verdict == federation::Verdict::Accept && !receipt.send_again;
      if (counts && options_.on_head && !call->audit_head().empty()) {
        options_.on_head(site, call->audit_head());
      }
      answer->set_verdict(static_cast<pb::SubmitAnswer::Verdict>(receipt.verdict));
      answer->set_send_again(receipt.send_again);
    });
  }

  grpc::Status Secure(grpc::ServerContext* context,
                      const pb::SecureCall* call,
                      pb::SecureAnswer* answer) override {
    return answering(context, "secure", [&](const std::string& site) {
      if (call->step() > static_cast<uint32_t>(federation::SecureStep::Reveal)) {
        throw Error(ErrorKind::Data, {.where = "transport.secure", .what = "no such step"});
      }
      const auto reply = coordinator_.secure(
          site, call->round(), static_cast<federation::SecureStep>(call->step()), call->message());
      answer->set_ready(reply.has_value());
      answer->set_message(reply.value_or(""));
    });
  }

  grpc::Status Leave(grpc::ServerContext* context,
                     const pb::LeaveCall* call,
                     pb::Nothing*) override {
    return answering(context, "leave", [&](const std::string& site) {
      coordinator_.leave(site, call->reason());
    });
  }

  grpc::Status Status(grpc::ServerContext* context,
                      const pb::Nothing*,
                      pb::StatusAnswer* answer) override {
    return answering(context, "status", [&](const std::string&) {
      answer->set_json(coordinator_.status().dump());
    });
  }

 private:
  std::string admitted(grpc::ServerContext* context) const {
    const auto pem = context->auth_context()->FindPropertyValues("x509_pem_cert");
    if (pem.empty()) {
      throw Error(ErrorKind::Permission,
                  {.where = "transport.identity", .what = "a caller without a certificate"});
    }
    return options_.admit(std::string(pem.front().data(), pem.front().size()));
  }

  template <class Body>
  grpc::Status answering(grpc::ServerContext* context, const char* call, const Body& body) {
    std::string site;
    try {
      site = admitted(context);
      body(site);
      return grpc::Status::OK;
    } catch (const std::exception& error) {
      core::log_warning(fmt::format(
          "{} from {} refused: {}", call, site.empty() ? context->peer() : site, error.what()));
      if (options_.on_refusal) {
        options_.on_refusal(site, fmt::format("{}: {}", call, error.what()));
      }
      return to_status(error);
    }
  }

  int64_t model_bytes(const std::string& site, int64_t round) const {
    for (const federation::ModelFile& model : coordinator_.task(site).models) {
      if (model.round == round) {
        return 4 * model.elements;
      }
    }
    throw Error(ErrorKind::Permission,
                {.where = "transport.download",
                 .what = "the model of this round is not on offer",
                 .got = fmt::format("{}", round)});
  }

  federation::Coordinator& coordinator_;
  ServerOptions options_;
};

std::shared_ptr<grpc::ServerCredentials> credentials(const Identity& identity) {
  namespace tls = grpc::experimental;
  auto provider =
      std::make_shared<tls::FileWatcherCertificateProvider>(identity.key().string(),
                                                            identity.certificate().string(),
                                                            identity.authority().string(),
                                                            kReloadSeconds);
  tls::TlsServerCredentialsOptions options(provider);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::make_shared<tls::NoOpCertificateVerifier>());
  return tls::TlsServerCredentials(options);
}

}  // namespace

namespace {

/// gRPC would take a port above 65535 as another one.
void check_address(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  const std::string port = colon == std::string::npos ? "" : listen.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoi(port) > 65535 || colon == 0) {
    throw Error(ErrorKind::Config,
                {.where = "transport.server",
                 .what = "not an address to listen at",
                 .got = "'" + listen + "'",
                 .allowed = "ADDRESS:PORT with a port up to 65535; 0: any that is free"});
  }
}

}  // namespace

struct Server::State {
  Service service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;

  State(federation::Coordinator& coordinator, const ServerOptions& options)
      : service(coordinator, options) {}
};

Server::Server(federation::Coordinator& coordinator, const ServerOptions& options)
    : state_(new State(coordinator, options)) {
  check_address(options.listen);
  options.identity.check();
  grpc::ResourceQuota quota("kamerton");
  quota.SetMaxThreads(options.max_threads);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMostMessageBytes);
  builder.AddListeningPort(options.listen, credentials(options.identity), &state_->port);
  builder.RegisterService(&state_->service);
  state_->server = builder.BuildAndStart();
  if (state_->server == nullptr || state_->port == 0) {
    throw Error(
        ErrorKind::Output,
        {.where = "transport.server",
         .what = "cannot listen: the port is in use, or the address is none of this machine",
         .got = options.listen,
         .hint = "another address or port"});
  }
}

Server::~Server() {
  shutdown(0);
}

int Server::port() const {
  return state_->port;
}

void Server::shutdown(double grace_s) {
  if (state_->server != nullptr) {
    state_->server->Shutdown(std::chrono::system_clock::now() +
                             std::chrono::milliseconds(static_cast<int64_t>(1000 * grace_s)));
    state_->server->Wait();
    state_->server.reset();
  }
}

}  // namespace kamerton::transport
