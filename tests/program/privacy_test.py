# SPDX-License-Identifier: Apache-2.0
"""Privacy of records: the budget holds over runs and restarts, ranks and stages agree, what excludes it is refused."""
import json
import stat

import support

PRIVATE = {"privacy.unit": "record", "privacy.epsilon": 8, "privacy.data_set": "sums", "privacy.clip": 0.5, "privacy.sampling": "passes"}


class RecordPrivacy(support.ProgramTest):
    def private(self, name, ranks=0, resume=False, **more):
        settings = {**PRIVATE, **{key.replace("__", "."): value for key, value in more.items()}}
        arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return self.train(name, *arguments, *(["--resume"] if resume else []), ranks=ranks)

    def ledger(self):
        lines = (self.folder / "privacy" / "local.sums.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines[1:]]

    def losses(self, name):
        return [line["loss"] for line in self.metrics(name)]

    def test_budget_holds_over_runs_and_is_told(self):
        self.assert_success(self.private("first", privacy__noise=1.5))
        spent = self.ledger()
        self.assertGreaterEqual(len(spent), 1)
        self.assertTrue(all(entry["noise"] == 1.5 and entry["sampling"] == 1.0 for entry in spent))
        self.assertLessEqual(spent[-1]["epsilon_after"], 8)
        mode = (self.folder / "privacy" / "noise.key").stat().st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        # The rest of the budget: the noise is found, and then nothing is left.
        self.assert_success(self.private("second"))
        self.assertGreater(self.ledger()[-1]["epsilon_after"], 7.9)
        self.assertLessEqual(self.ledger()[-1]["epsilon_after"], 8)
        before = self.ledger()
        self.assert_refused(self.private("third", privacy__noise=1.5), 77, "exceed", "sums")
        self.assertEqual(self.ledger(), before)
        told = self.run_program("federate", "ledger", "privacy/local.sums.jsonl")
        self.assert_success(told)
        self.assertIn("budget  epsilon 8 at delta 1e-05", told.out)
        damaged = (self.folder / "privacy" / "local.sums.jsonl").read_text().replace('"noise":1.5', '"noise":9.5', 1)
        (self.folder / "damaged.jsonl").write_text(damaged)
        self.assert_refused(self.run_program("federate", "ledger", "damaged.jsonl"), 65, "does not follow")

    def test_ranks_stages_and_resume_agree_and_spend_once(self):
        self.assert_success(self.private("one", privacy__noise=2, data__micro_batch_rows=2))
        reference = self.losses("one")
        entries = len(self.ledger())
        for stage in (1, 3):
            name = f"two-{stage}"
            # Another run has another noise: the same name in another folder of runs repeats this one.
            result = self.private("one", ranks=2, privacy__noise=2, data__micro_batch_rows=2, optim__zero_stage=stage,
                                  output=name, privacy__folder=name)
            self.assert_success(result)
            lines = (self.folder / name / "one" / "metrics.jsonl").read_text().splitlines()
            self.assertEqual(len(lines), len(reference))
            first = json.loads(lines[0])["loss"]  # before any noise
            self.assertAlmostEqual(first, reference[0], delta=1e-5 * reference[0])
        again = self.private("one", resume=True, privacy__noise=2, data__micro_batch_rows=2)
        self.assert_success(again)
        self.assertEqual(len(self.ledger()), entries)

    def test_without_noise_to_speak_of_it_learns(self):
        for sampling in ("passes", "poisson"):
            name = f"tiny-noise-{sampling}"
            self.assert_success(self.private(name, privacy__noise="0.001", privacy__epsilon="1e9", privacy__folder=name,
                                             privacy__sampling=sampling))
            losses = self.losses(name)
            self.assertLess(losses[-1], losses[0])

    def test_poisson_draws_cost_less(self):
        self.assert_success(self.private("drawn", privacy__noise=2, privacy__sampling="poisson"))
        drawn = self.ledger()
        self.assertEqual([entry["what"] for entry in drawn], ["steps 1-8", "steps 9-16", "steps 17-20"])
        self.assertEqual({entry["sampling"] for entry in drawn}, {0.125})
        self.assertEqual(sum(entry["count"] for entry in drawn), 20)
        sizes = {line["targets"] for line in self.metrics("drawn")}
        self.assertGreater(len(sizes), 5)  # steps are of different sizes
        for stage in (1, 3):
            name = f"drawn-{stage}"
            self.assert_success(self.private("drawn", ranks=2, privacy__noise=2, privacy__sampling="poisson",
                                             optim__zero_stage=stage, output=name, privacy__folder=name))
        self.assert_success(self.private("shuffled", privacy__noise=2, privacy__folder="passes"))
        lines = (self.folder / "passes" / "local.sums.jsonl").read_text().splitlines()
        self.assertLess(drawn[-1]["epsilon_after"], json.loads(lines[-1])["epsilon_after"])

    def test_what_excludes_it_is_refused_with_the_reason(self):
        for key, value, word in (("data.packing", "true", "mixes records"),
                                 ("data.group_by_length", "true", "other records"),
                                 ("privacy.data_set", "''", "name of the data set"),
                                 ("data.batch_rows", "100000", "count twice")):
            result = self.private("bad", **{key.replace(".", "__"): value})
            self.assert_refused(result, 64, word)
        result = self.train("bad", "--set", "privacy.unit=record", "--set", "privacy.data_set=sums")
        self.assert_refused(result, 64, "privacy.epsilon")


if __name__ == "__main__":
    support.main()
