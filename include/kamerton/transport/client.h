// SPDX-License-Identifier: Apache-2.0
// A site's side of the network. Every call is repeated while the coordinator cannot be reached, up
// to a limit; transfers go on where they stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kamerton/federation/coordinator.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/transport/identity.h"

namespace kamerton::transport {

struct ClientOptions {
  std::string address;  ///< host:port
  Identity identity;
  std::string coordinator = "coordinator";  ///< the name in its certificate
  Admit admit;                              ///< of the coordinator's certificate
  double give_up_s = 600;                   ///< without any answer: ErrorKind::Comm
};

/// Not thread-safe; each rank has its own. Errors: what the coordinator refused keeps its kind
/// (Permission, Data, Config); Comm when it cannot be reached.
class Client {
 public:
  explicit Client(const ClientOptions& options);
  ~Client();

  /// Returns the name that the coordinator knows this site by.
  std::string join(const federation::JoinRequest& request);
  federation::Task task();
  /// Bytes [begin, end) of a round's model into the same place of `file`.
  void download(int64_t round, int64_t begin, int64_t end, federation::RangeFile& file);
  /// Sends what is missing of a shard of the update.
  void upload(int64_t round, int64_t shard, int64_t shards, const federation::RangeFile& update);
  /// head: the end of the site's audit log.
  federation::Receipt submit(const std::string& run,
                             const federation::Submission& submission,
                             const std::string& head);
  /// As federation::AskSecure.
  std::optional<std::string> secure(int64_t round,
                                    federation::SecureStep step,
                                    std::string_view message);
  void leave(const std::string& reason);
  std::string status();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::transport
