# SPDX-License-Identifier: Apache-2.0
"""Privacy in federated runs: of records and of whole sites; charged once, before anything leaves, through crashes; budgets hold."""
import json
import math
import signal

import federation_network_test
import federation_test
import support

RECORDS = ["privacy.unit=record", "privacy.data_set=sums", "privacy.noise=1.2", "privacy.epsilon=500", "privacy.clip=0.5"]
SITES = ["federation.update.encoding=ring32", "federation.cohort.size=3", "federation.privacy.site_clip=0.5",
         "federation.privacy.site_noise=0.7", "federation.privacy.site_epsilon=500"]
COMMON = ["federation.weights=uniform", "federation.local.steps=2"]


def gaussian_epsilon(sigma, delta):
    """Of one Gaussian release (arXiv 1805.06530), by bisection."""
    def tail(x):
        return 0.5 * math.erfc(x / math.sqrt(2))

    def excess(epsilon):
        return tail(epsilon * sigma - 0.5 / sigma) - math.exp(epsilon) * tail(epsilon * sigma + 0.5 / sigma)
    low, high = 0.0, 600.0 / max(sigma, 1)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > delta else (low, middle)
    return high


def entries(folder, site, data_set):
    lines = (folder / f"{site}.{data_set}.jsonl").read_text().splitlines()[1:]
    return [json.loads(line) for line in lines]


def told(run):
    return [json.loads(line) for line in (run / "coordinator/rounds.jsonl").read_text().splitlines()]


class Simulated(federation_test.Simulations):
    """Three sites of eight records."""

    def setUp(self):
        super().setUp()
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        for number, site in enumerate("abc"):
            (self.folder / f"{site}.jsonl").write_text("\n".join(lines[8 * number:8 * number + 8]) + "\n")
        with (self.folder / "run.yaml").open("a") as file:
            file.write("    - {name: c, train: [c.jsonl]}\n")

    def test_rounds_cost_what_the_same_steps_of_train_cost(self):
        run = self.done("net", *COMMON, *RECORDS)
        spent = entries(self.folder / "privacy", "a", "sums")
        self.assertEqual([(entry["count"], entry["sampling"], entry["noise"]) for entry in spent], 3 * [(2, 0.5, 1.2)])
        alone = [part for setting in RECORDS for part in ("--set", setting)]
        self.assert_success(self.run_program("train", "run.yaml", "--set", "name=alone", "--set", "data.train=[a.jsonl]", "--set",
                                             "train.steps=6", "--set", "privacy.folder=alone", *alone))
        want = entries(self.folder / "alone", "local", "sums")[-1]["epsilon_after"]
        self.assertAlmostEqual(spent[-1]["epsilon_after"], want, delta=1e-9 * want)
        self.assertEqual([line["record_epsilon"] for line in told(run)], [entry["epsilon_after"] for entry in spent])
        for line in (run / "coordinator/journal").read_text().splitlines():
            if '"accept"' in line:  # nothing that would tell of records exactly
                self.assertRegex(line, r'"targets":0,"examples":0,"train_loss":0')

    def test_sites_cost_one_gaussian_a_round(self):
        run = self.done("net", *COMMON, *SITES, "federation.cohort.min_sites=2")
        spent = [entry["epsilon_after"] for entry in entries(self.folder / "privacy", "b", "whole-site")]
        for count in range(3):
            composed = 0.7 / math.sqrt(count + 1)
            self.assertAlmostEqual(told(run)[count]["site_epsilon"], gaussian_epsilon(composed, 1e-5), delta=1e-6)
            # what leaves the site without masks carries its own share of the noise alone
            self.assertAlmostEqual(spent[count], gaussian_epsilon(composed / math.sqrt(2), 1e-5), delta=1e-6)
        masked = self.done("masked", *COMMON, *SITES, "federation.cohort.min_sites=3", "federation.privacy.secure_aggregation=true",
                           "privacy.folder=masked-privacy")
        spent = [entry["epsilon_after"] for entry in entries(self.folder / "masked-privacy", "b", "whole-site")]
        for own, line in zip(spent, told(masked), strict=True):
            self.assertAlmostEqual(own, line["site_epsilon"], delta=1e-9)

    def test_killed_around_the_charge_it_spends_once_and_repeats_its_noise(self):
        settings = [*COMMON, *RECORDS, *SITES, "federation.rounds=2", "federation.cohort.min_sites=3",
                    "federation.privacy.secure_aggregation=true"]
        run = self.done("net", *settings)
        want = self.state(run, 2)
        spent = {site: [entries(self.folder / "privacy", site, name) for name in ("sums", "whole-site")] for site in "abc"}
        self.assertTrue(all(len(ledger) == 2 for site in "abc" for ledger in spent[site]))
        for point in ("site.charging:4", "site.charged:2", "site.charged:7", "site.trained:4"):
            support.shutil.rmtree(run)
            killed = self.simulate("net", *settings, env={"KAMERTON_FEDERATION_FAULT": point})
            self.assertNotEqual(killed.code, 0, point)
            self.done("net", *settings, resume=True)
            self.assertEqual(self.state(run, 2), want, point)
        again = {site: [entries(self.folder / "privacy", site, name) for name in ("sums", "whole-site")] for site in "abc"}
        self.assertEqual(again, spent, "the same releases again cost nothing")

    def test_another_result_has_other_noise_and_its_own_price(self):
        settings = [*COMMON, *RECORDS, "federation.rounds=1"]
        killed = self.simulate("net", *settings, env={"KAMERTON_FEDERATION_FAULT": "site.encoded:1"})
        self.assertNotEqual(killed.code, 0)
        before = self.delta(self.folder / "runs/net", "a")
        lines = (self.folder / "a.jsonl").read_text().splitlines()
        (self.folder / "a.jsonl").write_text("\n".join([*lines[:7], lines[0]]) + "\n")
        support.shutil.rmtree(self.folder / "runs/net/sites/a/state")
        run = self.done("net", *settings, resume=True)
        spent = entries(self.folder / "privacy", "a", "sums")
        self.assertEqual(len(spent), 2)
        self.assertNotEqual(spent[0]["run"], spent[1]["run"])
        # noise of deviation 0.2 * 1.2 * 0.5 / 4 a step: with the same noise only one record's gradient would differ
        apart = [x - y for x, y in zip(before, self.delta(run, "a"))]
        self.assertGreater(math.sqrt(sum(x * x for x in apart) / len(apart)), 0.02)

    def test_a_site_whose_budget_ends_leaves_and_the_run_goes_on(self):
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        for site in "bc":  # more records: each takes part less often
            (self.folder / f"{site}.jsonl").write_text("\n".join(lines[:32]) + "\n")
        self.done("probe", *COMMON, *RECORDS, "privacy.folder=probe")
        a = [entry["epsilon_after"] for entry in entries(self.folder / "probe", "a", "sums")]
        b = [entry["epsilon_after"] for entry in entries(self.folder / "probe", "b", "sums")]
        self.assertLess(b[2], a[1])
        budget = f"privacy.epsilon={(a[1] + a[2]) / 2}"
        result = self.simulate("net", *COMMON, *RECORDS, budget, "federation.cohort.min_sites=2")
        self.assert_success(result)
        self.assertIn("a leaves the run's rounds", result.err)
        self.assertIn("the budget will end before the run does", result.err)
        self.assertEqual(len(entries(self.folder / "privacy", "a", "sums")), 2)
        self.assertEqual(len(entries(self.folder / "privacy", "b", "sums")), 3)
        rounds = told(self.folder / "runs/net")
        self.assertEqual([(line["sites"], line.get("left")) for line in rounds], [(3, None), (3, None), (2, ["a"])])
        self.assertTrue((self.folder / "runs/net/model/model.safetensors").exists())
        # whole sites, masked: with three of three needed nobody can go on alone
        result = self.simulate("whole", *COMMON, *SITES, "federation.cohort.min_sites=3", "federation.privacy.secure_aggregation=true",
                               f"federation.privacy.site_epsilon={gaussian_epsilon(0.7 / math.sqrt(1.5), 1e-5)}")
        self.assert_success(result)
        self.assertIn("too few sites are left", result.err)
        self.assertEqual(len(entries(self.folder / "privacy", "a", "whole-site")), 1)

    def test_with_next_to_no_noise_it_is_the_update_of_train(self):
        quiet = [*RECORDS, "privacy.noise=1e-4", "privacy.epsilon=1e9", "data.batch_rows=8", "federation.sites=[{name: a, train: [a.jsonl]}]",
                 "federation.weights=uniform"]
        one = self.delta(self.done("one", *quiet, "federation.rounds=1", "privacy.folder=p1"), "a")
        two = self.delta(self.done("two", *quiet, "federation.rounds=1", "federation.local.steps=2", "privacy.folder=p2"), "a")
        near = self.delta(self.done("prox", *quiet, "federation.rounds=1", "federation.local.steps=2", "privacy.folder=p3",
                                    "federation.method=fedprox", "federation.local.proximal_mu=0.5"), "a")
        want = [y2 - 0.2 * 0.5 * y1 for y1, y2 in zip(one, two)]
        self.assertLess(federation_test.distance(near, want), 3e-5)
        self.assertGreater(federation_test.distance(near, two), 1e-4)
        alone = [part for setting in quiet for part in ("--set", setting)]
        self.assert_success(self.run_program("train", "run.yaml", *alone, "--set", "name=alone", "--set", "data.train=[a.jsonl]",
                                             "--set", "train.steps=2", "--set", "privacy.folder=p4"))
        self.assert_success(self.run_program("export", "--checkpoint", "runs/alone", "--to", "alone", "--dtype", "fp32"))
        trained = federation_test.weights(self.folder / "alone/model.safetensors")
        got = federation_test.weights(self.folder / "runs/two/model/model.safetensors")
        for name, values in trained.items():
            self.assertLess(federation_test.distance(got[name], values), 3e-5, name)

    def test_what_would_tell_is_refused(self):
        self.assert_refused(self.simulate("x", *RECORDS), 64, "weights")
        self.assert_refused(self.simulate("x", *COMMON, *RECORDS, "privacy.sampling=passes"), 64, "passes")
        self.assert_refused(self.simulate("x", *COMMON, *SITES, "federation.eval_every=1"), 64, "eval_every")


class Networked(federation_network_test.Members):
    def setUp(self):
        super().setUp()
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        for number, site in enumerate("abc"):
            (self.folder / f"{site}.jsonl").write_text("\n".join(lines[8 * number:8 * number + 8]) + "\n")

    def finished(self, *settings, fault=""):
        for run in ("runs/net", "at-a", "at-b", "at-c"):
            support.shutil.rmtree(self.folder / run, ignore_errors=True)
        coordinator, port = self.coordinator(*settings)
        sites = {name: self.site(name, port, *settings, fault=fault if name == "b" else "") for name in "abc"}
        if fault:
            sites["b"].communicate(timeout=60)
            self.assertEqual(sites["b"].returncode, -signal.SIGKILL, fault)
            sites["b"] = self.site("b", port, *settings)
        texts = {name: self.finish(process) for name, process in sites.items()}
        self.finish(coordinator)
        return texts

    def test_masked_noisy_rounds_survive_kills_and_the_audit_tells_what_was_spent(self):
        settings = [*COMMON, *RECORDS, *SITES, "federation.cohort.min_sites=3", "federation.privacy.secure_aggregation=true"]
        self.finished(*settings)
        want = self.model()
        spent = entries(self.folder / "privacy", "b", "sums") + entries(self.folder / "privacy", "b", "whole-site")
        self.assertEqual(len(spent), 4)
        for fault in ("site.charging:3", "site.charged:2", "site.uploaded:2"):
            self.finished(*settings, fault=fault)
            self.assertEqual(self.model(), want, fault)
            self.assertEqual(entries(self.folder / "privacy", "b", "sums") + entries(self.folder / "privacy", "b", "whole-site"), spent)
        account = self.say("federate", "audit", "at-b/net/site/audit.jsonl", "--certificate", "b/member.pem")
        self.assertIn(f"privacy spent of sums (record): epsilon {spent[1]['epsilon_after']:.4f}", account)
        self.assertIn(f"privacy spent of whole-site (site): epsilon {spent[3]['epsilon_after']:.4f}", account)
        account = self.say("federate", "audit", "runs/net/coordinator/audit.jsonl", "--certificate", "authority/coordinator/member.pem")
        self.assertIn(f"privacy spent: epsilon {spent[3]['epsilon_after']:.4f}", account)

    def test_the_policys_budget_ends_a_sites_part_in_the_run(self):
        settings = [*COMMON, *RECORDS]
        self.finished(*settings)
        spent = [entry["epsilon_after"] for entry in entries(self.folder / "privacy", "b", "sums")]
        support.shutil.rmtree(self.folder / "privacy")
        with (self.folder / "b/policy.yaml").open("a") as file:
            file.write(f"max_record_epsilon: {(spent[0] + spent[1]) / 2}\n")
        texts = self.finished(*settings)
        self.assertIn("leaves the run's rounds", texts["b"])
        self.assertIn("the run is over: finished", texts["b"])
        self.assertTrue((self.folder / "at-b/net/model/model.safetensors").exists(), "the result is for it, too")
        self.assertEqual(len(entries(self.folder / "privacy", "b", "sums")), 1)
        self.assertEqual(told(self.folder / "runs/net")[1].get("left"), ["b"])
        with (self.folder / "c/policy.yaml").open("a") as file:
            file.write("max_site_epsilon: 3\n")
        coordinator, port = self.coordinator(*settings)
        strict = self.site("c", port, *settings)
        _, err = strict.communicate(timeout=60)
        self.assertEqual(strict.returncode, 77, err)
        self.assertIn("max_site_epsilon", err)


if __name__ == "__main__":
    support.main()
