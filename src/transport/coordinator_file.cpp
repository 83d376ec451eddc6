// SPDX-License-Identifier: Apache-2.0
#include "kamerton/transport/coordinator_file.h"

namespace kamerton::transport {

void describe(config::Fields& f, CoordinatorFile& c) {
  f.knob("run", c.run, {.text = "the run's name"});
  f.knob("digest", c.digest, {.text = "of what all sites must have alike"});
  f.knob("seed", c.seed, {.text = "draws cohorts", .min = 0});
  f.knob("lora", c.lora, {.text = "adapters travel"});
  f.knob("folder", c.folder, {.text = "journal, models, updates"});
  f.knob("listen", c.listen, {.text = "address and port; port 0: any, see the file 'port'"});
  f.knob("identity", c.identity, {.text = "folder with the coordinator's key and certificate"});
  f.knob("authority", c.authority, {.text = "folder of the authority: the roster"});
  f.knob("linger_s",
         c.linger_s,
         {.text = "after the last round sites may still ask", .unit = "seconds", .min = 0});
  f.knob("max_threads", c.max_threads, {.text = "that answer calls", .min = 2});
  f.section("federation", c.federation, "As in the run's file.");
}

}  // namespace kamerton::transport
