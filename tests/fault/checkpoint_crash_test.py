#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills or fails a save at each system call that changes the disk; a complete checkpoint must load every time.

usage: checkpoint_crash_test.py DRIVER
The driver is checkpoint_driver (see there). Exit code 77: strace cannot trace here.
"""
import os
import shutil
import subprocess
import sys
import tempfile

# Every call by which the driver, HDF5 or the C++ library changes a file or a name.
CALLS = ["write,pwrite64", "fsync", "rename", "mkdir", "unlink,unlinkat,rmdir", "link", "ftruncate", "openat", "close"]
# What is injected: a kill before the call, or an error of the call.
FAULTS = ["signal=SIGKILL", "error=ENOSPC", "error=EIO"]
IO_ERROR, OUTPUT_ERROR = 74, 73
MOST = 400


def run(driver, *arguments, strace=None):
    command = (["strace", "-f", "-qq", "-o", "/dev/null"] + strace if strace else []) + [driver, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def can_trace(driver):
    if shutil.which("strace") is None:
        return False
    probe = run(driver, strace=["-e", "trace=close", "-e", "inject=fsync:error=EIO:when=1"])
    return probe.returncode == 64  # the driver's usage line came through


def prepared(driver, parent):
    folder = os.path.join(parent, "checkpoints")
    shutil.rmtree(folder, ignore_errors=True)
    result = run(driver, "save", folder, "1")
    assert result.returncode == 0, result.stderr
    return folder


def judge(driver, folder, step, result, what):
    """After the fault: step 1 or `step` loads; when the save claimed success it is `step`."""
    check = run(driver, "check", folder)
    problems = []
    if check.returncode != 0:
        problems.append(f"nothing loads: {check.stdout.strip()} {check.stderr.strip()}")
    elif result.returncode == 0 and check.stdout.strip() != step:
        problems.append(f"the save reported success but step {check.stdout.strip()} is the latest")
    if result.returncode in (134, 139) or result.returncode in (-6, -11):
        problems.append(f"the save crashed with {result.returncode}")
    if "outcome unknown" in result.stderr and not os.path.isdir(os.path.join(folder, "step-000001")):
        problems.append("the outcome was unknown but the older checkpoint is gone")
    # A later save must work as if nothing had happened.
    again = run(driver, "save", folder, "3")
    if again.returncode != 0 or run(driver, "check", folder).stdout.strip() != "3":
        problems.append(f"the next save fails: {again.stderr.strip()}")
    return [f"{what}: {problem}" for problem in problems]


def enumerate_fault(driver, parent, step, calls, fault):
    """All N until the fault no longer strikes: then the save ends as without it."""
    problems, hits = [], 0
    for number in range(1, MOST):
        folder = prepared(driver, parent)
        log = os.path.join(parent, "strace.log")
        first = ["-o", log, "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}:when={number}"]
        result = run(driver, "save", folder, step, strace=first)
        with open(log, errors="replace") as lines:
            text = lines.read()
        struck = "(INJECTED)" in text or "killed by SIGKILL" in text
        if not struck:
            return problems, hits
        hits += 1
        what = f"save {step}: {calls} {fault} #{number} (exit {result.returncode})"
        problems += judge(driver, folder, step, result, what)
        if fault.startswith("error") and result.returncode not in (0, IO_ERROR, OUTPUT_ERROR):
            # Errors of calls that load libraries end before main; they are not ours.
            if "error while loading" not in result.stderr and result.returncode != 127:
                problems.append(f"{what}: exit code {result.returncode}, stderr {result.stderr.strip()[:200]}")
    problems.append(f"{calls} {fault}: still striking after {MOST}")
    return problems, hits


def scenarios():
    """Step 2 after step 1, with every call and fault; step 1 again, which moves the old one aside, with the renames."""
    for calls in CALLS:
        for fault in FAULTS:
            # The dynamic loader's opens and closes are most of these; only a kill is of interest there.
            if calls not in ("openat", "close") or fault == "signal=SIGKILL":
                yield "2", calls, fault
    for calls in ("rename", "fsync", "unlink,unlinkat,rmdir"):
        for fault in FAULTS:
            yield "1", calls, fault


def main():
    driver = sys.argv[1]
    if not can_trace(driver):
        print("SKIPPED: strace cannot trace processes here")
        return 77
    problems, total = [], 0
    with tempfile.TemporaryDirectory(prefix="kamerton-fault-") as parent:
        for step, calls, fault in scenarios():
            found, hits = enumerate_fault(driver, parent, step, calls, fault)
            print(f"save {step}: {calls:24} {fault:16} {hits:4} faults, {len(found)} problems", flush=True)
            problems += found
            total += hits
    for problem in problems:
        print("PROBLEM", problem)
    print(f"{total} faults injected, {len(problems)} problems")
    return 1 if problems or total < 50 else 0


if __name__ == "__main__":
    sys.exit(main())
