# SPDX-License-Identifier: Apache-2.0
"""Half Fine-Tuning as a user runs it: bytes as planned, resume after a new draw, export of every weight that changed."""
import json

import support

HALF = ["--set", "tuning.method=half", "--set", "tuning.half.redraw=epoch", "--set", "data.micro_batch_rows=2"]


def losses(metrics):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in metrics]


class HalfTuning(support.ProgramTest):
    def summary(self, name):
        return json.loads((self.folder / "runs" / name / "summary.json").read_text())

    def weights(self, name):
        to = self.folder / f"export-{name}"
        self.assert_success(self.run_program("export", "--checkpoint", f"runs/{name}", "--to", to, "--dtype", "fp32", "--force"))
        return (to / "model.safetensors").read_bytes()

    def test_bytes_are_as_planned_and_about_half(self):
        full = ["--set", "data.micro_batch_rows=2"]
        for stage in (1, 2, 3):
            more = ["--set", f"optim.zero_stage={stage}", "--set", "train.steps=2"]
            self.assert_success(self.train(f"full{stage}", *full, *more, ranks=2))
            self.assert_success(self.train(f"half{stage}", *HALF, *more, ranks=2))
            half, whole = self.summary(f"half{stage}"), self.summary(f"full{stage}")
            for key in ("parameters", "gradients", "optimizer_state", "reduced_per_step"):
                self.assertEqual(half["engine_bytes"][key], half["planned"][key], key)
                self.assertEqual(whole["engine_bytes"][key], whole["planned"][key], key)
            for key in ("optimizer_state", "reduced_per_step"):  # embeddings are trained whole
                self.assertLess(half["engine_bytes"][key], 0.8 * whole["engine_bytes"][key], key)

    def test_a_new_draw_is_made_each_epoch_and_resume_is_bit_equal(self):
        for ranks, stage, state in ((0, 1, "keep"), (2, 3, "restore"), (2, 1, "drop")):
            with self.subTest(ranks=ranks, stage=stage, state=state):
                more = [*HALF, "--set", f"optim.zero_stage={stage}", "--set", f"tuning.half.state={state}"]
                whole = self.train(f"whole{state}", *more, ranks=ranks)
                self.assert_success(whole)
                self.assertIn("draw 1 from step", whole.err)
                cut = self.train(f"cut{state}", *more, ranks=ranks, env={"KAMERTON_FAULT": "kill:rank=0:step=18"})
                self.assertNotEqual(cut.code, 0)
                self.assert_success(self.train(f"cut{state}", *more, "--resume", ranks=ranks))
                self.assertEqual(losses(self.metrics(f"cut{state}")), losses(self.metrics(f"whole{state}")))
                self.assertEqual(self.weights(f"cut{state}"), self.weights(f"whole{state}"))

    def test_stages_and_ranks_agree(self):
        self.assert_success(self.train("one", *HALF))
        for stage in (0, 3):
            name = f"z{stage}"
            self.assert_success(self.train(name, *HALF, "--set", f"optim.zero_stage={stage}", ranks=4))
            for (_, want, _), (_, have, _) in zip(losses(self.metrics("one")), losses(self.metrics(name))):
                self.assertAlmostEqual(have, want, delta=2e-5 * max(1, abs(want)), msg=name)
        self.assertEqual(losses(self.metrics("z0")), losses(self.metrics("z3")))


if __name__ == "__main__":
    support.main()
