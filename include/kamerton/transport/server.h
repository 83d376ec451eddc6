// SPDX-License-Identifier: Apache-2.0
// The coordinator on the network: gRPC over mutual TLS.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kamerton/federation/coordinator.h"
#include "kamerton/transport/identity.h"

namespace kamerton::transport {

/// The version of the protocol that this program speaks, and the oldest that it understands.
inline constexpr uint32_t kProtocol = 1;
inline constexpr uint32_t kOldestProtocol = 1;
/// Bytes of tensor data in a message: what a cut connection loses at most.
inline constexpr uint32_t kPieceBytes = uint32_t{256} << 10;

struct ServerOptions {
  std::string listen = "0.0.0.0:7443";  ///< port 0: any free one
  Identity identity;
  Admit admit;
  int max_threads = 64;
  /// Told of every call that was refused: who ("" unknown), what.
  std::function<void(const std::string&, const std::string&)> on_refusal = {};
  /// The end of the coordinator's audit log, sent with every task; empty: none is sent.
  std::function<std::string()> audit_head = {};
  /// Told of the end of a site's audit log, as it says, with every result that is accepted.
  std::function<void(const std::string& site, const std::string& head)> on_head = {};
};

/// Serves from construction to shutdown(). `coordinator` must outlive it. ErrorKind::Output when
/// the address cannot be used.
class Server {
 public:
  Server(federation::Coordinator& coordinator, const ServerOptions& options);
  ~Server();
  int port() const;
  /// Calls under way end within `grace_s`.
  void shutdown(double grace_s);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::transport
