#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/kamerton-run: the plan as a pure function, and whole runs of a stand-in program under a real mpirun."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "launch/kamerton-run"

# Plays a rank: `train FILE --act WHAT`. Leaves the files that kamerton leaves.
STAND_IN = """#!{python}
import json, os, pathlib, signal, sys, time
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", 0))
act = sys.argv[sys.argv.index("--act") + 1]
run = pathlib.Path("runs/demo")
run.mkdir(parents=True, exist_ok=True)
state = dict(kamerton="status-1", pid=os.getpid(), host="here", step=12, phase="step", op="reduce_scatter", inside=1, signal="-")
(run / f"rank-{{rank}}.status").write_text("".join(f"{{k:13}}{{str(v):50}}\\n" for k, v in state.items()))
def save(step):
    folder = run / f"checkpoints/step-{{step:06}}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{{}}")
def leave(code, message):
    (run / f"error.rank-{{rank}}.json").write_text(json.dumps(dict(exit_code=code, text=message, rank=rank), indent=2))
    sys.exit(code)
def stop(*_):
    if rank == 0: save(13)
    time.sleep(0.3)
    os._exit(75)
signal.signal(signal.SIGUSR1, stop)
if act == "fine": print("threads", os.environ["OMP_NUM_THREADS"], "args", *sys.argv[1:])
elif act == "die" and rank == 1:
    save(8)
    time.sleep(0.3)
    os.kill(os.getpid(), 9)
elif act == "data" and rank == 1: leave(65, "line 7 is not JSON")
elif act == "flaky":
    if "--resume" in sys.argv: print("resumed")
    elif rank == 0: save(4); leave(74, "disk full")
    else: time.sleep(20)
elif act == "stuck" and rank == 0: leave(76, "peer lost")
elif act == "load": signal.signal(signal.SIGUSR1, signal.SIG_DFL); (run / f"loads-{{rank}}").touch(); time.sleep(20)
else: time.sleep(20)
"""


def load_launcher():
    loader = importlib.machinery.SourceFileLoader("kamerton_run", str(LAUNCHER))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kamerton_run", loader))
    loader.exec_module(module)
    return module


run = load_launcher()


def plan(words, environment=None, cores=8, launcher="mpirun"):
    return run.Plan(run.parse(words + ["train", "x.yaml"]), environment or {}, cores, launcher)


class Planning(unittest.TestCase):
    def test_divides_cores_among_ranks_and_binds_a_job_that_fills_the_node(self):
        p = plan(["-n", "2"])
        self.assertEqual((p.threads, p.bind, p.warnings), (4, "core", []))
        self.assertIn("slot:PE=4", p.prefix)
        self.assertNotIn("--oversubscribe", p.prefix)

    def test_leaves_a_job_unbound_that_does_not_fill_the_node(self):
        self.assertEqual(plan(["-n", "2", "--threads", "2"]).bind, "none")
        self.assertEqual(plan(["-n", "3"]).threads, 2)
        self.assertEqual(plan(["-n", "3"]).bind, "none")

    def test_more_ranks_than_cores_oversubscribe_with_a_warning(self):
        p = plan(["-n", "4"], cores=2)
        self.assertIn("--oversubscribe", p.prefix)
        self.assertEqual(len(p.warnings), 1)

    def test_spreads_ranks_over_hosts(self):
        p = plan(["-n", "4", "--hosts", "a,b"], cores=4)
        self.assertEqual(p.threads, 2)
        self.assertIn("a:2,b:2", p.prefix)

    def test_srun_takes_counts_from_the_allocation(self):
        slurm = {"SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "8"}
        p = plan([], slurm, launcher="srun")
        self.assertEqual(p.prefix[:4], ["srun", "--mpi=pmix", "--nodes=2", "--ntasks=4"])
        self.assertIn("--cpus-per-task=4", p.prefix)
        self.assertEqual(plan([], {**slurm, "SLURM_CPUS_PER_TASK": "2"}, launcher="srun").threads, 2)

    def test_refuses_what_cannot_be(self):
        for words, launcher in ((["-n", "0"], "mpirun"), (["-n", "x"], "mpirun"), (["-n", "2"], "none"),
                                (["-n", "99", "--bind", "core"], "mpirun"), (["--hosts", "a"], "srun")):  # fmt: skip
            with self.assertRaises(run.Refusal, msg=words):
                plan(words, launcher=launcher)

    def test_run_folder_follows_the_file_and_set(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "small.yaml")
            pathlib.Path(path).write_text("# name: no\nmodel:\n  name: deeper\noutput: 'out'  # here\n")
            self.assertEqual(run.run_folder(["train", path]), pathlib.Path("out/small"))
            self.assertEqual(run.run_folder(["train", path, "--set", "name=b"]), pathlib.Path("out/b"))
            self.assertIsNone(run.run_folder(["eval", path]))


@unittest.skipUnless(shutil.which("mpirun"), "no mpirun")
class Running(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, str(self.folder), True)
        self.program = self.folder / "stand_in"
        self.program.write_text(STAND_IN.format(python=sys.executable))
        self.program.chmod(0o755)
        (self.folder / "demo.yaml").write_text("model: {}\n")
        self.environment = {**os.environ, "KAMERTON_PROGRAM": str(self.program), "KAMERTON_RETRY_WAIT_S": "0"}
        for name in [k for k in self.environment if k.startswith("SLURM_")]:
            del self.environment[name]

    def start(self, act, *options):
        words = [sys.executable, "-B", str(LAUNCHER), "-n", "2", *options, "--", "train", "demo.yaml", "--act", act]
        return subprocess.Popen(words, cwd=str(self.folder), env=self.environment, universal_newlines=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def finish(self, process):
        out, err = process.communicate(timeout=60)
        path = self.folder / "runs/demo/exit.json"
        return process.returncode, out, err, json.loads(path.read_text()) if path.exists() else {}

    def test_success_passes_through(self):
        code, out, err, report = self.finish(self.start("fine"))

        self.assertEqual((code, report["code"]), (0, 0), err)
        self.assertEqual(out.count("threads"), 2)

    def test_killed_rank_is_named_with_host_step_and_checkpoint(self):
        code, _, err, report = self.finish(self.start("die"))

        self.assertEqual(code, 137)
        self.assertEqual((report["rank"], report["signal"], report["step"], report["action"]), (1, 9, 12, "retry"))
        line = err.strip().splitlines()[-1]
        self.assertRegex(line, r"rank 1 \(host here, pid \d+\) died by signal 9 at step 12 in reduce_scatter")
        self.assertIn("last checkpoint step-000008; resume: ", line)
        self.assertTrue(line.endswith("--resume"), line)

    def test_error_file_decides_the_code_and_bad_data_is_not_retried(self):
        code, _, err, report = self.finish(self.start("data", "--retries", "3"))

        self.assertEqual((code, report["rank"], report["action"], report["attempts"]), (65, 1, "stop", 1), err)
        self.assertEqual(report["message"], "line 7 is not JSON")

    def test_mpiruns_echo_of_an_end_is_left_out_and_nothing_else(self):
        rule = b"-" * 74 + b"\n"
        said = [b"error (rank 0 on here): line 7 is not JSON\n", rule, b"MPI_ABORT was invoked on rank 0 in communicator MPI_COMM_WORLD\n",
                b"with errorcode 65.\n", b"\n", b"error (rank 1 on here): so it is\n", b"exactly when Open MPI kills them.\n", rule,
                b'[here:12] 1 more process has sent help message help-mpi-api.txt / mpi-abort\n', rule, b"a table\n", rule]  # fmt: skip
        echo = run.Echo()
        passed = [echo.pass_line(line) for line in said] + [echo.end()]

        self.assertEqual(b"".join(passed), said[0] + said[5] + rule + said[10] + rule)

    def test_a_failed_job_ends_with_the_ranks_error_and_our_sentence(self):
        _, _, err, _ = self.finish(self.start("data"))

        self.assertNotIn("-----", err)
        self.assertIn("kamerton-run: ", err.strip().splitlines()[-1])

    def test_io_error_is_retried_from_the_checkpoint_when_asked(self):
        code, out, err, report = self.finish(self.start("flaky", "--retries", "1"))

        self.assertEqual((code, report["attempts"]), (0, 2), err)
        self.assertIn("resumed", out)

    def test_without_retries_an_io_error_ends_the_run(self):
        code, _, _, report = self.finish(self.start("flaky"))

        self.assertEqual((code, report["action"], report["last_checkpoint"]), (74, "retry", "step-000004"))

    def test_continue_resumes_only_what_has_a_checkpoint(self):
        self.assertNotIn("--resume", self.finish(self.start("fine", "--continue"))[1])
        (self.folder / "runs/demo/checkpoints/step-000005").mkdir(parents=True)
        self.assertNotIn("--resume", self.finish(self.start("fine", "--continue"))[1])  # no manifest: not complete
        (self.folder / "runs/demo/checkpoints/step-000005/manifest.json").write_text("{}")
        self.assertIn("--resume", self.finish(self.start("fine", "--continue"))[1])

    def test_three_attempts_without_progress_are_enough(self):
        code, _, _, report = self.finish(self.start("stuck", "--retries", "9"))

        self.assertEqual((code, report["attempts"], report["action"]), (79, 3, "stop"))

    def ask_to_stop(self, process, files):
        deadline = time.monotonic() + 20
        while len(list(self.folder.glob("runs/demo/" + files))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)

    def test_ranks_that_are_asked_to_stop_while_they_start_are_queued_again(self):
        process = self.start("load")

        self.ask_to_stop(process, "loads-*")

        code, _, err, report = self.finish(process)
        self.assertEqual((code, report["action"], report["last_checkpoint"]), (75, "requeue", None), err)

    def test_sigterm_lets_ranks_save_and_exits_75(self):
        process = self.start("wait")

        self.ask_to_stop(process, "rank-*.status")

        code, _, err, report = self.finish(process)
        self.assertEqual((code, report["action"], report["last_checkpoint"]), (75, "requeue", "step-000013"), err)

    def test_configuration_errors_exit_64(self):
        process = self.start("fine", "--bind", "sideways")
        self.assertEqual(self.finish(process)[0], 64)

    def test_site_file_reaches_the_ranks(self):
        (self.folder / "lab.env").write_text("export OMPI_MCA_btl=self,vader\nexport KAMERTON_PLACE=lab\n")
        code, out, err, _ = self.finish(self.start("fine", "--site", "lab.env", "--dry-run"))
        self.assertEqual(code, 0, err)
        self.assertIn("-x KAMERTON_PLACE", out)


if __name__ == "__main__":
    unittest.main(verbosity=1)
