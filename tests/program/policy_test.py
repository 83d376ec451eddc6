# SPDX-License-Identifier: Apache-2.0
"""Judged answers, reward models, generated answers and teachers: whole runs of a tiny model."""
import json
import os
import stat
import subprocess
import textwrap

import support

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")

SCORES = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="eager").eval()
assert model.config.num_labels == 1
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rows = [json.loads(line) for line in open(sys.argv[2])]
ids = [tokenizer(row["prompt"] + row[answer] + tokenizer.eos_token)["input_ids"] for answer in ("chosen", "rejected") for row in rows]
longest = max(map(len, ids))
batch = torch.tensor([row + [model.config.pad_token_id] * (longest - len(row)) for row in ids])
mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
with torch.no_grad():
    scores = model(input_ids=batch, attention_mask=mask).logits.squeeze(-1)
better, worse = scores.chunk(2)
print(json.dumps({"margin": (better - worse).mean().item(), "mean_reward": scores.mean().item()}))
"""

WORDS = ("tea", "salt", "red", "blue", "one", "two", "up", "down")


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


class PolicyTest(support.ProgramTest):
    def setUp(self):
        super().setUp()
        (self.folder / "prompts.jsonl").write_text(lines({"prompt": f"Say {word}:", "answer": word} for word in WORDS))
        (self.folder / "judged.jsonl").write_text(
            lines({"prompt": f"Say {word}:", "completion": f" {word}" if i % 3 else " no", "label": i % 3 > 0} for i, word in enumerate(WORDS)))
        (self.folder / "pairs.jsonl").write_text(
            lines({"prompt": f"Say {word}:", "chosen": f" {word}", "rejected": f" not {word}", "margin": i % 2} for i, word in enumerate(WORDS)))

    def assign(self, *assignments):
        return [word for assignment in assignments for word in ("--set", assignment)]

    def go(self, name, *assignments, ranks=0, more=(), **keywords):
        fixed = ("data.verify=off", "data.batch_rows=4", "train.steps=4", "optim.lr=1e-3", "optim.warmup_steps=0", "optim.schedule=constant")
        return self.train(name, *self.assign(*fixed, *assignments), *more, ranks=ranks, **keywords)

    def losses(self, name):
        return [(line["loss"], line["grad_norm"]) for line in self.metrics(name)]

    def assert_same_trajectory(self, want, got, delta=2e-5):
        self.assertEqual(len(self.losses(want)), len(self.losses(got)))
        for (a, _), (b, _) in zip(self.losses(want), self.losses(got)):
            self.assertAlmostEqual(a, b, delta=delta * max(1, abs(a)), msg=got)

    def check_invariance(self, *assignments, sizes=((2, 3), (4, 0))):
        """1, 2, 4 ranks and ZeRO 0 and 3: one trajectory; and a resumed run's bits are those of one that was not cut."""
        self.assert_success(self.go("whole", *assignments))
        for ranks, stage in sizes:
            name = f"r{ranks}z{stage}"
            self.assert_success(self.go(name, *assignments, f"optim.zero_stage={stage}", ranks=ranks))
            self.assert_same_trajectory("whole", name)
        self.assert_success(self.go("cut", *assignments, "train.steps=2"))
        self.assert_success(self.go("cut", *assignments, more=["--resume"]))
        self.assertEqual(self.losses("whole")[2:], self.losses("cut")[2:])


class Judged(PolicyTest):
    KTO = ("objective.method=kto", "data.train=[judged.jsonl]")

    def test_ranks_stages_and_resume_agree(self):
        self.check_invariance(*self.KTO)
        first = self.metrics("whole")[0]
        self.assertAlmostEqual(first["loss"], 0.5, delta=1e-6)  # policy and reference are one model
        self.assertEqual(first["kl"], 0)
        self.assertGreater(self.metrics("whole")[-1]["rewards/margins"], 0)

    def test_stored_reference_numbers_give_the_same_run(self):
        more = (*self.KTO, "data.eval=[judged.jsonl]")
        self.assert_success(self.go("live", *more))
        self.assert_success(self.go("stored", *more, "objective.precompute_reference=true", ranks=2))
        self.assert_same_trajectory("live", "stored")
        folders = sorted((self.folder / "stores").glob("reference-*"))
        self.assertEqual(len(folders), 1)  # training and held-out data are the same here
        part = folders[0] / "part-00000.h5"
        before = (part.stat().st_mtime_ns, part.read_bytes())
        self.assert_success(self.go("again", *more, "objective.precompute_reference=true"))
        self.assertEqual((part.stat().st_mtime_ns, part.read_bytes()), before)
        self.assert_same_trajectory("live", "again")
        (folders[0] / "part-00000.json").unlink()  # as if the computation had been killed
        self.assert_success(self.go("mended", *more, "objective.precompute_reference=true"))
        self.assertEqual(part.read_bytes(), before[1])
        key = folders[0] / "key.json"
        key.write_text(key.read_text().replace("judged", "pair"))
        self.assert_refused(self.go("stale", *more, "objective.precompute_reference=true"), 65, "stale", "key.json")

    def test_pairs_use_stored_numbers_and_weights(self):
        dpo = ("objective.method=dpo", "objective.weighting=true", "data.train=[pairs.jsonl]", "tuning.method=lora")
        self.assert_success(self.go("live", *dpo))
        self.assert_success(self.go("stored", *dpo, "objective.precompute_reference=true", "optim.zero_stage=3", ranks=2))
        self.assert_same_trajectory("live", "stored")

    def test_refuses_what_does_not_fit(self):
        self.assert_refused(self.go("pairs", "objective.method=kto", "data.train=[pairs.jsonl]"), 64, "judged", "objective.method: dpo")
        (self.folder / "single.jsonl").write_text('{"prompt": "a", "completion": " b", "label": true}\n')
        self.assert_refused(self.go("single", "objective.method=kto", "data.train=[single.jsonl]"), 65, "another example")
        self.assert_refused(self.go("wpo", *self.KTO, "objective.weighting=true"), 64, "WPO", "method kto")
        self.assert_refused(self.go("sft", "data.train=[prompts.jsonl]"), 64, "no answers", "grpo")


class Scores(PolicyTest):
    def test_reward_model_learns_and_judges(self):
        reward = ("objective.method=reward", "data.train=[pairs.jsonl]", "data.eval=[pairs.jsonl]")
        self.check_invariance(*reward, sizes=((2, 3),))
        self.assert_success(self.go("longer", *reward, "train.steps=30", "objective.center_rewards=0.01"))
        self.assertGreater(self.metrics("longer")[-1]["accuracy"], 0.9)
        model = self.folder / "runs/longer/model"
        self.assertEqual(json.loads((model / "config.json").read_text())["architectures"], ["LlamaForSequenceClassification"])
        grpo = ("objective.method=grpo", "data.train=[prompts.jsonl]", "objective.rollout.samples=2", "objective.rollout.max_new_tokens=6",
                "objective.rewards=[{kind: model, model: runs/longer/model}]")
        self.assert_success(self.go("judged", *grpo))
        self.assert_success(self.go("judged3", *grpo, "optim.zero_stage=3", ranks=2))
        self.assert_same_trajectory("judged", "judged3")
        self.assert_refused(self.run_program("generate", "--model", "runs/longer/model", "--prompt", "Say"), 64, "score")
        (self.folder / "text.jsonl").write_text(lines([{"text": "Say tea."}]))
        self.assert_refused(self.run_program("eval", "--model", "runs/longer/model", "--data", "text.jsonl"), 64, "score")

    def test_transformers_gives_equal_scores(self):
        if not PEER:
            self.skipTest("KAMERTON_PEER_PYTHON is not set (a Python with transformers)")
        for method in ("full", "lora"):
            self.assert_success(self.go(method, "objective.method=reward", "data.train=[pairs.jsonl]", "data.eval=[pairs.jsonl]",
                                        f"tuning.method={method}", "train.steps=8"))
            done = subprocess.run([PEER, "-c", SCORES, f"runs/{method}/model", "pairs.jsonl"], cwd=self.folder, capture_output=True, text=True, timeout=280)
            self.assertEqual(done.returncode, 0, done.stderr)
            theirs = json.loads(done.stdout.splitlines()[-1])
            ours = json.loads((self.folder / f"runs/{method}/eval.jsonl").read_text().splitlines()[-1])
            for figure, value in theirs.items():
                self.assertAlmostEqual(ours[figure], value, delta=1e-4, msg=f"{method} {figure}")

    def test_process_reward_model_learns_steps(self):
        rows = [{"prompt": f"Add {a} and 1.", "completions": [f"{a} and 1", f"is {a + 1 + a % 2}"], "labels": [True, a % 2 == 0]} for a in range(8)]
        (self.folder / "steps.jsonl").write_text(lines(rows))
        steps = ("objective.method=process_reward", "data.train=[steps.jsonl]", "data.eval=[steps.jsonl]")
        self.check_invariance(*steps, sizes=((2, 3),))
        self.assertEqual(self.metrics("whole")[0]["targets"], 8)  # two steps in each of four answers
        self.assertTrue((self.folder / "runs/whole/model/model.safetensors").exists())
        self.assert_refused(self.go("pairs", "objective.method=process_reward", "data.train=[pairs.jsonl]"), 64, "judged by steps")
        self.assert_refused(self.go("plain", "data.train=[steps.jsonl]"), 64, "process_reward")

    def test_adapter_gives_a_whole_model(self):
        self.assert_success(self.go("lora", "objective.method=reward", "data.train=[pairs.jsonl]", "tuning.method=lora"))
        self.assertTrue((self.folder / "runs/lora/model/model.safetensors").exists())


class Generated(PolicyTest):
    GRPO = ("objective.method=grpo", "data.train=[prompts.jsonl]", "objective.rollout.samples=4", "objective.rollout.max_new_tokens=8",
            'objective.rewards=[{kind: match, pattern: "[0-9]"}]')

    def test_ranks_stages_and_resume_agree_for_grpo(self):
        self.check_invariance(*self.GRPO, "objective.rollout.epochs=2", "objective.policy.kl_coef=0.04", "objective.policy.kl_target=0.01",
                              "data.eval=[prompts.jsonl]")
        evaluated = [json.loads(line) for line in (self.folder / "runs/whole/eval.jsonl").read_text().splitlines()]
        self.assertIn("reward", evaluated[-1])

    def test_ranks_stages_and_resume_agree_for_ppo(self):
        self.check_invariance(*self.GRPO, "objective.method=ppo", "objective.rollout.samples=1", "objective.rollout.epochs=2",
                              "objective.rollout.mini_batches=2", "objective.policy.kl_coef=0.05", sizes=((2, 3),))
        self.assertIn("value_loss", self.metrics("whole")[-1])
        self.assert_success(self.run_program("export", "--checkpoint", "runs/whole", "--to", "models/ppo"))
        self.assert_success(self.run_program("generate", "--model", "models/ppo", "--prompt", "Say", "--max-new-tokens", "3"))

    def test_adapters_learn_from_their_answers(self):
        lora = (*self.GRPO, "tuning.method=lora", "objective.policy.kl_coef=0.04", "train.steps=3")
        self.assert_success(self.go("one", *lora))
        self.assert_success(self.go("two", *lora, "optim.zero_stage=3", ranks=2))
        self.assert_same_trajectory("one", "two")

    def test_reward_rises(self):
        for method, more in (("grpo", ()), ("grpo", ("objective.policy.advantages=rloo",)),
                             ("ppo", ("objective.rollout.epochs=2", "optim.lr=3e-3"))):
            name = f"{method}{len(more)}"
            self.assert_success(self.go(name, *self.GRPO, f"objective.method={method}", "data.batch_rows=8", "train.steps=20", "optim.lr=3e-3", *more))
            rewards = [line["reward"] for line in self.metrics(name)]
            self.assertGreater(sum(rewards[-5:]) / 5, sum(rewards[:5]) / 5 + 0.15, f"{name} {rewards}")

    def program(self, name, text):
        path = self.folder / name
        path.write_text("#!/usr/bin/env python3\nimport json, sys, time\n" + textwrap.dedent(text))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return f"objective.rewards=[{{kind: program, command: [./{name}], timeout_s: 5}}]"

    def test_program_judges(self):
        good = self.program("good.py", """
            for line in sys.stdin:
                answer = json.loads(line)
                print(json.dumps({"id": answer["id"], "reward": len(answer["completion"]) / 10}), flush=True)
            """)
        self.assert_success(self.go("program", *self.GRPO[:-1], good, ranks=2))
        self.assertGreater(self.metrics("program")[0]["reward"], 0)

    def test_program_that_fails_is_one_clear_error(self):
        cases = (("dies", "sys.stdin.readline()\nsys.exit(3)\n", 74, "exit code 3"),
                 ("babbles", "print('hello', flush=True)\ntime.sleep(9)\n", 65, "something else than a reward"),
                 ("nan", "print(json.dumps({'id': json.loads(sys.stdin.readline())['id'], 'reward': float('nan')}), flush=True)\ntime.sleep(9)\n",
                  65, "something else than a reward"),
                 ("silent", "time.sleep(60)\n", 74, "did not answer in time"))
        for name, text, code, words in cases:
            reward = self.program(name + ".py", text).replace("timeout_s: 5", "timeout_s: 1")
            self.assert_refused(self.go(name, *self.GRPO[:-1], reward, ranks=2 if name == "dies" else 0), code, words, name + ".py")
        missing = "objective.rewards=[{kind: program, command: [./nowhere.py]}]"
        self.assert_refused(self.go("missing", *self.GRPO[:-1], missing), 64, "cannot be started", "nowhere.py")

    def test_refuses_what_does_not_fit(self):
        self.assert_refused(self.go("none", *self.GRPO[:-1]), 64, "judges the answers", "objective.rewards")
        self.assert_refused(self.go("one", *self.GRPO, "objective.rollout.samples=1"), 64, "samples", "ppo")
        self.assert_refused(self.go("packed", *self.GRPO, "data.packing=true"), 64, "data.packing")
        self.assert_refused(self.go("target", *self.GRPO, "objective.policy.kl_target=0.1"), 64, "kl_target", "kl_coef")
        self.assert_refused(self.go("pattern", *self.GRPO[:-1], 'objective.rewards=[{kind: match, pattern: "["}]'), 64, "pattern")
        (self.folder / "bad.json").write_text('{"type": 3}')
        self.assert_refused(self.go("schema", *self.GRPO[:-1], "objective.rewards=[{kind: json_schema, schema: bad.json}]"), 64, "bad.json")


class Distilled(PolicyTest):
    def setUp(self):
        super().setUp()
        self.assert_success(self.go("teacher", "train.steps=12"))
        self.assert_success(self.run_program("export", "--checkpoint", "runs/teacher", "--to", "models/teacher", "--dtype", "fp32"))
        self.distill = ("objective.method=distill", "objective.distill.teacher=models/teacher")

    def test_ranks_stages_and_resume_agree(self):
        self.check_invariance(*self.distill, "objective.distill.beta=0.5", sizes=((2, 3),))
        divergences = [line["divergence"] for line in self.metrics("whole")]
        self.assertGreater(divergences[0], divergences[-1])

    def test_stored_numbers_of_the_teacher_give_the_same_run(self):
        few = (*self.distill, "objective.distill.top_k=16")
        self.assert_success(self.go("live", *few))
        self.assert_success(self.go("stored", *few, "objective.distill.precompute=true", ranks=2))
        self.assert_same_trajectory("live", "stored")
        self.assert_success(self.go("again", *few, "objective.distill.precompute=true"))
        self.assert_same_trajectory("live", "again")

    def test_refuses_another_tokenizer(self):
        if not (support.SHARED / "models/stories260K").exists():
            self.skipTest("reference models are absent")
        self.assert_refused(self.go("other", "objective.method=distill", f"objective.distill.teacher={support.SHARED}/models/stories260K"),
                            64, "different tokenizers")


if __name__ == "__main__":
    support.main()
