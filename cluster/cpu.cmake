# SPDX-License-Identifier: Apache-2.0
# Initial cache for a CPU-only cluster that brings its own libraries as modules:
#   cmake -C cluster/cpu.cmake --preset release
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(KAMERTON_GPU OFF CACHE STRING "")
set(KAMERTON_TESTS OFF CACHE BOOL "")
set(KAMERTON_BENCHMARKS OFF CACHE BOOL "")
# Compile on the login node, run elsewhere: only instructions that all nodes have. The kernels choose theirs at run time.
set(CMAKE_CXX_FLAGS "" CACHE STRING "")
# A libtorch of the site: a folder that holds torch/lib or lib/libtorch_cpu.so.
if(DEFINED ENV{KAMERTON_LIBTORCH})
  set(KAMERTON_LIBTORCH "$ENV{KAMERTON_LIBTORCH}" CACHE PATH "")
endif()
