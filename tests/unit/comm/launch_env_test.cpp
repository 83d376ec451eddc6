// SPDX-License-Identifier: Apache-2.0
#include "launch_env.h"

#include <map>
#include <string>

#include <gmock/gmock.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

Environment table(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> const char* {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.c_str();
  };
}

TEST(LaunchEnvironment, BelievesTheInnermostLauncher) {
  // mpirun inside an allocation: the tasks of the outer step are mpirun's daemons.
  const auto size = launched_size(table({{"OMPI_COMM_WORLD_SIZE", "4"},
                                         {"SLURM_STEP_ID", "0"},
                                         {"SLURM_PROCID", "0"},
                                         {"SLURM_STEP_NUM_TASKS", "2"}}));
  ASSERT_TRUE(size);
  EXPECT_EQ(size->size, 4);
  EXPECT_EQ(size->variable, "OMPI_COMM_WORLD_SIZE");
}

TEST(LaunchEnvironment, TakesAStepsTasksButNotABatchScripts) {
  EXPECT_EQ(
      launched_size(
          table({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "8"}}))
          ->size,
      8);
  EXPECT_FALSE(launched_size(table({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}})));
  EXPECT_FALSE(launched_size(table({})));
}

TEST(LaunchEnvironment, IgnoresValuesThatAreNoNumbers) {
  for (const char* value : {"", "x", "0", "-3", "4 ", "99999999999999"}) {
    EXPECT_FALSE(launched_size(table({{"OMPI_COMM_WORLD_SIZE", value}}))) << value;
  }
}

TEST(LaunchEnvironment, RefusesWorldsOfOne) {
  EXPECT_NO_THROW(check_world_size(std::nullopt, 1));
  EXPECT_NO_THROW(check_world_size(LaunchedSize{2, "PMI_SIZE"}, 2));
  try {
    check_world_size(LaunchedSize{4, "SLURM_STEP_NUM_TASKS"}, 1);
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Comm);
    EXPECT_THAT(error.what(), testing::HasSubstr("SLURM_STEP_NUM_TASKS=4, MPI world size 1"));
    EXPECT_THAT(error.what(), testing::HasSubstr("--mpi=pmix"));
  }
}

}  // namespace
}  // namespace kamerton::comm
