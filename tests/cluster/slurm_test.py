#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/train.sbatch on a real SLURM: two virtual nodes with two ranks each.

    slurm_test.py WORK_FOLDER     (not below /tmp: the nodes have their own)

What must hold: the losses are those of an mpirun run; a preempted job saves, is queued again, resumes, and ends with the
very weights of a job that was never interrupted. Exits 77 with the reason where no cluster can be started.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "ip", "nsenter", "unshare", "mpirun")
RANKS = 4
SHORT, LONG = 12, 24
# Seconds that a rank sleeps at each step of the job that shall be preempted, so that it is surely in mid-run then.
SLOW = "sleep:seconds=1"


def reason_to_skip():
    if os.geteuid() != 0:
        return "not root: network namespaces and slurmd need it"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return "not installed: " + " ".join(missing) + " (Debian: slurmctld slurmd slurm-client munge iproute2)"
    name = "kmprobe%d" % os.getpid()
    made = subprocess.run(["ip", "netns", "add", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        return "no network namespaces here: " + made.stdout.decode().strip()
    subprocess.run(["ip", "netns", "del", name])
    entered = subprocess.run(["unshare", "--uts", "--mount", "--ipc", "true"], stderr=subprocess.PIPE)
    return "" if entered.returncode == 0 else "unshare: " + entered.stderr.decode().strip()


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError("waited %d s in vain: %s" % (seconds, what))


class SlurmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(sys.argv[1]).resolve() / str(os.getpid())
        cls.work.mkdir(parents=True)
        cls.addClassCleanup(shutil.rmtree, str(cls.work), True)
        cls.slurm = cls.work / "slurm"
        cls.start_guard()
        # Registered before the start, so that a cluster which comes up by half is taken down too.
        cls.addClassCleanup(subprocess.run, ["bash", str(HERE / "down.sh"), str(cls.slurm)])
        up = subprocess.run(["bash", str(HERE / "up.sh"), str(cls.slurm), "2"], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=120)  # fmt: skip
        if up.returncode != 0:
            raise RuntimeError("the virtual cluster did not start:\n" + up.stdout.decode())
        cls.environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_"))}
        cls.environment.update(KAMERTON_HOME=str(ROOT), KAMERTON_SITE="cluster/local.env")
        cls.environment.pop("OMP_NUM_THREADS", None)
        # The virtual nodes share this machine's cores, which their ranks cannot know: a rank that waits gives its core away.
        cls.environment["OMPI_MCA_mpi_yield_when_idle"] = "1"

    @classmethod
    def start_guard(cls):
        """Takes the cluster down if this process is killed before it can."""
        script = 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; bash "$2" "$3"; rm -rf "$4"'
        guard = subprocess.Popen(["bash", "-c", script, "guard", str(os.getpid()), str(HERE / "down.sh"), str(cls.slurm),
                                  str(cls.work)], start_new_session=True, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        cls.addClassCleanup(guard.wait)
        cls.addClassCleanup(guard.kill)

    def slurm_command(self, *words, **variables):
        done = subprocess.run([str(self.slurm / "enter"), *words], env={**self.environment, **variables},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=str(ROOT), timeout=60)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout.decode())
        return done.stdout.decode()

    def submit(self, *words, **variables):
        return self.slurm_command("sbatch", "--parsable", *words, **variables).strip().split(";")[0]

    def train_arguments(self, name, steps, every=0):
        settings = {"name": name, "output": str(self.work / "runs"), "train.steps": steps, "train.checkpoint.every": every,
                    "telemetry.tensorboard": "false"}  # fmt: skip
        return ["configs/debug/tiny.yaml"] + [w for k, v in settings.items() for w in ("--set", "%s=%s" % (k, v))]

    def submit_run(self, name, steps, **variables):
        log = self.work / (name + ".log")
        return self.submit("--output=%s" % log, "launch/train.sbatch", *self.train_arguments(name, steps), **variables), log

    def job(self, number):
        text = self.slurm_command("scontrol", "-o", "show", "job", number)
        return dict(item.split("=", 1) for item in text.split() if "=" in item)

    def wait_for_end(self, number, log, seconds=240):
        ended = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY")
        job = wait_until(lambda: (lambda j: j if j["JobState"] in ended else None)(self.job(number)), seconds,
                         "job %s: %s\n%s" % (number, self.job(number), self.read(log)))  # fmt: skip
        self.assertEqual(job["JobState"], "COMPLETED", self.read(log))
        return job

    @staticmethod
    def read(path):
        return path.read_text(errors="replace") if path.exists() else ""

    def losses(self, name):
        lines = self.read(self.work / "runs" / name / "metrics.jsonl").splitlines()
        return [(entry["step"], entry["loss"]) for entry in map(json.loads, lines)]

    def weights_digest(self, name):
        """Of the final weights, as `kamerton export` writes them."""
        folder = self.work / ("export-" + name)
        program = os.environ.get("KAMERTON_PROGRAM") or str(ROOT / "build/kamerton")
        subprocess.run([program, "export", "--checkpoint", str(self.work / "runs" / name), "--to", str(folder), "--dtype", "fp32"],
                       check=True, cwd=str(ROOT), stdout=subprocess.DEVNULL)  # fmt: skip
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    def test_a_job_on_two_nodes_has_the_losses_of_an_mpirun_run(self):
        local = subprocess.run([str(ROOT / "launch/kamerton-run"), "--launcher", "mpirun", "-n", str(RANKS), "train",
                                *self.train_arguments("local", SHORT)], cwd=str(ROOT), env=self.environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240)  # fmt: skip
        self.assertEqual(local.returncode, 0, local.stdout.decode())

        number, log = self.submit_run("job", SHORT)
        self.wait_for_end(number, log)

        found = self.losses("job")
        self.assertEqual([step for step, _ in found], list(range(1, SHORT + 1)))
        # Sums over ranks have one order, whether the ranks share a node's memory or not: equal to the last bit.
        self.assertEqual(found, self.losses("local"))
        self.assertIn("n[1-2]", self.read(log))  # both nodes worked

    def test_a_preempted_job_resumes_and_ends_with_the_same_weights(self):
        undisturbed, log = self.submit_run("undisturbed", LONG)
        self.wait_for_end(undisturbed, log)

        number, log = self.submit_run("preempted", LONG, KAMERTON_FAULT=SLOW)
        wait_until(lambda: len(self.losses("preempted")) >= 3, 120, "first steps\n" + self.read(log))
        urgent = self.submit("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        wait_until(lambda: self.job(number)["JobState"] == "PENDING", 120, "requeue\n" + self.read(log))
        steps_before = len(self.losses("preempted"))
        self.assertLess(steps_before, LONG, "the job was done before it could be preempted")
        wait_until(lambda: self.job(urgent)["JobState"] == "COMPLETED", 120, "the urgent job")
        # SLURM lets a requeued job wait for two minutes; an administrator may say: now.
        wait_until(lambda: self.release(number), 60, "the job's release")
        job = self.wait_for_end(number, log)

        self.assertEqual(job["Restarts"], "1")
        self.assertIn("saved; queueing job", self.read(log))
        self.assertEqual([step for step, _ in self.losses("preempted")], list(range(1, LONG + 1)))
        self.assertEqual(self.losses("preempted"), self.losses("undisturbed"))
        self.assertEqual(self.weights_digest("preempted"), self.weights_digest("undisturbed"))

    def release(self, number):
        state = self.job(number)["JobState"]
        if state == "PENDING":
            subprocess.run([str(self.slurm / "enter"), "scontrol", "update", "JobId=" + number, "StartTime=now"],
                           env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        return state in ("RUNNING", "COMPLETED")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    reason = reason_to_skip()
    if reason:
        print("skipped: " + reason)
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
