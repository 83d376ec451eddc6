// SPDX-License-Identifier: Apache-2.0
#include "kamerton/cli/program.h"

#include <cstdio>
#include <iostream>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/tensor/allocator.h"

#include "command.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

/// A line a command whose name begins so.
std::string list_of(const std::string& beginning) {
  std::string text;
  for (const Command& command : commands()) {
    if (command.name.starts_with(beginning)) {
      text += fmt::format("  {:<20} {}\n", command.name, command.summary);
    }
  }
  return text;
}

bool asks_for_help(const std::string& word) {
  return word == "--help" || word == "-h" || word == "help";
}

std::string overview() {
  return "kamerton: fine-tunes large language models on the machines you have\n\nUsage: kamerton "
         "COMMAND [ARGUMENTS]\n\nCommands:\n" +
         list_of("") +
         "\n`kamerton COMMAND --help` shows a command's options and examples.\n"
         "On several ranks: mpirun -np 2 kamerton train RUN.yaml, or launch/kamerton-run -n 2 -- "
         "train RUN.yaml\n";
}

std::string help_of(const Command& command, const po::options_description& options) {
  std::ostringstream text;
  text << command.summary << "\n\nUsage: " << command.usage << "\n\n"
       << command.description << "\n\n"
       << options;
  return text.str();
}

/// One for the life of the process: libtorch_cuda is never unloaded.
std::shared_ptr<const comm::Gpu>& loaded() {
  static std::shared_ptr<const comm::Gpu> plugin;
  return plugin;
}

Program say(std::string text, bool to_stderr, int code) {
  return {false, [=](comm::Session*) {
            std::fputs(text.c_str(), to_stderr ? stderr : stdout);
            return code;
          }};
}

/// What was typed cannot be done.
Program refusal(const std::string& why) {
  return say("kamerton: " + why + "\n", true, core::exit_code(ErrorKind::Config));
}

/// `code`, when what was printed has arrived: a full disk behind stdout is no success.
int written(int code) {
  if (code == 0 && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
    throw Error(ErrorKind::Io,
                {.where = "cli", .what = "what was printed could not be written to stdout"});
  }
  return code;
}

/// The command that the first one or two words name, and how many words that took.
std::pair<const Command*, int> find_command(const std::vector<std::string>& words) {
  for (int count = 2; count >= 1; --count) {
    if (static_cast<int>(words.size()) < count) {
      continue;
    }
    const std::string name = count == 2 ? words[0] + " " + words[1] : words[0];
    for (const Command& command : commands()) {
      if (command.name == name) {
        return {&command, count};
      }
    }
  }
  return {nullptr, 0};
}

Program unknown_command(const std::vector<std::string>& words) {
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    names.push_back(command.name);
  }
  const std::string group = words[0] + " ";
  const std::string members = list_of(group);
  if (!members.empty() && words.size() > 1 && asks_for_help(words[1])) {
    return say("Usage: kamerton " + group + "COMMAND [ARGUMENTS]\n\nCommands:\n" + members +
                   "\n`kamerton " + group + "COMMAND --help` shows options and examples.\n",
               false,
               0);
  }
  const std::string typed = members.empty() || words.size() < 2 ? words[0] : group + words[1];
  const std::string near = config::nearest(typed, names);
  const core::Complaint complaint{.where = "cli",
                                  .what = "no such command",
                                  .got = "'" + typed + "'",
                                  .allowed = fmt::format("{}", fmt::join(names, ", ")),
                                  .hint = near.empty() ? "kamerton --help" : "kamerton " + near};
  return refusal(core::to_text(complaint));
}

Program bind(const Command& command, const std::vector<std::string>& rest) {
  po::options_description options("Options");
  po::positional_options_description positional;
  command.add_options(options, positional);
  options.add_options()("help,h", "show this help");
  po::variables_map arguments;
  try {
    po::store(po::command_line_parser(rest).options(options).positional(positional).run(),
              arguments);
    if (arguments.count("help") != 0) {
      return say(help_of(command, options), false, 0);
    }
    po::notify(arguments);
  } catch (const po::unknown_option& error) {
    std::vector<std::string> names;
    for (const auto& option : options.options()) {
      names.push_back("--" + option->long_name());
    }
    const std::string near = config::nearest(error.get_option_name(), names);
    const core::Complaint complaint{
        .where = "cli." + command.name,
        .what = "no such option",
        .got = error.get_option_name(),
        .allowed = fmt::format("{}", fmt::join(names, ", ")),
        .hint = near.empty() ? "kamerton " + command.name + " --help" : near};
    return refusal(core::to_text(complaint));
  } catch (const po::error& error) {
    return refusal(core::to_text({.where = "cli." + command.name,
                                  .what = error.what(),
                                  .hint = "kamerton " + command.name + " --help"}));
  }
  return {command.needs_ranks, [&command, arguments](comm::Session* session) {
            return written(command.run(arguments, session));
          }};
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {train_command(),
                                           eval_command(),
                                           generate_command(),
                                           chat_command(),
                                           data_show_command(),
                                           data_stats_command(),
                                           data_verify_command(),
                                           data_redact_command(),
                                           data_prepare_command(),
                                           adapter_list_command(),
                                           adapter_show_command(),
                                           adapter_diff_command(),
                                           adapter_merge_command(),
                                           adapter_combine_command(),
                                           adapter_methods_command(),
                                           import_command(),
                                           export_command(),
                                           inspect_command(),
                                           plan_command(),
                                           federate_simulate_command(),
                                           federate_coordinator_command(),
                                           federate_site_command(),
                                           federate_init_command(),
                                           federate_invite_command(),
                                           federate_join_command(),
                                           federate_admit_command(),
                                           federate_renew_command(),
                                           federate_revoke_command(),
                                           federate_status_command(),
                                           doctor_command(),
                                           federate_audit_command(),
                                           federate_ledger_command(),
                                           version_command()};
  return all;
}

Program parse(int argc, char** argv) noexcept {
  try {
    std::vector<std::string> words(argv + 1, argv + argc);
    if (words.empty() || asks_for_help(words[0])) {
      return say(overview(), words.empty(), words.empty() ? core::exit_code(ErrorKind::Config) : 0);
    }
    if (words[0] == "--version") {
      words[0] = "version";
    }
    const auto [command, used] = find_command(words);
    if (command == nullptr) {
      return unknown_command(words);
    }
    return bind(*command, {words.begin() + used, words.end()});
  } catch (const std::exception& error) {
    return refusal(fmt::format("[cli] {}", error.what()));
  }
}

int Program::run_alone() const noexcept {
  try {
    return body_(nullptr);
  } catch (const std::exception& error) {
    return report(error);
  }
}

std::shared_ptr<const comm::Gpu> prepare_process() {
  tensor::install_allocator();
  const comm::GpuSight sight = comm::look_for_gpu();
  if (sight.usable()) {
    try {
      loaded() = std::make_shared<const comm::Gpu>(sight);
    } catch (const Error& error) {  // a set-up for the processor alone on a machine with a GPU
      core::log_warning(std::string("the GPU is not used: ") + error.what());
    }
  }
  return loaded();
}

const comm::Gpu* gpu() {
  return loaded().get();
}

bool take_device(const std::string& device, const comm::Session& session) {
  if (gpu() == nullptr || device == "cpu") {
    return false;
  }
  const comm::Topology& topology = session.topology();
  const auto devices = static_cast<int>(comm::look_for_gpu().devices.size());
  if (topology.local_rank >= devices) {
    throw Error(ErrorKind::Config,
                {.where = "cli.gpu",
                 .what = "more ranks on " + topology.host + " than GPUs",
                 .got = fmt::format("{} ranks, {} GPU(s)", topology.local_size, devices),
                 .allowed = "a GPU a rank",
                 .hint = fmt::format("mpirun -np {}, or --set model.device=cpu", devices)});
  }
  gpu()->use_device(topology.local_rank);
  return true;
}

comm::Group device_world(const std::string& device,
                         const comm::Session& session,
                         double deadline_s) {
  const comm::Group& world = session.world();
  const bool on_gpu = take_device(device, session);
  return on_gpu && world.size() > 1 ? gpu()->group(world, deadline_s) : world;
}

int report(const std::exception& error) noexcept {
  std::fprintf(stderr, "kamerton: %s\n", error.what());
  return core::exit_code(error);
}

std::string required(const po::variables_map& arguments,
                     const std::string& name,
                     const Command& command) {
  if (arguments.count(name) == 0) {
    throw Error(ErrorKind::Config,
                {.where = "cli." + command.name,
                 .what = "an argument is missing",
                 .got = "no " + name,
                 .hint = command.usage});
  }
  return arguments[name].as<std::string>();
}

int64_t number_of(const po::variables_map& arguments,
                  const std::string& name,
                  int64_t low,
                  int64_t high) {
  const auto value = arguments[name].as<int64_t>();
  if (value < low || value > high) {
    throw Error(ErrorKind::Config,
                {.where = "cli.arguments",
                 .what = "--" + name + " is out of range",
                 .got = fmt::format("{}", value),
                 .allowed = fmt::format("{} to {}", low, high)});
  }
  return value;
}

void check_output_file(const po::variables_map& arguments, const std::string& name) {
  if (arguments.count(name) != 0) {
    storage::check_output_file(storage::posix_filesystem(), arguments[name].as<std::string>());
  }
}

}  // namespace kamerton::cli
