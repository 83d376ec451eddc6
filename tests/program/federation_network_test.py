# SPDX-License-Identifier: Apache-2.0
"""A coordinator and its sites as processes with TLS on loopback: the same bits as a simulation, through crashes, and members that
may not speak."""
import os
import pathlib
import signal
import socket
import subprocess
import time
import unittest

import federation_test
import support

SITES = ("a", "b", "c")
POLICY = """runs: [net]
methods: [fedavg, fedadam]
encodings: [f32, ring32]
min_sites: 2
max_rounds: 10
max_bytes: 10000000
require_secure_aggregation: false
"""


class Members(support.ProgramTest):
    """An authority, three members, and processes that are ended with the test."""

    def setUp(self):
        super().setUp()
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        for number, site in enumerate(SITES):
            (self.folder / f"{site}.jsonl").write_text("\n".join(lines[4 * number:4 * number + 4]) + "\n")
        (self.folder / "all.jsonl").write_text("\n".join(lines[:12]) + "\n")
        text = federation_test.RUN.replace("rounds: 3", "rounds: 2\n  cohort: {start_sites: 3, min_sites: 2, deadline_s: 60}")
        (self.folder / "run.yaml").write_text(text + "    - {name: c, train: [c.jsonl]}\n")
        self.processes = []
        self.say("federate", "init", "test", "--authority", "authority")
        for site in SITES:
            self.member(site)

    def tearDown(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        super().tearDown()

    def say(self, *arguments):
        result = self.run_program(*arguments)
        self.assert_success(result)
        return result.out.strip()

    def member(self, site):
        token = self.say("federate", "invite", site, "--authority", "authority")
        self.say("federate", "join", "--identity", site, "--name", site, "--authority", "authority", "--token", token)
        (self.folder / site / "policy.yaml").write_text(POLICY)

    def coordinator(self, *settings, fault="", listen="127.0.0.1:0"):
        port_file = self.folder / "runs/net/coordinator/port"
        port_file.unlink(missing_ok=True)
        sets = [part for setting in settings for part in ("--set", setting)]
        process = self.start_program("federate", "coordinator", "run.yaml", "--authority", "authority", "--listen", listen,
                                     "--linger", 1, "--set", "name=net", *sets, env={"KAMERTON_FEDERATION_FAULT": fault})
        self.processes.append(process)
        self.assertTrue(support.wait_until(lambda: port_file.exists() or process.poll() is not None, 30))
        self.assertIsNone(process.poll(), "" if process.poll() is None else process.stderr.read())
        return process, int(port_file.read_text())

    def site(self, name, port, *settings, fault="", ranks=0, identity=None, host="127.0.0.1", env=None):
        sets = [part for setting in settings for part in ("--set", setting)]
        process = self.start_program("federate", "site", "run.yaml", "--coordinator", f"{host}:{port}", "--identity",
                                     identity or name, "--set", "name=net", "--set", f"data.train=[{name}.jsonl]", "--set",
                                     f"output=at-{name}", "--poll", 0.1, "--give-up", 30, *sets, ranks=ranks,
                                     env={"KAMERTON_FEDERATION_FAULT": fault, **(env or {})})
        self.processes.append(process)
        return process

    def finish(self, process):
        out, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 0, err)
        return err

    def model(self, run="runs/net", round_number=2):
        return federation_test.floats(self.folder / run / f"coordinator/models/round-{round_number:06d}.f32")

    def simulated(self, *settings):
        sets = [part for setting in settings for part in ("--set", setting)]
        self.assert_success(self.run_program("federate", "simulate", "run.yaml", "--set", "name=simulated", *sets))
        return self.model("runs/simulated")


FAKETIME = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@unittest.skipUnless(FAKETIME, "faketime is not installed (Debian package faketime)")
class Clocks(Members):
    def clock(self, offset):
        return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}

    def test_a_clock_that_is_minutes_off_does_no_harm_and_one_that_is_days_off_is_said(self):
        coordinator, port = self.coordinator()
        for offset, words in (("-3d", "is not valid yet"), ("+900d", "has expired")):
            wrong = self.site("a", port, "output=at-wrong", env=self.clock(offset))
            _, err = wrong.communicate(timeout=60)
            self.assertEqual(wrong.returncode, 77, err)
            self.assertIn(words, err)
            self.assertIn("clock", err)
        sites = [self.site(name, port, env=self.clock(offset)) for name, offset in zip(SITES, ("-4m", "+4m", "+0"))]
        for process in (*sites, coordinator):
            self.finish(process)

    def test_a_coordinators_clock_may_jump(self):
        stamp = self.folder / "stamp"
        stamp.write_text("+0")
        before = dict(os.environ)
        os.environ |= {**self.clock("+0"), "FAKETIME_TIMESTAMP_FILE": str(stamp), "FAKETIME_NO_CACHE": "1"}
        os.environ.pop("FAKETIME")
        try:
            coordinator, port = self.coordinator()
        finally:
            os.environ.clear()
            os.environ.update(before)
        sites = [self.site(name, port) for name in SITES[:2]]
        for jump in ("+2h", "-2h", "+1d"):
            stamp.write_text(jump)
            time.sleep(0.5)
        sites.append(self.site(SITES[2], port))
        for process in (*sites, coordinator):
            self.finish(process)


class Network(Members):
    def test_network_equals_simulation_to_the_bit(self):
        want = self.simulated()
        coordinator, port = self.coordinator()
        sites = [self.site(name, port, ranks=2 if name == "b" else 0) for name in SITES]
        for process in sites:
            self.finish(process)
        self.finish(coordinator)
        got = self.model()
        if got != want:  # a site on two ranks sums its gradients in another order
            self.assertLess(federation_test.distance(got, want), 1e-6)
        self.assertTrue((self.folder / "at-a/net/model/model.safetensors").exists())

    def test_each_sides_log_knows_the_ends_of_the_others(self):
        coordinator, port = self.coordinator()
        for process in [*[self.site(name, port) for name in SITES], coordinator]:
            self.finish(process)
        hub = ("runs/net/coordinator/audit.jsonl", "authority/coordinator/member.pem")
        own = ("at-b/net/site/audit.jsonl", "b/member.pem")
        for (log, certificate), (other, others) in ((hub, own), (own, hub)):
            account = self.say("federate", "audit", log, "--certificate", certificate, "--other", other, "--other-certificate", others)
            self.assertRegex(account, r"^[23] ends of this log are recorded")
            self.assertIn("the log is whole", account)
        # cut to its first record with its end: whole by itself, but not what the other side has seen
        path = self.folder / own[0]
        path.write_text(path.read_text().splitlines()[0] + "\n")
        path.with_name("audit.jsonl.head").unlink()
        self.assert_success(self.run_program("federate", "audit", own[0], "--certificate", own[1]))
        found = self.run_program("federate", "audit", own[0], "--certificate", own[1], "--other", hub[0], "--other-certificate", hub[1])
        self.assertEqual(found.code, 65, str(found))
        self.assertIn("was seen elsewhere and is not in the log", found.out)

    def test_killed_processes_come_back_to_the_same_bits(self):
        want = self.simulated()
        points = [("coordinator.accepted:2", None), ("coordinator.written:1", None), ("", "site.encoded:1")]
        if os.environ.get("KAMERTON_ALL_FAULTS"):
            points += [(f"coordinator.{name}:1", None) for name in
                       ("joined", "opened", "receiving", "received", "closed", "combining", "published", "committed", "finished")]
            points += [("", f"site.{name}:1") for name in ("received", "downloaded", "trained", "uploading", "uploaded", "acknowledged")]
        for at_coordinator, at_site in points:
            with self.subTest(coordinator=at_coordinator, site=at_site):
                for run in ("runs/net", "at-a", "at-b", "at-c"):
                    support.shutil.rmtree(self.folder / run, ignore_errors=True)
                coordinator, port = self.coordinator(fault=at_coordinator)
                sites = {name: self.site(name, port, fault=at_site or "" if name == "b" else "") for name in SITES}
                if at_coordinator:
                    coordinator.communicate(timeout=60)
                    self.assertEqual(coordinator.returncode, -signal.SIGKILL)
                    coordinator, _ = self.coordinator(listen=f"127.0.0.1:{port}")
                else:
                    sites["b"].communicate(timeout=60)
                    self.assertNotEqual(sites["b"].returncode, 0)
                    sites["b"] = self.site("b", port)
                for process in (*sites.values(), coordinator):
                    self.finish(process)
                self.assertEqual(self.model(), want)

    def killed_everywhere(self, points, *settings):
        """One run in which site b is killed at each of these points, one after the other, and started again."""
        coordinator, port = self.coordinator(*settings)
        others = [self.site(name, port, *settings) for name in "ac"]
        for point in points:
            process = self.site("b", port, *settings, fault=f"{point}:1")
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, -signal.SIGKILL, f"{point}: {err}")
        for process in (self.site("b", port, *settings), *others, coordinator):
            self.finish(process)
        return self.model()

    def test_a_site_is_killed_at_every_point_of_its_masked_round(self):
        settings = ["federation.update.encoding=ring32", "federation.weights=uniform", "federation.cohort.min_sites=3",
                    "federation.privacy.secure_aggregation=true"]
        program = pathlib.Path(support.PROGRAM).with_name("kamerton-coordinator")
        listed = subprocess.run([program, "--fault-points"], capture_output=True, text=True, check=True).stdout.split()
        points = [point for point in listed if point.startswith("site.") and not point.startswith("site.charg")]
        self.assertGreater(len(points), 10)
        want = self.simulated(*settings)
        self.assertEqual(self.killed_everywhere(points, *settings), want)
        if os.environ.get("KAMERTON_ALL_FAULTS"):
            for run in ("runs/net", "runs/simulated", "at-a", "at-b", "at-c"):
                support.shutil.rmtree(self.folder / run)
            plain = [point for point in points if not point.startswith("site.secure")]
            self.assertEqual(self.killed_everywhere(plain), self.simulated())

    def test_those_who_may_not_speak_are_refused_and_the_run_goes_on(self):
        self.member("d")
        self.say("federate", "revoke", "d", "--authority", "authority", "--reason", "test")
        self.say("federate", "init", "other", "--authority", "foreign")
        token = self.say("federate", "invite", "a", "--authority", "foreign")
        self.say("federate", "join", "--identity", "impostor", "--name", "a", "--authority", "foreign", "--token", token)
        (self.folder / "impostor/policy.yaml").write_text(POLICY)
        (self.folder / "d.jsonl").write_text((self.folder / "a.jsonl").read_text())
        coordinator, port = self.coordinator()
        revoked = self.site("d", port)
        _, err = revoked.communicate(timeout=60)
        self.assertEqual(revoked.returncode, 77, err)
        self.assertIn("revoked", err)
        other = self.site("a", port, "federation.local.steps=2")
        _, err = other.communicate(timeout=60)
        self.assertEqual(other.returncode, 77, err)
        self.assertIn("another run, configuration or base model", err)
        self.folder.joinpath("b/policy.yaml").write_text(POLICY.replace("max_rounds: 10", "max_rounds: 1"))
        strict = self.site("b", port)
        _, err = strict.communicate(timeout=60)
        self.assertEqual(strict.returncode, 77, err)
        self.assertIn("max_rounds", err)
        account = self.run_program("federate", "audit", "at-b/net/site/audit.jsonl", "--certificate", "b/member.pem")
        self.assert_success(account)
        self.assertIn("refusal", account.out)
        self.assertIn("max_rounds", account.out)
        self.folder.joinpath("b/policy.yaml").write_text(POLICY)
        impostor = self.start_program("federate", "site", "run.yaml", "--coordinator", f"127.0.0.1:{port}", "--identity", "impostor",
                                      "--set", "name=net", "--set", "data.train=[a.jsonl]", "--set", "output=at-x", "--give-up", 2)
        self.processes.append(impostor)
        _, err = impostor.communicate(timeout=60)
        self.assertEqual(impostor.returncode, 76, err)
        sites = [self.site(name, port) for name in SITES]
        for process in (*sites, coordinator):
            self.finish(process)

    def test_a_site_that_is_started_twice_does_not_stop_the_run(self):
        coordinator, port = self.coordinator()
        sites = [self.site(name, port) for name in SITES]
        twin = self.site("b", port, "output=at-twin", identity="c")  # other data, another folder, the same certificate
        same = self.site("c", port)  # the same folder
        self.finish(coordinator)
        self.finish(sites[0])
        self.finish(sites[1])
        ends = []
        for process in (sites[2], twin, same):
            _, err = process.communicate(timeout=60)
            ends.append(process.returncode)
            self.assertIn(process.returncode, (0, 73, 77), err)
        self.assertEqual(ends.count(73), 1, "one of two processes in one folder is told so")
        self.assertTrue(self.model())

    def test_a_coordinator_that_cannot_serve_says_why(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for more, code, words in (
                (["--listen", "127.0.0.1:99999"], 64, "up to 65535"), (["--listen", "somewhere"], 64, "ADDRESS:PORT"),
                (["--listen", f"127.0.0.1:{port}"], 73, "in use"), (["--listen", "127.0.0.1:0", "--identity", "a"], 77, "not a coordinator's"),
                (["--listen", "127.0.0.1:0", "--identity", "nowhere"], 64, "nowhere"),
            ):
                with self.subTest(more=more):
                    result = self.run_program("federate", "coordinator", "run.yaml", "--authority", "authority", "--set", "name=net", *more, timeout=30)
                    self.assert_refused(result, code, words)
                    self.assertEqual(len(result.err.splitlines()), 1, result.err)
        for command in (["invite", "x"], ["status"]):
            self.assert_refused(self.run_program("federate", *command, "--authority", "nowhere"), 65, "federate init")

    def test_the_coordinator_needs_neither_libtorch_nor_mpi(self):
        program = pathlib.Path(support.PROGRAM).with_name("kamerton-coordinator")
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        # Names alone: an address may well hold the letters "c10".
        needed = [line.split()[0].rsplit("/", 1)[-1] for line in listing.splitlines() if line.strip()]
        self.assertIn("libgrpc++", " ".join(needed))
        for name in ("libtorch", "libc10", "libmpi", "libopen-rte"):
            self.assertFalse([library for library in needed if library.startswith(name)])


if __name__ == "__main__":
    support.main()
