# SPDX-License-Identifier: Apache-2.0
"""Whole runs of a tiny model: files, resume, signals, ranks and stages."""
import json
import pathlib
import signal

import support

KEYS = {"step", "loss", "grad_norm", "lr", "tokens", "tokens_per_s", "peak_rss_bytes"}


def losses(metrics):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in metrics]


class Training(support.ProgramTest):
    def weights(self, name):
        """The exported model's bytes."""
        to = self.folder / f"export-{name}"
        self.assert_success(self.run_program("export", "--checkpoint", f"runs/{name}", "--to", to, "--dtype", "fp32", "--force"))
        return (to / "model.safetensors").read_bytes()

    def test_run_leaves_what_is_promised(self):
        result = self.train("one")
        self.assert_success(result)
        run = self.folder / "runs" / "one"
        metrics = self.metrics("one")
        self.assertEqual([line["step"] for line in metrics], list(range(1, 21)))
        self.assertTrue(KEYS <= set(metrics[0]), metrics[0])
        self.assertLess(metrics[-1]["loss"], metrics[0]["loss"])
        self.assertTrue((run / "config.yaml").exists())
        self.assertEqual((run / "checkpoints" / "LATEST").read_text().strip(), "step-000020")
        self.assertTrue(list((run / "tensorboard").glob("events.out.tfevents.*")))
        self.assertEqual(result.out, "")

    def test_same_seed_same_bits(self):
        self.assert_success(self.train("a"))
        self.assert_success(self.train("b"))
        self.assertEqual(losses(self.metrics("a")), losses(self.metrics("b")))
        self.assertEqual(self.weights("a"), self.weights("b"))

    def test_stages_and_ranks_agree(self):
        self.assert_success(self.train("reference"))
        reference = losses(self.metrics("reference"))
        for ranks in (2, 4):
            by_stage = []
            for stage in (0, 1, 2, 3):
                name = f"r{ranks}z{stage}"
                self.assert_success(self.train(name, "--set", f"optim.zero_stage={stage}", "--set", "data.micro_batch_rows=2", ranks=ranks))
                got = losses(self.metrics(name))
                for (_, want, _), (_, have, _) in zip(reference, got):
                    self.assertAlmostEqual(have, want, delta=1e-5 * max(1, abs(want)), msg=name)
                by_stage.append(got)
            if ranks == 4:  # one micro-batch a step: the reduction order is the same in every stage
                self.assertEqual(len({json.dumps(one) for one in by_stage}), 1)

    def test_activation_checkpointing_changes_no_bit(self):
        self.assert_success(self.train("kept"))
        self.assert_success(self.train("recomputed", "--set", "model.activation_checkpointing=block"))
        self.assertEqual(losses(self.metrics("kept")), losses(self.metrics("recomputed")))

    def test_packing_changes_no_loss_of_equal_rows(self):
        more = ["--set", "data.batch_rows=2", "--set", "train.steps=3"]
        self.assert_success(self.train("packed", "--set", "data.packing=true", *more))
        first = self.metrics("packed")[0]
        self.assertGreater(first["tokens"], 2 * 60)

    def test_resume_is_bit_equal(self):
        for ranks, stage in ((0, 1), (2, 3)):
            with self.subTest(ranks=ranks, stage=stage):
                common = ["--set", f"optim.zero_stage={stage}"]
                self.assert_success(self.train(f"whole{ranks}", *common, ranks=ranks))
                halves = self.train(f"halves{ranks}", *common, ranks=ranks, env={"KAMERTON_FAULT": "kill:rank=0:step=13"})
                self.assertNotEqual(halves.code, 0)
                self.assert_success(self.train(f"halves{ranks}", *common, "--resume", ranks=ranks))
                self.assertEqual(losses(self.metrics(f"halves{ranks}")), losses(self.metrics(f"whole{ranks}")))
                self.assertEqual(self.weights(f"halves{ranks}"), self.weights(f"whole{ranks}"))

    def test_resume_on_another_world_size_and_stage(self):
        self.assert_success(self.train("whole", ranks=2))
        self.assertNotEqual(self.train("moved", ranks=2, env={"KAMERTON_FAULT": "kill:rank=1:step=12"}).code, 0)
        self.assert_success(self.train("moved", "--resume", "--set", "optim.zero_stage=3", ranks=4))
        for (_, want, _), (_, have, _) in zip(losses(self.metrics("whole")), losses(self.metrics("moved"))):
            self.assertAlmostEqual(have, want, delta=2e-5)

    def test_signal_saves_and_asks_for_a_requeue(self):
        for number in (signal.SIGUSR1, signal.SIGTERM):
            name = f"signal{int(number)}"
            process = self.start_program("train", "configs/debug/tiny.yaml", "--set", f"name={name}", "--set", "train.steps=100000", "--set", "train.checkpoint.every=0")
            metrics = self.folder / "runs" / name / "metrics.jsonl"
            self.assertTrue(support.wait_until(lambda: metrics.exists() and metrics.stat().st_size > 500))
            # A handler on this thread would have its frame written into the heap where oneDNN's products keep their stack.
            status = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/status").read_text()
            self.assertTrue(int(status.split("SigBlk:")[1].split()[0], 16) >> (int(number) - 1) & 1)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75, err)
            steps = len(self.metrics(name))
            latest = (self.folder / "runs" / name / "checkpoints" / "LATEST").read_text().strip()
            self.assertEqual(latest, f"step-{steps:06d}")

    def test_lora_run_leaves_an_adapter(self):
        lora = ["--set", "tuning.method=lora", "--set", "tuning.lora.r=4"]
        for ranks, stage in ((0, 0), (2, 3)):
            name = f"lora{stage}"
            self.assert_success(self.train(name, *lora, "--set", f"optim.zero_stage={stage}", ranks=ranks))
            adapter = self.folder / "runs" / name / "adapter"
            config = json.loads((adapter / "adapter_config.json").read_text())
            self.assertEqual((config["peft_type"], config["r"]), ("LORA", 4))
            self.assertGreater((adapter / "adapter_model.safetensors").stat().st_size, 10000)
            exported = self.folder / f"exported{stage}"
            self.assert_success(self.run_program("export", "--checkpoint", f"runs/{name}", "--to", exported))
            self.assertEqual((exported / "adapter_model.safetensors").read_bytes(), (adapter / "adapter_model.safetensors").read_bytes())

    def test_accumulation_equals_one_large_batch(self):
        self.assert_success(self.train("split"))
        self.assert_success(self.train("large", "--set", "data.micro_batch_rows=8"))
        for (_, want, _), (_, have, _) in zip(losses(self.metrics("split")), losses(self.metrics("large"))):
            self.assertAlmostEqual(have, want, delta=1e-5 * max(1, abs(want)))

    def test_evaluation_during_the_run_is_recorded(self):
        self.assert_success(self.train("watched", "--set", "data.eval=[configs/debug/sums.jsonl]", "--set", "train.eval_every=10",
                                       "--set", "data.verify=off"))  # its own training data: a leak on purpose
        lines = [json.loads(line) for line in (self.folder / "runs/watched/eval.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines], [10, 20])
        self.assertLess(lines[1]["loss"], lines[0]["loss"])

    def test_checkpoint_can_be_looked_at_and_verified(self):
        self.assert_success(self.train("seen"))
        result = self.run_program("inspect", "runs/seen", "--verify", "--tensors")
        self.assert_success(result)
        self.assertIn("exp_avg_sq.model.layers.0.mlp.up_proj.weight", result.out)
        self.assertIn("as they were written", result.out)


if __name__ == "__main__":
    support.main()
