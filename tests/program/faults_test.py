# SPDX-License-Identifier: Apache-2.0
"""Ranks that die, hang or miscount: the job ends, says who, and nothing is left behind."""
import os
import pathlib
import signal
import time

import support


class Faults(support.ProgramTest):
    def no_process_left(self, name):
        def gone():
            return name not in os.popen("ps -eo args").read().replace("ps -eo args", "")
        self.assertTrue(support.wait_until(gone, 30), "processes of the run are still there")

    @staticmethod
    def is_rank(pid, rank):
        process = pathlib.Path(f"/proc/{pid}")
        return "kamerton" in (process / "comm").read_text() and f"OMPI_COMM_WORLD_RANK={rank}".encode() in (process / "environ").read_bytes()

    def test_killed_rank_is_named(self):
        started = time.monotonic()
        process = self.start_program("train", "configs/debug/tiny.yaml", "--set", "name=killed-rank", "--set", "train.steps=1000000", ranks=2)
        metrics = self.folder / "runs/killed-rank/metrics.jsonl"
        self.assertTrue(support.wait_until(lambda: metrics.exists() and metrics.stat().st_size > 500))
        victim = next(pid for pid in support.children(process.pid) if self.is_rank(pid, 1))
        started = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        self.assertLess(time.monotonic() - started, 30)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("rank 1", out + err)
        self.no_process_left("name=killed-rank")

    def test_stopped_rank_is_named_by_the_watchdog(self):
        result = self.train("stopped-rank", "--set", "train.watchdog_s=5", ranks=2, env={"KAMERTON_FAULT": "stop:rank=1:step=3"})
        self.assertNotEqual(result.code, 0)
        self.assertIn("rank 1", result.err + result.out, str(result))
        self.assertLess(result.seconds, 60)
        self.no_process_left("name=stopped-rank")

    def test_step_that_is_not_finite_is_skipped_on_all_ranks(self):
        result = self.train("nan", ranks=2, env={"KAMERTON_FAULT": "nan:rank=1:step=5"})
        self.assert_success(result)
        lines = self.metrics("nan")
        self.assertEqual([line["step"] for line in lines if line["skipped"]], [5])
        self.assertEqual(len(lines), 20)
        self.assertIn("step 5 was skipped", result.err)

    def test_too_many_such_steps_end_the_run(self):
        result = self.train("nans", "--set", "optim.max_skipped_steps=3", ranks=2, env={"KAMERTON_FAULT": "nan:rank=0"})
        self.assertEqual(result.code, 78, str(result))
        self.assertIn("3 steps in a row", result.err)


if __name__ == "__main__":
    support.main()
