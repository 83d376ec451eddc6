# SPDX-License-Identifier: Apache-2.0
"""Runs the program as a user does, in a folder of its own that goes away afterwards."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

SOURCE = pathlib.Path(os.environ["KAMERTON_SOURCE_DIR"])
PROGRAM = os.environ["KAMERTON_PROGRAM"]
SHARED = pathlib.Path(os.environ.get("KAMERTON_SHARED", "/nonexistent"))
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "btl_vader_single_copy_mechanism", "none"]
if os.geteuid() == 0:
    MPIRUN.append("--allow-run-as-root")


class Result:
    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def __str__(self):
        return f"exit code {self.code} after {self.seconds:.1f} s\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class ProgramTest(unittest.TestCase):
    """self.folder: a work folder with configs/ linked into it."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kamerton-program-"))
        (self.folder / "configs").symlink_to(SOURCE / "configs")

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, extra=None):
        return {**os.environ, "OMP_NUM_THREADS": "1", **(extra or {})}

    def command(self, *arguments, ranks=0):
        launcher = MPIRUN + ["-np", str(ranks)] if ranks else []
        return launcher + [PROGRAM, *map(str, arguments)]

    def run_program(self, *arguments, ranks=0, timeout=120, env=None, stdin=""):
        start = time.monotonic()
        done = subprocess.run(self.command(*arguments, ranks=ranks), cwd=self.folder, env=self.environment(env),
                              input=stdin, capture_output=True, text=True, timeout=timeout, errors="replace")
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def start_program(self, *arguments, ranks=0, env=None):
        return subprocess.Popen(self.command(*arguments, ranks=ranks), cwd=self.folder, env=self.environment(env),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def train(self, name, *more, ranks=0, config="configs/debug/tiny.yaml", **keywords):
        return self.run_program("train", config, "--set", f"name={name}", *more, ranks=ranks, **keywords)

    def metrics(self, name):
        lines = (self.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def assert_success(self, result):
        self.assertEqual(result.code, 0, str(result))

    def assert_refused(self, result, code, *words):
        """One clear error with these words, this exit code, no crash."""
        self.assertEqual(result.code, code, str(result))
        for word in words:
            self.assertIn(word, result.err, str(result))
        self.assertNotIn("terminate called", result.err)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def children(pid):
    """All descendants of a process."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found += [int(entry.name)] + children(int(entry.name))
    return found


def kill_tree(process):
    for pid in children(process.pid) + [process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def main():
    unittest.main(verbosity=1)
