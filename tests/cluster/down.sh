#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# down.sh DIR - ends the cluster that up.sh started there: recorded processes first, then what is left in its namespaces.
set -u
dir=$(realpath "$1")
while read -r pid; do kill "$pid" 2>/dev/null; done <"$dir/pids"
for _ in $(seq 30); do
  alive=no
  while read -r pid; do kill -0 "$pid" 2>/dev/null && alive=yes; done <"$dir/pids"
  [[ $alive == no ]] && break
  sleep 0.1
done
while read -r namespace; do
  ip netns pids "$namespace" 2>/dev/null | xargs -r kill -9 2>/dev/null
  ip netns del "$namespace" 2>/dev/null
done <"$dir/namespaces"
while read -r pid; do kill -9 "$pid" 2>/dev/null; done <"$dir/pids"
exit 0
