// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/progress.h"

namespace kamerton::train {

void Progress::note(const LogEntry& entry) {
  if (entry.step % log_every != 0) {
    return;
  }
  log.push_back(entry);
  if (log.size() > kLogLength) {  // memory and checkpoint stay small however long the run is
    log_every *= 2;
    std::erase_if(log, [this](const LogEntry& old) { return old.step % log_every != 0; });
  }
}

}  // namespace kamerton::train
