// SPDX-License-Identifier: Apache-2.0
// One command of the program: its words, its options, its function.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <boost/program_options.hpp>

#include "kamerton/comm/gpu_plugin.h"
#include "kamerton/comm/session.h"

namespace kamerton::cli {

namespace po = boost::program_options;

struct Command {
  std::string name;         ///< "train", "data show"
  std::string summary;      ///< one line for the overview
  std::string usage;        ///< "kamerton train RUN.yaml [--set KEY=VALUE]..."
  std::string description;  ///< what it does, with examples that run as printed
  bool needs_ranks = false;
  void (*add_options)(po::options_description& options,
                      po::positional_options_description& positional) = nullptr;
  /// session is null for commands without ranks.
  int (*run)(const po::variables_map& arguments, comm::Session* session) = nullptr;
};

/// The plug-in that prepare_process() has loaded; null without a device.
const comm::Gpu* gpu();
/// With a GPU (device "auto" or "cuda") each rank of a node takes its own; true then. Before the
/// model is built. Throws ErrorKind::Config when the node has fewer GPUs than ranks.
bool take_device(const std::string& device, const comm::Session& session);
/// take_device(), and the ranks as a group for tensors there too: NCCL, or the session's world
/// without a GPU. Collective.
comm::Group device_world(const std::string& device,
                         const comm::Session& session,
                         double deadline_s);

/// All commands, in the order of the overview.
const std::vector<Command>& commands();

// One file each.
Command train_command();
Command eval_command();
Command generate_command();
Command chat_command();
Command data_show_command();
Command data_stats_command();
Command data_verify_command();
Command data_redact_command();
Command data_prepare_command();
Command adapter_list_command();
Command adapter_show_command();
Command adapter_diff_command();
Command adapter_merge_command();
Command adapter_combine_command();
Command adapter_methods_command();
Command import_command();
Command export_command();
Command inspect_command();
Command plan_command();
Command federate_simulate_command();
Command federate_coordinator_command();
Command federate_site_command();
Command federate_init_command();
Command federate_invite_command();
Command federate_join_command();
Command federate_admit_command();
Command federate_renew_command();
Command federate_revoke_command();
Command federate_status_command();
Command doctor_command();
Command federate_audit_command();
Command federate_ledger_command();
Command version_command();

/// The value of a required option; ErrorKind::Config with the usage when it is missing.
std::string required(const po::variables_map& arguments,
                     const std::string& name,
                     const Command& command);
/// The value of an option that is an integer and has one; ErrorKind::Config when it is not within
/// [low, high].
int64_t number_of(const po::variables_map& arguments,
                  const std::string& name,
                  int64_t low,
                  int64_t high = std::numeric_limits<int32_t>::max());
/// Throws unless the file that the option names, if it is given, can be written
/// (storage::check_output_file): before the work, which may take long.
void check_output_file(const po::variables_map& arguments, const std::string& name);
/// The value, or `otherwise`.
template <class T>
T value_or(const po::variables_map& arguments, const std::string& name, T otherwise) {
  return arguments.count(name) != 0 ? arguments[name].as<T>() : otherwise;
}

}  // namespace kamerton::cli
