#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A rank that dies, stops or crashes: the job ends in time, names the rank, leaves no process behind."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

VICTIM = os.environ["KAMERTON_VICTIM"]
MPIRUN = os.environ.get("KAMERTON_MPIRUN", "mpirun")
FLAGS = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


def status(folder, rank):
    """The values of rank-K.status."""
    lines = (pathlib.Path(folder) / f"rank-{rank}.status").read_text().splitlines()
    assert all(len(line) == 63 for line in lines), "every line has 64 bytes"
    return {line.split(None, 1)[0]: line.split(None, 1)[1].strip() for line in lines}


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class RankLoss(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = self.scratch.name
        self.addCleanup(self.scratch.cleanup)

    def launch(self, ranks, deadline=60, steps=100000, error=None, fault=None, path=None):
        environment = dict(os.environ)
        flags = list(FLAGS)
        for name, value in (("KAMERTON_FAULT", fault), ("KAMERTON_COMM_PATH", path)):
            if value:
                environment[name] = value
                flags += ["-x", name]
        command = [VICTIM, self.folder, str(deadline), str(steps)] + ([error] if error else [])
        if ranks > 0:
            command = [MPIRUN, "-np", str(ranks)] + flags + command
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def run_job(self, ranks, **options):
        begin = time.monotonic()
        job = self.launch(ranks, **options)
        try:
            output, _ = job.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            job.kill()
            raise
        return job.returncode, output, time.monotonic() - begin

    def expect_no_process(self, ranks):
        until = time.monotonic() + 10
        pids = [int(status(self.folder, rank)["pid"]) for rank in range(ranks)]
        while time.monotonic() < until and any(alive(pid) for pid in pids):
            time.sleep(0.1)
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_a_good_job_ends_with_zero(self):
        code, output, _ = self.run_job(2, steps=20)
        self.assertEqual(code, 0, output)
        self.assertIn("rank 1 done", output)
        self.assertEqual(status(self.folder, 1)["phase"], "finished")
        self.assertEqual(status(self.folder, 1)["step"], "20")

    def test_a_killed_rank_ends_the_job(self):
        for path in ("auto", "mpi"):
            with self.subTest(path):
                code, output, seconds = self.run_job(3, fault="kill:rank=1:step=7", path=path)
                self.assertNotEqual(code, 0)
                self.assertLess(seconds, 30)
                self.assertRegex(output, r"rank 1\b.*(signal 9|is gone)")
                seen = status(self.folder, 1)
                self.assertEqual((seen["step"], seen["phase"], seen["checkpoint"]), ("7", "train", "step-5"))
                self.assertEqual(seen["op"], "all_reduce")
                self.expect_no_process(3)

    def test_a_stopped_rank_is_named_and_the_job_ends_with_76(self):
        for path in ("auto", "mpi"):
            with self.subTest(path):
                code, output, seconds = self.run_job(2, deadline=5, fault="stop:rank=1:step=7", path=path)
                self.assertEqual(code, 76, output)
                self.assertLess(seconds, 30)
                self.assertRegex(output, r"rank 0 .* waits in all_reduce #7 \(world, 1\.144 MiB\) since \d+ s at step 7")
                self.assertRegex(output, r"rank 1 \(pid \d+\) last seen at #6, step 7, no sign of life for")
                report = json.loads((pathlib.Path(self.folder) / "error.rank-0.json").read_text())
                self.assertEqual((report["kind"], report["exit_code"], report["step"]), ("comm", 76, 7))
                history = (pathlib.Path(self.folder) / "rank-0.hang").read_text()
                self.assertRegex(history, r"7\tall_reduce\tworld\t1200000\t.*waiting")
                self.expect_no_process(2)

    def test_an_error_of_all_ranks_is_printed_once(self):
        code, output, _ = self.run_job(3, error="data")
        self.assertEqual(code, 65, output)
        self.assertEqual(output.count("line 3 of the file is broken"), 1, output)
        report = json.loads((pathlib.Path(self.folder) / "error.rank-0.json").read_text())
        self.assertEqual(report["text"], "[victim] line 3 of the file is broken")

    def test_an_error_of_one_rank_names_it(self):
        code, output, seconds = self.run_job(3, error="data1")
        self.assertEqual(code, 65, output)
        self.assertLess(seconds, 20)
        self.assertRegex(output, r"error \(rank 1 on .*\): \[victim\] line 3")
        self.expect_no_process(3)
        code, output, _ = self.run_job(2, error="throw1")
        self.assertEqual(code, 70, output)

    def test_a_crash_leaves_signal_and_backtrace(self):
        code, _, _ = self.run_job(2, error="segv1")
        self.assertNotEqual(code, 0)
        self.assertEqual(status(self.folder, 1)["signal"], "11")
        crash = (pathlib.Path(self.folder) / "rank-1.crash").read_text()
        self.assertTrue(crash.startswith("signal 11\n"), crash)
        self.assertGreater(crash.count("\n"), 3)
        self.expect_no_process(2)

    def test_ranks_end_when_mpirun_is_killed(self):
        job = self.launch(2)
        until = time.monotonic() + 30
        while time.monotonic() < until and not (
                all((pathlib.Path(self.folder) / f"rank-{r}.status").exists() for r in range(2))
                and int(status(self.folder, 1)["step"].replace("-", "0")) > 3):
            time.sleep(0.1)
        job.send_signal(signal.SIGKILL)
        job.wait()
        job.stdout.close()
        self.expect_no_process(2)

    def test_works_without_a_launcher(self):
        code, output, _ = self.run_job(0, steps=20)
        self.assertEqual(code, 0, output)
        code, output, _ = self.run_job(0, error="data")
        self.assertEqual(code, 65)
        self.assertEqual(output.strip(), "error: [victim] line 3 of the file is broken")
        code, _, _ = self.run_job(0, fault="kill:step=3")
        self.assertEqual(code, -signal.SIGKILL)

    def test_worlds_of_one_are_refused(self):
        """srun without PMIx starts N processes that each believe to be alone."""
        environment = dict(os.environ, SLURM_STEP_ID="0", SLURM_PROCID="1", SLURM_STEP_NUM_TASKS="4")
        done = subprocess.run([VICTIM, self.folder, "60", "5"], capture_output=True, text=True, env=environment,
                              timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue("SLURM_STEP_NUM_TASKS=4" in done.stderr or "direct launched" in done.stderr, done.stderr)

    def test_a_fault_that_cannot_be_read_is_refused(self):
        code, output, _ = self.run_job(0, fault="explode:rank=1")
        self.assertEqual(code, 64, output)
        self.assertIn("kill|stop|sleep|nan|flip", output)


if __name__ == "__main__":
    unittest.main()
