# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Source me (bash). Keeps what building and running write inside the clone; a value that is already set wins.
KAMERTON_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export KAMERTON_ROOT
export CCACHE_DIR=${CCACHE_DIR:-$KAMERTON_ROOT/.deps/ccache}
export CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G}
# What a file includes is taken from the compiler: a miss costs no run of the preprocessor.
export CCACHE_DEPEND=${CCACHE_DEPEND:-1}
# What a file includes is taken from the compiler: a miss costs no run of the preprocessor.
export CCACHE_DEPEND=${CCACHE_DEPEND:-1}
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Compile jobs: a file that sees ATen takes up to 2 GiB, so memory limits them as well as cores.
kamerton_jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  local by_memory=$((memory_gib / 2))
  ((by_memory < 1)) && by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}
