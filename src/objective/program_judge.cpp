// SPDX-License-Identifier: Apache-2.0
// A user's executable behind a socket pair: writing to it cannot raise a signal.
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/objective/judge.h"

extern char** environ;

namespace kamerton::objective {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;
using Clock = std::chrono::steady_clock;

constexpr char kRewardsWhere[] = "objective.rewards";
constexpr size_t kMaxLine = size_t{1} << 20;

/// The process and the socket to its standard input and output.
class Program {
 public:
  explicit Program(const std::vector<std::string>& command) : name_(command.front()) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      refuse(errno, "no socket for the reward program");
    }
    socket_ = ends[0];
    std::vector<char*> words;
    for (const std::string& word : command) {
      words.push_back(const_cast<char*>(word.c_str()));
    }
    words.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    // This thread takes no signals from outside (core/signal_thread); the program shall.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    const int fault = ::posix_spawnp(&pid_, words[0], &actions, &attributes, words.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    if (fault != 0) {
      ::close(socket_);
      refuse(fault, "the reward program cannot be started");
    }
  }
  ~Program() {
    ::close(socket_);
    if (!ended(std::chrono::seconds(1))) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  int socket() const { return socket_; }

  /// "exit code 3", "signal 9" once it has ended, else "".
  std::string how_it_ended() {
    ended(std::chrono::milliseconds(500));
    if (!status_) {
      return "closed its output";
    }
    return WIFSIGNALED(*status_) ? fmt::format("signal {}", WTERMSIG(*status_))
                                 : fmt::format("exit code {}", WEXITSTATUS(*status_));
  }

 private:
  [[noreturn]] void refuse(int fault, const std::string& what) const {
    throw Error(ErrorKind::Config,
                {.where = kRewardsWhere,
                 .what = what,
                 .got = fmt::format("{}: {}", name_, std::strerror(fault)),
                 .allowed = "an executable file",
                 .hint = "objective.rewards: [{kind: program, command: [./judge.py]}]"});
  }

  bool ended(std::chrono::milliseconds patience) {
    const auto until = Clock::now() + patience;
    while (!status_) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        status_ = status;
      } else if (Clock::now() >= until) {
        return false;
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
    return true;
  }

  std::string name_;
  int socket_ = -1;
  pid_t pid_ = -1;
  std::optional<int> status_;
};

std::string line_of(const Answer& answer) {
  return Json{{"id", answer.id},
              {"prompt", answer.prompt},
              {"completion", answer.text},
              {"reference", answer.reference},
              {"ended", answer.ended}}
             .dump(-1, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

class ProgramJudge final : public Judge {
 public:
  ProgramJudge(const RewardConfig& config, const comm::Group& world)
      : config_(config), world_(world) {}

  std::vector<double> rewards(const std::vector<Answer>& answers) override {
    std::string fault;
    auto kind = static_cast<int64_t>(ErrorKind::Io);
    std::vector<double> result(answers.size());
    try {
      result = ask(answers);
    } catch (const Error& error) {
      fault = error.what();
      kind = static_cast<int64_t>(error.kind());
    }
    agree(fault, kind);
    return result;
  }

 private:
  /// Every rank throws what the first one with a fault has met.
  void agree(const std::string& fault, int64_t kind) const {
    const std::vector<int64_t> kinds = world_.all_gather(fault.empty() ? int64_t{-1} : kind);
    const std::vector<std::string> faults = world_.all_gather(std::string_view(fault));
    for (size_t r = 0; r < faults.size(); ++r) {
      if (!faults[r].empty()) {
        program_.reset();
        throw Error(static_cast<ErrorKind>(kinds[r]), faults[r]);
      }
    }
  }

  std::vector<double> ask(const std::vector<Answer>& answers) {
    if (!program_) {
      program_ = std::make_unique<Program>(config_.command);
    }
    std::string out;
    waiting_.clear();
    for (size_t i = 0; i < answers.size(); ++i) {
      if (answers[i].id >= 0) {  // others only keep ranks in step
        out += line_of(answers[i]);
        waiting_[answers[i].id] = i;
      }
    }
    std::vector<double> result(answers.size(), 0.0);
    const auto limit = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                          std::chrono::duration<double>(config_.timeout_s));
    size_t sent = 0;
    while (!waiting_.empty()) {
      wait(sent < out.size(), limit);
      send_some(out, sent);
      receive(result);
    }
    return result;
  }

  void wait(bool writes, Clock::time_point limit) const {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(limit - Clock::now()).count();
    pollfd one{program_->socket(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0};
    if (left <= 0 || ::poll(&one, 1, static_cast<int>(std::min<int64_t>(left + 1, 60000))) == 0) {
      if (Clock::now() >= limit) {
        throw Error(ErrorKind::Io,
                    {.where = kRewardsWhere,
                     .what = fmt::format("the reward program {} did not answer in time",
                                         config_.command.front()),
                     .got = fmt::format("{} answers without a reward", waiting_.size()),
                     .allowed = fmt::format("timeout_s = {}", config_.timeout_s),
                     .hint = "a larger timeout_s; the program must flush its output"});
      }
    }
  }

  void send_some(const std::string& out, size_t& sent) const {
    while (sent < out.size()) {
      const ssize_t n = ::send(
          program_->socket(), out.data() + sent, out.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n <= 0) {
        return;  // full for now; one that has gone shows when reading
      }
      sent += static_cast<size_t>(n);
    }
  }

  void receive(std::vector<double>& result) {
    char buffer[4096];
    while (true) {
      const ssize_t n = ::recv(program_->socket(), buffer, sizeof(buffer), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
      }
      if (n <= 0) {
        throw Error(
            ErrorKind::Io,
            {.where = kRewardsWhere,
             .what = fmt::format("the reward program {} ended before it had answered",
                                 config_.command.front()),
             .got = fmt::format(
                 "{}, {} answers without a reward", program_->how_it_ended(), waiting_.size()),
             .hint = "its own messages are above"});
      }
      partial_.append(buffer, static_cast<size_t>(n));
      take_lines(result);
    }
  }

  void take_lines(std::vector<double>& result) {
    size_t begin = 0;
    for (size_t end = partial_.find('\n'); end != std::string::npos;
         end = partial_.find('\n', begin)) {
      take(partial_.substr(begin, end - begin), result);
      begin = end + 1;
    }
    partial_.erase(0, begin);
    if (partial_.size() > kMaxLine) {
      babble("a line without an end");
    }
  }

  void take(const std::string& line, std::vector<double>& result) {
    const Json json = Json::parse(line, nullptr, false);
    const Json* id = json.is_object() ? core::json_find(json, "id") : nullptr;
    const Json* reward = json.is_object() ? core::json_find(json, "reward") : nullptr;
    if (id == nullptr || !id->is_number_integer() || reward == nullptr || !reward->is_number() ||
        !std::isfinite(reward->get<double>())) {
      babble(
          fmt::format("{} bytes that are not {{\"id\": number, \"reward\": number}}", line.size()));
    }
    const auto found = waiting_.find(id->get<int64_t>());
    if (found == waiting_.end()) {
      babble("an id that was not asked for, or was answered before");
    }
    result[found->second] = reward->get<double>();
    waiting_.erase(found);
  }

  [[noreturn]] void babble(const std::string& got) const {
    throw Error(ErrorKind::Data,
                {.where = kRewardsWhere,
                 .what = fmt::format("the reward program {} wrote something else than a reward",
                                     config_.command.front()),
                 .got = got,
                 .allowed = "one line {\"id\": ..., \"reward\": number} an answer",
                 .hint = "messages for people belong to standard error"});
  }

  RewardConfig config_;
  comm::Group world_;
  mutable std::unique_ptr<Program> program_;
  std::map<int64_t, size_t> waiting_;
  std::string partial_;
};

}  // namespace

std::unique_ptr<Judge> make_program_judge(const RewardConfig& config, const comm::Group& world) {
  return std::make_unique<ProgramJudge>(config, world);
}

}  // namespace kamerton::objective
