// SPDX-License-Identifier: Apache-2.0
// main() of test programs under mpirun. Rank 0 prints the course of the tests, the others print
// their failures only. A rank that stops in the middle of a test (a fatal failure, an exception)
// ends the job at once: its peers wait in a collective for it. After every test the ranks agree; a
// failure on one rank fails the program on all.
#include <cstdio>
#include <stdexcept>

#include <gmock/gmock.h>

#include "support/mpi_world.h"

namespace kamerton::testing_support {
namespace {

comm::Session* g_session = nullptr;

class RankListener : public testing::EmptyTestEventListener {
 public:
  bool failed() const { return failed_; }

 private:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) {
      return;
    }
    stopped_ = stopped_ || result.fatally_failed();
    if (mpi_world().rank() > 0) {
      std::fprintf(stderr,
                   "rank %d: %s:%d: %s\n",
                   mpi_world().rank(),
                   result.file_name() ? result.file_name() : "?",
                   result.line_number(),
                   result.message());
    }
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    const std::string name = std::string(info.test_suite_name()) + "." + info.name();
    if (stopped_) {
      mpi_session().abort(
          std::runtime_error(name + " stopped on rank " + std::to_string(mpi_world().rank())));
    }
    const bool mine = info.result()->Failed();
    if (mpi_world().any(mine)) {
      failed_ = true;
      if (mpi_world().rank() == 0 && !mine) {
        std::fprintf(stderr, "[  FAILED  ] %s on another rank\n", name.c_str());
      }
    }
  }

  bool failed_ = false;
  bool stopped_ = false;
};

int run_tests() {
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (mpi_world().rank() > 0) {
    delete listeners.Release(listeners.default_result_printer());
  }
  auto* listener = new RankListener;  // owned by listeners
  listeners.Append(listener);
  const int result = RUN_ALL_TESTS();
  return result == 0 && listener->failed() ? 1 : result;
}

}  // namespace

comm::Session& mpi_session() {
  return *g_session;
}
const comm::Group& mpi_world() {
  return g_session->world();
}

}  // namespace kamerton::testing_support

int main(int argc, char** argv) {
  kamerton::comm::Session session(argc, argv);
  testing::InitGoogleMock(&argc, argv);
  kamerton::testing_support::g_session = &session;
  return kamerton::testing_support::run_tests();
}
