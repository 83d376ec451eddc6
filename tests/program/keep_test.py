# SPDX-License-Identifier: Apache-2.0
"""Against forgetting, as a user runs it: replay, L2, EWC, watched sets with gates, tasks; averages of weights."""
import json

import support


def losses(metrics):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in metrics]


def weights_planned(out):
    """Of the table of `plan`, for each ZeRO stage: bytes of the model and of the models beside it."""
    lines = out.splitlines()
    header = next(line for line in lines if line.startswith("stage")).split()[1:]
    rows = [dict(zip(header, line.split()[-len(header):])) for line in lines if line[:1].isdigit()]
    return [int(row["parameters"]) + int(row["others"]) for row in rows]


def write_words(path, count, word):
    """A task of its own: the answer repeats a word."""
    with open(path, "w") as file:
        for i in range(count):
            file.write(json.dumps({"prompt": f"say {word} {i % 7}", "completion": f" {word} {word} {i % 7}"}) + "\n")


class Keep(support.ProgramTest):
    def setUp(self):
        super().setUp()
        for word in ("red", "blue", "green"):
            write_words(self.folder / f"{word}.jsonl", 24, word)

    def run_with(self, name, config, *more, **keywords):
        """A run of the tiny model with sections of YAML added."""
        text = (support.SOURCE / "configs/debug/tiny.yaml").read_text()
        path = self.folder / f"{name}.yaml"
        path.write_text(text.replace("steps: 20", "steps: 12").replace("every: 5", "every: 4") + config)
        return self.train(name, "--set", "data.micro_batch_rows=2", *more, config=str(path), **keywords)

    def evals(self, name):
        return [json.loads(line) for line in (self.folder / "runs" / name / "eval.jsonl").read_text().splitlines()]

    def tensors(self, name, *more):
        to = self.folder / f"export-{name}{len(more)}"
        self.assert_success(self.run_program("export", "--checkpoint", f"runs/{name}", "--to", to, "--dtype", "fp32", "--force", *more))
        adapter = to / "adapter_model.safetensors"
        return (adapter if adapter.exists() else to / "model.safetensors").read_bytes()

    def assert_resumes(self, name, config, ranks=0, more=()):
        whole = self.run_with(f"{name}-whole", config, *more, ranks=ranks)
        self.assert_success(whole)
        cut = self.run_with(f"{name}-cut", config, *more, ranks=ranks, env={"KAMERTON_FAULT": "kill:rank=0:step=10"})
        self.assertNotEqual(cut.code, 0)
        self.assert_success(self.run_with(f"{name}-cut", config, *more, "--resume", ranks=ranks))
        self.assertEqual(losses(self.metrics(f"{name}-cut")), losses(self.metrics(f"{name}-whole")))
        self.assertEqual(self.tensors(f"{name}-cut"), self.tensors(f"{name}-whole"))

    def test_watched_sets_show_gain_and_loss(self):
        result = self.run_with("seen", "  eval_every: 4\nwatch:\n  - {name: red, files: [red.jsonl]}\n  - {name: blue, files: [blue.jsonl]}\n")
        self.assert_success(result)
        self.assertIn("watch: red has loss", result.err)
        lines = self.evals("seen")
        self.assertEqual([line["step"] for line in lines], [4, 8, 12])
        first = float(result.err.split("watch: red has loss ")[1].split()[0])
        for line in lines:
            self.assertAlmostEqual(line["watch/red/loss"] - first, line["watch/red/change"], delta=1e-3)
            self.assertNotIn("loss", line)

    def test_a_gate_stops_or_rolls_back_to_the_best_evaluation(self):
        gate = ("  eval_every: 2\nwatch:\n  - name: red\n    files: [red.jsonl]\n    stop_if: {loss_increase: %s, action: %s}\n")
        # A learning rate that soon spoils everything: the watched loss falls first and rises later.
        spoil = ["--set", "optim.lr=0.3", "--set", "optim.warmup_steps=6", "--set", "optim.max_grad_norm=0"]
        stop = self.run_with("stop", gate % (0.05, "stop"), *spoil)
        self.assert_success(stop)
        self.assertIn("more than stop_if.loss_increase", stop.err)
        last = self.metrics("stop")[-1]["step"]
        self.assertLess(last, 12)
        self.assertGreater(self.evals("stop")[-1]["watch/red/change"], 0.05)
        for ranks, stage in ((0, 1), (2, 3)):
            name = f"back{ranks}"
            back = self.run_with(name, gate % (0.05, "rollback"), *spoil, "--set", f"optim.zero_stage={stage}", ranks=ranks)
            self.assert_success(back)
            best = [line["step"] for line in self.evals(name) if line["watch/red/change"] <= 0.05][-1]
            self.assertIn(f"rolled back to step {best}", back.err)
            latest = (self.folder / "runs" / name / "checkpoints" / "LATEST").read_text().strip()
            self.assertEqual(latest, f"step-{best:06d}")
            plain = self.run_with(f"plain{ranks}", "", *spoil, "--set", f"optim.zero_stage={stage}", "--set", "train.checkpoint.keep=0",
                                  "--set", "train.checkpoint.every=2", ranks=ranks)
            self.assert_success(plain)
            to = self.folder / f"at-best{ranks}"
            self.assert_success(self.run_program("export", "--checkpoint", f"runs/plain{ranks}/checkpoints/step-{best:06d}", "--to", to, "--dtype", "fp32"))
            self.assertEqual(self.tensors(name), (to / "model.safetensors").read_bytes())

    def test_replay_keeps_what_would_be_forgotten(self):
        more = ["--set", "train.steps=40", "--set", "data.train=[blue.jsonl]"]
        watch = "  eval_every: 0\nwatch:\n  - {name: red, files: [red.jsonl]}\n"
        forgets = self.run_with("alone", watch, *more)
        self.assert_success(forgets)
        for choose in ("random", "similar"):
            keep = f"keep:\n  replay: {{files: [red.jsonl], ratio: 0.3, choose: {choose}}}\n"
            result = self.run_with(f"replay-{choose}", watch + keep, *more)
            self.assert_success(result)
            self.assertLess(self.evals(f"replay-{choose}")[-1]["watch/red/loss"], self.evals("alone")[-1]["watch/red/loss"] - 0.02)

    def test_divergence_from_the_start_model_on_replayed_records_falls_and_resumes(self):
        keep = "keep:\n  replay: {files: [red.jsonl], ratio: 0.4, kl: %s}\n"
        shown = {}
        for name, weight in (("little", "1.0e-6"), ("much", "5")):
            self.assert_success(self.run_with(name, keep % weight, "--set", "data.train=[blue.jsonl]"))
            shown[name] = self.metrics(name)[-1]["replay_kl"]
        self.assertLess(shown["much"], 0.5 * shown["little"])
        for stage in (1, 3):
            self.assert_resumes(f"kl{stage}", keep % "0.5" , ranks=2, more=["--set", f"optim.zero_stage={stage}"])
        ones, threes = (losses(self.metrics(f"kl{stage}-whole")) for stage in (1, 3))
        for (_, *want), (_, *have) in zip(ones, threes):  # the head is used twice: its sums have another order at stage 3
            for a, b in zip(want, have):
                self.assertAlmostEqual(a, b, delta=1e-6 * abs(a))

    def test_divergence_beside_an_adapter_needs_no_second_model(self):
        keep = "keep:\n  replay: {files: [red.jsonl], ratio: 0.4, kl: 0.5}\n"
        lora = ["--set", "tuning.method=lora", "--set", "optim.lr=0.02"]
        # A copy of the start model is held where an adapter is trained further: one that has not moved yet.
        self.assert_success(self.run_with("unmoved", "", *lora, "--set", "train.steps=1", "--set", "optim.lr=0"))
        two = [*lora, "--set", "tuning.adapter=runs/unmoved/adapter"]
        for ranks, stage in ((0, 1), (2, 3)):
            more = ["--set", f"optim.zero_stage={stage}"]
            beside = self.run_with(f"beside{ranks}", keep, *two, *more, ranks=ranks)
            self.assert_success(beside)
            self.assertIn("copy of the start model", beside.err)
            self.assert_resumes(f"off{ranks}", keep, ranks=ranks, more=[*lora, *more])
            whole, expected = self.metrics(f"off{ranks}-whole"), self.metrics(f"beside{ranks}")
            self.assertEqual(losses(whole), losses(expected))
            self.assertEqual([line["replay_kl"] for line in whole], [line["replay_kl"] for line in expected])
            self.assertGreater(whole[-1]["replay_kl"], 0)
        shape = json.loads((support.SOURCE / "configs/debug/tiny-model/config.json").read_text())
        shape.update(hidden_size=512, intermediate_size=1024, num_hidden_layers=6, head_dim=512 // shape["num_attention_heads"])
        (self.folder / "wider").mkdir()
        (self.folder / "wider/config.json").write_text(json.dumps(shape))
        plans = {}
        for name, what in (("off", lora), ("two", [*lora, "--set", "tuning.lora.init=pissa"])):
            for kl in (0, 0.5):
                result = self.run_program("plan", self.folder / "beside0.yaml", "--set", "model.path=wider", *what, "--set", f"keep.replay.kl={kl}")
                self.assert_success(result)
                plans[name, kl] = weights_planned(result.out)
        self.assertEqual(plans["off", 0], plans["off", 0.5])
        self.assertEqual([b >= 1.9 * a > 0 for a, b in zip(plans["two", 0], plans["two", 0.5])], [True] * 4)

    def test_l2_and_ewc_hold_weights_near_the_start_and_resume_bit_equal(self):
        far = self.run_with("free", "")
        self.assert_success(far)
        for name, keep in (("l2", "keep: {l2: 0.5}\n"), ("ewc", "keep:\n  ewc: {strength: 50, files: [red.jsonl], examples: 16}\n")):
            self.assert_resumes(name, keep, ranks=2)
            metrics = self.metrics(f"{name}-whole")
            self.assertEqual(metrics[0]["keep_penalty"], 0)
            self.assertGreater(metrics[-1]["keep_penalty"], 0)
            self.assertGreater(metrics[-1]["loss"], self.metrics("free")[-1]["loss"])

    def test_importance_is_the_same_at_every_stage_and_on_every_number_of_ranks(self):
        keep = "keep:\n  ewc: {strength: 50, files: [red.jsonl], examples: 16}\n"
        self.assert_success(self.run_with("one", keep))
        reference = [line["keep_penalty"] for line in self.metrics("one")]
        for ranks, stage in ((2, 0), (2, 3), (4, 1)):
            name = f"r{ranks}z{stage}"
            self.assert_success(self.run_with(name, keep, "--set", f"optim.zero_stage={stage}", ranks=ranks))
            for want, line in zip(reference, self.metrics(name)):
                self.assertAlmostEqual(line["keep_penalty"], want, delta=1e-3 * max(want, 1e-4), msg=name)

    def test_tasks_follow_each_other_and_report_backward_transfer(self):
        tasks = "tasks:\n" + "".join(f"  - {{name: {word}, train: [{word}.jsonl], eval: [{word}.jsonl], steps: 8}}\n" for word in ("red", "blue", "green"))
        more = ["--set", "data.train=[]", "--set", "data.verify=off"]
        for extra in ([], ["--set", "tuning.method=half", "--set", "tuning.half.redraw=task"]):
            tag = f"{len(extra)}"
            whole = self.run_with(f"seq{tag}", tasks, *more, *extra, ranks=2)
            self.assert_success(whole)
            table = json.loads((self.folder / "runs" / f"seq{tag}" / "tasks.json").read_text())
            self.assertEqual(table["tasks"], ["red", "blue", "green"])
            matrix = table["loss"]
            self.assertEqual((len(matrix), len(matrix[0])), (4, 3))
            for task in range(3):
                self.assertLess(matrix[task + 1][task], matrix[task][task])
            want = sum(matrix[t + 1][t] - matrix[3][t] for t in range(2)) / 2
            self.assertAlmostEqual(table["backward_transfer"]["loss"], want, places=9)
            self.assertIn("backward transfer", whole.err)
            cut = self.run_with(f"cut{tag}", tasks, *more, *extra, ranks=2, env={"KAMERTON_FAULT": "kill:rank=1:step=7"})
            self.assertNotEqual(cut.code, 0)
            self.assert_success(self.run_with(f"cut{tag}", tasks, *more, *extra, "--resume", ranks=2))
            again = json.loads((self.folder / "runs" / f"cut{tag}" / "tasks.json").read_text())
            self.assertEqual(again["loss"], matrix)
            self.assertEqual(self.tensors(f"cut{tag}/3-green"), self.tensors(f"seq{tag}/3-green"))

    def test_a_damaged_table_of_tasks_is_one_clear_error(self):
        tasks = "tasks:\n  - {name: red, train: [red.jsonl], eval: [red.jsonl], steps: 2}\n"
        more = ["--set", "data.train=[]", "--set", "data.verify=off"]
        self.assert_success(self.run_with("seq", tasks, *more))
        table = self.folder / "runs" / "seq" / "tasks.json"
        good = json.loads(table.read_text())
        for bad in ("", "[]", "{}", json.dumps({**good, "loss": [["x"], [1]]}), json.dumps({**good, "loss": [[1], [2], [3]]}),
                    json.dumps({**good, "token_accuracy": [[1]]}), json.dumps({**good, "loss": 3}), "{"):
            table.write_text(bad)
            for ranks in (0, 2) if bad == "{}" else (0,):
                result = self.run_with("seq", tasks, *more, "--resume", ranks=ranks)
                if bad == "":
                    self.assert_success(result)  # as if it had been removed
                else:
                    self.assert_refused(result, 65, "tasks.json")

    def test_noise_on_embeddings_and_ratios_of_learning_rates_resume_and_do_not_depend_on_ranks(self):
        plain = self.run_with("plain", "")
        self.assert_success(plain)
        for name, more in (("neftune", ["--set", "tuning.neftune_noise_alpha=5"]),
                           ("loraplus", ["--set", "tuning.method=lora", "--set", "tuning.lora.loraplus_lr_ratio=8"]),
                           ("apollo", ["--set", "optim.algorithm=apollo", "--set", "optim.apollo_rank=4", "--set", "tuning.method=full"])):
            self.assert_success(self.run_with(name, "", *more))
            whole = losses(self.metrics(name))
            self.assertNotEqual(whole, losses(self.metrics("plain")))
            self.assert_success(self.run_with(f"{name}2", "", *more, "--set", "optim.zero_stage=3", ranks=2))
            for (_, want, _), (_, have, _) in zip(whole, losses(self.metrics(f"{name}2"))):
                self.assertAlmostEqual(have, want, delta=3e-5 * max(1, abs(want)), msg=name)
            cut = self.run_with(f"{name}-cut", "", *more, env={"KAMERTON_FAULT": "kill:rank=0:step=10"})
            self.assertNotEqual(cut.code, 0)
            self.assert_success(self.run_with(f"{name}-cut", "", *more, "--resume"))
            self.assertEqual(losses(self.metrics(f"{name}-cut")), whole)

    def test_average_of_weights_is_saved_and_exported(self):
        self.assert_resumes("ema", "", ranks=2)
        more = ["--set", "optim.ema_decay=0.9"]
        self.assert_success(self.run_with("average", "", *more, ranks=2))
        weights, average = self.tensors("average"), self.tensors("average", "--ema")
        self.assertEqual(len(weights), len(average))
        self.assertNotEqual(weights, average)
        self.assertEqual(losses(self.metrics("average")), losses(self.metrics("ema-whole")))
        refused = self.run_program("export", "--checkpoint", "runs/ema-whole", "--to", "x", "--ema")
        self.assert_refused(refused, 65, "ema")

    def test_what_does_not_go_together_is_named(self):
        for extra, words in (
            (["--set", "tuning.method=half", "--set", "tuning.half.redraw=epoch", "--set", "keep.l2=1"], ("keep.l2", "tuning.half.redraw")),
            (["--set", "tuning.method=lora", "--set", "keep.ewc.strength=1", "--set", "keep.ewc.files=[red.jsonl]"], ("keep.ewc", "adapter")),
            (["--set", "tuning.method=half", "--set", "tuning.half.redraw=task"], ("tuning.half.redraw", "tasks")),
            (["--set", "keep.ewc.strength=1"], ("keep.ewc", "data")),
            (["--set", "keep.replay.choose=similar"], ("keep.replay",)),
            (["--set", "keep.replay.kl=1"], ("keep.replay.kl", "keep.replay.files")),
            (["--set", "tuning.method=full", "--set", "tuning.lora.loraplus_lr_ratio=4"], ("loraplus_lr_ratio",)),
            (["--set", "watch.0.name=a b", "--set", "watch.0.files=[red.jsonl]"], ("watched set",)),
            (["--set", "optim.groups.0.match=nothing"], ("nothing", "names are such as")),
        ):
            self.assert_refused(self.run_with("refused", "", *extra), 64, *words)
            self.assertFalse((self.folder / "runs" / "refused").exists())


if __name__ == "__main__":
    support.main()
