// SPDX-License-Identifier: Apache-2.0
#include "run_file.h"

#include <string>
#include <vector>

#include "site_work.h"

namespace kamerton::cli {

void add_run_file(po::options_description& options,
                  po::positional_options_description& positional) {
  options.add_options()("config", po::value<std::string>(), "the run's YAML file")(
      "set", po::value<std::vector<std::string>>(), "KEY=VALUE over the file's; may be repeated");
  positional.add("config", 1);
}

RunConfig federated_run(const po::variables_map& arguments, const Command& self) {
  RunConfig config = load_run_config(required(arguments, "config", self),
                                     value_or<std::vector<std::string>>(arguments, "set", {}));
  validate_federation(config);
  return config;
}

}  // namespace kamerton::cli
