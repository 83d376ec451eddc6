// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/watchdog.h"

#include "monitor.h"

namespace kamerton::comm {

void Watchdog::start(const std::filesystem::path& folder, double deadline_s) const {
  monitor_->start(folder, deadline_s);
}
void Watchdog::note_phase(std::string_view phase) const {
  monitor_->note_phase(phase);
}
void Watchdog::note_step(int64_t step) const {
  monitor_->note_step(step);
}
void Watchdog::note_checkpoint(std::string_view name) const {
  monitor_->note_checkpoint(name);
}

}  // namespace kamerton::comm
