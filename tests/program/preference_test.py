# SPDX-License-Identifier: Apache-2.0
"""Tuning on pairs of answers: whole runs of a tiny model."""
import json
import math

import support

WORDS = (("tea", "salt"), ("red", "blue"), ("one", "two"), ("up", "down"), ("cat", "dog"), ("sun", "moon"), ("ash", "oak"), ("in", "out"))
HELD_OUT = (("left", "right"), ("north", "south"))


def pairs(words):
    return "".join(json.dumps({"prompt": f"Say {a} after {b}:", "chosen": f" {b} {a}", "rejected": f" {a} {b} {a}"}) + "\n" for a, b in words)


class Preference(support.ProgramTest):
    def setUp(self):
        super().setUp()
        (self.folder / "pairs.jsonl").write_text(pairs(WORDS))
        (self.folder / "heldout.jsonl").write_text(pairs(HELD_OUT))

    def compare(self, name, *more, **keywords):
        fixed = ["data.train=[pairs.jsonl]", "data.eval=[heldout.jsonl]", "objective.method=dpo", "data.batch_rows=4",
                 "data.micro_batch_rows=1", "train.steps=6", "optim.lr=1e-3", "optim.warmup_steps=0"]
        return self.train(name, *[word for assignment in fixed for word in ("--set", assignment)], *more, **keywords)

    def losses(self, name):
        return [(line["loss"], line["grad_norm"]) for line in self.metrics(name)]

    def test_adapter_learns_to_prefer(self):
        more = ["--set", "tuning.method=lora", "--set", "train.steps=24", "--set", "train.eval_every=12"]
        self.assert_success(self.compare("adapter", *more))
        lines = self.metrics("adapter")
        # Before the first update policy and reference are one model.
        self.assertAlmostEqual(lines[0]["loss"], math.log(2), delta=1e-6)
        self.assertEqual(lines[0]["rewards/margins"], 0)
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])
        self.assertGreater(lines[-1]["rewards/margins"], 0)
        evaluated = [json.loads(line) for line in (self.folder / "runs/adapter/eval.jsonl").read_text().splitlines()]
        self.assertIn("rewards/accuracies", evaluated[-1])
        self.assertTrue((self.folder / "runs/adapter/adapter/adapter_model.safetensors").exists())

    def test_ranks_and_stages_agree(self):
        self.assert_success(self.compare("reference", "--set", "tuning.method=full"))
        want = self.losses("reference")
        for ranks, stage in ((2, 0), (2, 3), (4, 3)):
            name = f"r{ranks}z{stage}"
            self.assert_success(self.compare(name, "--set", "tuning.method=full", "--set", f"optim.zero_stage={stage}", ranks=ranks))
            for (a, _), (b, _) in zip(want, self.losses(name)):
                self.assertAlmostEqual(a, b, delta=1e-5 * max(1, abs(a)), msg=name)

    def test_resume_is_bit_equal(self):
        more = ["--set", "tuning.method=full", "--set", "train.checkpoint.every=3", "--set", "optim.schedule=constant"]
        self.assert_success(self.compare("whole", *more))
        self.assert_success(self.compare("cut", *more, "--set", "train.steps=3"))
        self.assert_success(self.compare("cut", *more, "--resume"))
        self.assertEqual(self.losses("whole")[3:], self.losses("cut")[3:])

    def test_methods_without_reference(self):
        for method, loss in (("orpo", "[]"), ("cpo", "[simpo]")):
            name = f"{method}"
            self.assert_success(self.compare(name, "--set", f"objective.method={method}", "--set", f"objective.loss={loss}",
                                             "--set", "tuning.method=full"))
            self.assertTrue(all(math.isfinite(loss) for loss, _ in self.losses(name)))

    def test_packed_pairs_change_no_loss(self):
        more = ["--set", "data.batch_rows=1", "--set", "data.shuffle=false", "--set", "tuning.method=full", "--set", "train.steps=1"]
        self.assert_success(self.compare("packed", *more, "--set", "data.packing=true"))
        self.assert_success(self.compare("plain", *more, "--set", "data.batch_rows=8"))
        packed, plain = self.metrics("packed")[0], self.metrics("plain")[0]
        if packed["tokens"] == plain["tokens"]:
            self.assertAlmostEqual(packed["loss"], plain["loss"], delta=1e-5)
        self.assertGreater(packed["tokens"], plain["tokens"] / 8)

    def test_refuses_what_does_not_fit(self):
        self.assert_refused(self.compare("typo", "--set", "objective.loss=[sigmoidd]"), 64, "sigmoidd", "sigmoid")
        self.assert_refused(self.compare("smooth", "--set", "objective.label_smoothing=0.1"), 64, "no effect", "cdpo")
        (self.folder / "plain.jsonl").write_text('{"prompt": "a", "completion": " b"}\n')
        self.assert_refused(self.compare("single", "--set", "data.train=[plain.jsonl]"), 64, "compares answers", "objective.method: sft")
        self.assert_refused(self.compare("sft", "--set", "objective.method=sft"), 64, "objective.method: dpo")
        (self.folder / "equal.jsonl").write_text('{"prompt": "a", "chosen": " b", "rejected": " b"}\n')
        self.assert_refused(self.compare("equal", "--set", "data.train=[equal.jsonl]"), 65, "equal.jsonl:1")
        self.assert_refused(self.compare("gone", "--set", "objective.reference=nowhere", ranks=2), 65, "nowhere")
        self.assert_refused(self.compare("gone", "--set", "objective.loss=[sigmod]"), 64, "try sigmoid")
        shape = json.loads((support.SOURCE / "configs/debug/tiny-model/config.json").read_text())
        (self.folder / "small").mkdir()
        (self.folder / "small/config.json").write_text(json.dumps({**shape, "vocab_size": 100}))
        self.assert_refused(self.compare("gone", "--set", "objective.reference=small"), 64, "another vocabulary")


if __name__ == "__main__":
    support.main()
