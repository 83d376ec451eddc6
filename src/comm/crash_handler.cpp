// SPDX-License-Identifier: Apache-2.0
#include "crash_handler.h"

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>

#include <execinfo.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

namespace kamerton::comm {
namespace {

constexpr std::array kSignals = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
constexpr int kDepth = 64;

/// A signal handler has no argument of its own: the one place of this module with static state.
struct CrashState {
  char path[1024] = "";
  std::atomic<char*> signal_field = nullptr;
  std::array<struct sigaction, kSignals.size()> former{};
  bool installed = false;
  std::mutex installing;
};
CrashState g_crash;

size_t to_digits(int number, char* to) {
  size_t length = 0;
  if (number >= 10) {
    to[length++] = static_cast<char>('0' + number / 10 % 10);
  }
  to[length++] = static_cast<char>('0' + number % 10);
  return length;
}

void put(int file, const char* text, size_t length) {
  if (write(file, text, length) < 0) {
    return;  // nothing else can be done inside a handler
  }
}

void on_crash(int signal, siginfo_t*, void*) {
  char digits[4];
  const size_t length = to_digits(signal, digits);
  if (char* field = g_crash.signal_field.exchange(nullptr); field != nullptr) {
    std::memcpy(field, digits, length);
  }
  const int file = open(g_crash.path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
  if (file >= 0) {
    put(file, "signal ", 7);
    put(file, digits, length);
    put(file, "\n", 1);
    void* frames[kDepth];
    backtrace_symbols_fd(frames, backtrace(frames, kDepth), file);
    close(file);
  }
  for (size_t i = 0; i < kSignals.size(); ++i) {
    if (kSignals[i] == signal) {
      sigaction(signal, &g_crash.former[i], nullptr);
    }
  }
  raise(signal);  // delivered to the former handler when this one returns
}

}  // namespace

void install_crash_handler(const std::filesystem::path& folder, int rank, char* signal_field) {
  const std::lock_guard lock(g_crash.installing);
  const std::string path = (folder / fmt::format("rank-{}.crash", rank)).string();
  if (path.size() >= sizeof g_crash.path) {
    return;
  }
  std::memcpy(g_crash.path, path.c_str(), path.size() + 1);
  g_crash.signal_field.store(signal_field);
  if (g_crash.installed) {
    return;
  }
  g_crash.installed = true;
  void* frame[1];
  backtrace(frame, 1);  // loads libgcc now: the handler must not allocate
  struct sigaction action {};
  action.sa_sigaction = on_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &action, &g_crash.former[i]);
  }
}

}  // namespace kamerton::comm
