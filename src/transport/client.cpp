// SPDX-License-Identifier: Apache-2.0
#include "kamerton/transport/client.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include <federation.grpc.pb.h>
#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/transport/server.h"

#include "status_text.h"

namespace kamerton::transport {
namespace {

namespace pb = kamerton::federation;
using core::Error;
using core::ErrorKind;
using Clock = std::chrono::steady_clock;

constexpr int kMostMessageBytes = 64 << 20;
constexpr double kFirstPause = 0.2;
constexpr double kLongestPause = 5;
constexpr int kCallSeconds = 60;  ///< a short call without an answer is repeated
constexpr unsigned kReloadSeconds = 5;

std::shared_ptr<grpc::ChannelCredentials> credentials(const Identity& identity) {
  namespace tls = grpc::experimental;
  auto provider =
      std::make_shared<tls::FileWatcherCertificateProvider>(identity.key().string(),
                                                            identity.certificate().string(),
                                                            identity.authority().string(),
                                                            kReloadSeconds);
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  // Who answers is decided by the name and role in its certificate, not by a host name.
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::make_shared<tls::NoOpCertificateVerifier>());
  return tls::TlsCredentials(options);
}

}  // namespace

struct Client::State {
  ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<pb::Federation::Stub> stub;

  explicit State(const ClientOptions& given) : options(given) {
    options.identity.check();
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride(options.coordinator);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
    arguments.SetMaxReceiveMessageSize(kMostMessageBytes);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel = grpc::CreateCustomChannel(options.address, credentials(options.identity), arguments);
    stub = pb::Federation::NewStub(channel);
  }

  void check_peer(const grpc::ClientContext& context) const {
    const auto pem = context.auth_context() == nullptr
                         ? std::vector<grpc::string_ref>()
                         : context.auth_context()->FindPropertyValues("x509_pem_cert");
    if (pem.empty()) {
      throw Error(ErrorKind::Permission,
                  {.where = "transport.client", .what = "the coordinator showed no certificate"});
    }
    const std::string name = options.admit(std::string(pem.front().data(), pem.front().size()));
    if (name != options.coordinator) {
      throw Error(ErrorKind::Permission,
                  {.where = "transport.client",
                   .what = "somebody else answers at " + options.address,
                   .got = name,
                   .allowed = options.coordinator});
    }
  }

  /// Repeats `attempt` while the coordinator cannot be reached. An attempt that got further says so
  /// through `progress`, which restarts the patience.
  template <class Attempt>
  void persist(const char* call, const Attempt& attempt) const {
    auto last = Clock::now();
    double pause = kFirstPause;
    for (;;) {
      grpc::ClientContext context;
      bool progress = false;
      const grpc::Status status = attempt(context, progress);
      if (status.ok()) {
        check_peer(context);
        return;
      }
      if (!is_transient(status)) {
        throw_status(status, call);
      }
      if (progress) {
        last = Clock::now();
        pause = kFirstPause;
      }
      if (std::chrono::duration<double>(Clock::now() - last).count() > options.give_up_s) {
        throw Error(ErrorKind::Comm,
                    {.where = std::string("transport.") + call,
                     .what = "the coordinator cannot be reached at " + options.address,
                     .got = status.error_message(),
                     .hint = "run the site again when it is back: nothing is lost"});
      }
      std::this_thread::sleep_for(std::chrono::duration<double>(pause));
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  void limit(grpc::ClientContext& context) const {
    const double seconds = std::clamp<double>(options.give_up_s, 1, kCallSeconds);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds)));
  }

  int64_t received(int64_t round, int64_t shard, int64_t shards) const {
    pb::ShardCall call;
    call.set_round(round);
    call.set_shard(shard);
    call.set_shards(shards);
    pb::ShardAnswer answer;
    persist("received", [&](grpc::ClientContext& context, bool&) {
      limit(context);
      return stub->Received(&context, call, &answer);
    });
    return answer.offset();
  }

  /// Pieces of the shard from `offset` on in one stream.
  grpc::Status send(grpc::ClientContext& context,
                    const pb::ShardCall& shard,
                    int64_t begin,
                    int64_t offset,
                    int64_t end,
                    const federation::RangeFile& update) const {
    pb::ShardAnswer answer;
    auto writer = stub->Upload(&context, &answer);
    pb::UploadPiece piece;
    *piece.mutable_shard() = shard;
    piece.set_offset(offset);
    for (int64_t at = begin + offset; at < end;) {
      std::string* data = piece.mutable_data();
      data->resize(static_cast<size_t>(std::min<int64_t>(kPieceBytes, end - at)));
      update.read(at, std::as_writable_bytes(std::span(*data)));
      at += static_cast<int64_t>(data->size());
      if (!writer->Write(piece)) {
        break;
      }
      federation::fault_point("site.uploading");
      piece.clear_shard();
      piece.set_offset(0);
    }
    writer->WritesDone();
    return writer->Finish();
  }
};

Client::Client(const ClientOptions& options) : state_(new State(options)) {}

Client::~Client() = default;

std::string Client::join(const federation::JoinRequest& request) {
  pb::JoinCall call;
  call.set_protocol(kProtocol);
  call.set_run(request.run);
  call.set_digest(request.digest);
  call.set_layout(request.layout_json);
  pb::JoinAnswer answer;
  state_->persist("join", [&](grpc::ClientContext& context, bool&) {
    state_->limit(context);
    return state_->stub->Join(&context, call, &answer);
  });
  return answer.site();
}

federation::Task Client::task() {
  pb::TaskAnswer answer;
  state_->persist("task", [&](grpc::ClientContext& context, bool&) {
    state_->limit(context);
    return state_->stub->Task(&context, pb::TaskCall(), &answer);
  });
  if (!pb::TaskAnswer::Kind_IsValid(answer.kind()) || answer.models_size() > 100000) {
    throw Error(ErrorKind::Data, {.where = "transport.task", .what = "an answer is not possible"});
  }
  federation::Task task{.kind = static_cast<federation::Task::Kind>(answer.kind()),
                        .round = answer.round(),
                        .measure = answer.measure(),
                        .models = {},
                        .text = answer.text(),
                        .secure_round = answer.secure_round(),
                        .audit_head = answer.audit_head()};
  for (const pb::Model& model : answer.models()) {
    if (model.elements() < 0 || model.elements() > (int64_t{1} << 40) || model.round() < 0) {
      throw Error(ErrorKind::Data,
                  {.where = "transport.task", .what = "a model's size is not possible"});
    }
    task.models.push_back({model.round(),
                           model.elements(),
                           model.digest(),
                           {model.shares().begin(), model.shares().end()}});
  }
  return task;
}

void Client::download(int64_t round, int64_t begin, int64_t end, federation::RangeFile& file) {
  int64_t at = begin;
  state_->persist("download", [&](grpc::ClientContext& context, bool& progress) {
    pb::DownloadCall call;
    call.set_round(round);
    call.set_begin(at);
    call.set_end(end);
    auto reader = state_->stub->Download(&context, call);
    pb::Piece piece;
    while (reader->Read(&piece)) {
      const auto count = static_cast<int64_t>(piece.data().size());
      if (count > end - at) {
        context.TryCancel();
        throw Error(ErrorKind::Data,
                    {.where = "transport.download", .what = "more bytes than were asked for"});
      }
      file.write(at, std::as_bytes(std::span(piece.data())));
      at += count;
      progress = true;
    }
    const grpc::Status status = reader->Finish();
    return status.ok() && at < end ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut off")
                                   : status;
  });
}

void Client::upload(int64_t round,
                    int64_t shard,
                    int64_t shards,
                    const federation::RangeFile& update) {
  const auto [begin, end] = federation::Coordinator::shard_range(update.size(), shard, shards);
  pb::ShardCall call;
  call.set_round(round);
  call.set_shard(shard);
  call.set_shards(shards);
  int64_t offset = state_->received(round, shard, shards);
  const int64_t first = begin;
  const int64_t last = end;
  state_->persist("upload", [&](grpc::ClientContext& context, bool& progress) {
    if (first + offset >= last) {
      return state_->stub->Received(&context, call, std::make_unique<pb::ShardAnswer>().get());
    }
    const grpc::Status status = state_->send(context, call, first, offset, last, update);
    if (!status.ok() && is_transient(status)) {
      const int64_t now = state_->received(round, shard, shards);
      progress = now > offset;
      offset = now;
    }
    return status;
  });
}

federation::Receipt Client::submit(const std::string& run,
                                   const federation::Submission& submission,
                                   const std::string& head) {
  pb::SubmitCall call;
  call.set_run(run);
  call.set_result(submission.to_json().dump());
  call.set_audit_head(head);
  pb::SubmitAnswer answer;
  state_->persist("submit", [&](grpc::ClientContext& context, bool&) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(10));
    return state_->stub->Submit(&context, call, &answer);
  });
  return {static_cast<federation::Verdict>(answer.verdict()), answer.send_again()};
}

std::optional<std::string> Client::secure(int64_t round,
                                          federation::SecureStep step,
                                          std::string_view message) {
  pb::SecureCall call;
  call.set_round(round);
  call.set_step(static_cast<uint32_t>(step));
  call.set_message(message.data(), message.size());
  pb::SecureAnswer answer;
  state_->persist("secure", [&](grpc::ClientContext& context, bool&) {
    state_->limit(context);
    return state_->stub->Secure(&context, call, &answer);
  });
  return answer.ready() ? std::optional(answer.message()) : std::nullopt;
}

void Client::leave(const std::string& reason) {
  pb::LeaveCall call;
  call.set_reason(reason);
  pb::Nothing answer;
  state_->persist("leave", [&](grpc::ClientContext& context, bool&) {
    state_->limit(context);
    return state_->stub->Leave(&context, call, &answer);
  });
}

std::string Client::status() {
  pb::StatusAnswer answer;
  state_->persist("status", [&](grpc::ClientContext& context, bool&) {
    state_->limit(context);
    return state_->stub->Status(&context, pb::Nothing(), &answer);
  });
  return answer.json();
}

}  // namespace kamerton::transport
