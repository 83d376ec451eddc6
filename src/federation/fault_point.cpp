// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/fault_point.h"

#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

namespace kamerton::federation {

const std::vector<std::string_view>& fault_points() {
  static const std::vector<std::string_view> names = {"coordinator.joined",
                                                      "coordinator.opened",
                                                      "coordinator.secure_message",
                                                      "coordinator.secure_stage",
                                                      "site.received",
                                                      "site.downloaded",
                                                      "site.charging",
                                                      "site.charged",
                                                      "site.trained",
                                                      "site.encoded",
                                                      "site.secure_keys",
                                                      "site.secure_shares",
                                                      "site.uploading",
                                                      "site.uploaded",
                                                      "coordinator.receiving",
                                                      "coordinator.received",
                                                      "coordinator.accepted",
                                                      "site.acknowledged",
                                                      "site.secure_survivors",
                                                      "site.secure_votes",
                                                      "coordinator.closed",
                                                      "coordinator.combining",
                                                      "coordinator.written",
                                                      "coordinator.published",
                                                      "coordinator.committed",
                                                      "coordinator.finished"};
  return names;
}

void fault_point(std::string_view name) {
  const char* const wanted = std::getenv("KAMERTON_FEDERATION_FAULT");
  if (wanted == nullptr) {
    return;
  }
  const std::string_view text(wanted);
  const size_t colon = text.find(':');
  if (text.substr(0, colon) != name) {
    return;
  }
  static std::mutex mutex;
  static std::map<std::string, int, std::less<>> counts;
  const std::lock_guard lock(mutex);
  const int count = ++counts[std::string(name)];
  const int at = colon == std::string_view::npos ? 1 : std::atoi(wanted + colon + 1);
  if (count == at) {
    std::raise(SIGKILL);
  }
}

}  // namespace kamerton::federation
