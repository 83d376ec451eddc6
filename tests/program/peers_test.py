# SPDX-License-Identifier: Apache-2.0
"""Round trips with the real peers: what we write opens in transformers and PEFT and gives equal figures.
KAMERTON_PEER_PYTHON names a Python that has transformers and peft; without it these tests skip with that reason."""
import json
import os
import shutil
import subprocess
import unittest

import support

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")

LOSS = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model_dir, adapter, data = sys.argv[1:4]
model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
if adapter:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, adapter)
model.eval()
tokenizer = AutoTokenizer.from_pretrained(model_dir)
total, count = 0.0, 0
with torch.no_grad():
    for line in open(data):
        ids = tokenizer(json.loads(line)["text"])["input_ids"]
        if ids[-1] != tokenizer.eos_token_id:
            ids.append(tokenizer.eos_token_id)
        ids = torch.tensor([ids])
        logits = model(ids).logits[0, :-1].double()
        total -= torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum().item()
        count += ids.shape[1] - 1
prompt = tokenizer("Once upon a time", return_tensors="pt").input_ids
text = tokenizer.decode(model.generate(input_ids=prompt, max_new_tokens=24, do_sample=False)[0, prompt.shape[1]:], skip_special_tokens=True)
print(json.dumps({"loss": total / count, "targets": count, "text": text}))
"""


@unittest.skipUnless(PEER, "KAMERTON_PEER_PYTHON is not set (a Python with transformers and peft)")
class Peers(support.ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = support.SHARED / "models" / "stories260K"
        if not self.model.exists():
            self.skipTest("reference data is absent: models/stories260K (set KAMERTON_SHARED)")
        rows = [{"text": f"Once upon a time, there was a cat named Tom{i}. He liked to run in the park with Anna."} for i in range(24)]
        (self.folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def tune(self, name, *more):
        self.assert_success(self.train(name, "--set", f"model.path={self.model}", "--set", "model.random_init=false", "--set", "data.train=[text.jsonl]",
                                       "--set", "train.steps=6", "--set", "optim.lr=1e-3", *more))

    def ours(self, *where):
        self.assert_success(self.run_program("eval", *where, "--data", "text.jsonl", "--json", "ours.json", "--dtype", "fp32"))
        return json.loads((self.folder / "ours.json").read_text())

    def theirs(self, model, adapter=""):
        done = subprocess.run([PEER, "-c", LOSS, str(model), str(adapter), "text.jsonl"], cwd=self.folder, capture_output=True, text=True, timeout=280)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def assert_equal_figures(self, ours, theirs):
        self.assertEqual(ours["targets"], theirs["targets"])
        self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=1e-4)

    def test_our_adapter_in_peft(self):
        self.tune("lora", "--set", "tuning.method=lora", "--set", "tuning.lora.r=4")
        adapter = self.folder / "runs/lora/adapter"
        theirs = self.theirs(self.model, adapter)
        self.assert_equal_figures(self.ours("--model", self.model, "--adapter", adapter), theirs)
        text = self.run_program("generate", "--model", self.model, "--adapter", adapter, "--prompt", "Once upon a time", "-n", "24", "--dtype", "fp32")
        self.assertEqual(text.out.strip(), theirs["text"].strip())

    def test_our_exported_model_in_transformers(self):
        self.tune("full", "--set", "tuning.method=full")
        self.assert_success(self.run_program("export", "--checkpoint", "runs/full", "--to", "out", "--dtype", "fp32"))
        self.assert_equal_figures(self.ours("--model", "out"), self.theirs("out"))

    def test_our_merged_model_in_transformers(self):
        self.tune("merged", "--set", "tuning.method=lora", "--set", "tuning.lora.r=4")
        self.assert_success(self.run_program("export", "--checkpoint", "runs/merged", "--to", "out", "--merge", "--dtype", "fp32"))
        merged = self.theirs("out")
        self.assert_equal_figures(self.ours("--checkpoint", "runs/merged"), merged)
        self.assertAlmostEqual(merged["loss"], self.theirs(self.model, self.folder / "runs/merged/adapter")["loss"], delta=1e-4)


MAKE = """
import pathlib, sys, torch, transformers as t
common = dict(vocab_size=512, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None)
long = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + 0.1 * i for i in range(6)], "long_factor": [1.0 + i for i in range(6)]}
configs = {
    "gemma2": t.Gemma2Config(**common, head_dim=16, sliding_window=16, query_pre_attn_scalar=24, attn_logit_softcapping=2.0, final_logit_softcapping=5.0),
    "gemma3": t.Gemma3TextConfig(**common, head_dim=16, sliding_window=16, query_pre_attn_scalar=24,
                                 layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "phi3": t.Phi3Config(**common, original_max_position_embeddings=32, rope_parameters=long),
    "gpt2": t.GPT2Config(vocab_size=512, n_embd=48, n_layer=3, n_head=4, n_positions=512, bos_token_id=1, eos_token_id=2),
    "gpt_neox": t.GPTNeoXConfig(**{k: v for k, v in common.items() if not k.startswith("num_") or k == "num_hidden_layers"}, num_attention_heads=3),
    "olmo2": t.Olmo2Config(**common, attention_bias=True),
    "granite": t.GraniteConfig(**common, embedding_multiplier=3.0, residual_multiplier=0.22, attention_multiplier=0.3, logits_scaling=2.0,
                               mlp_bias=True, tie_word_embeddings=True),
}
for name, config in configs.items():
    model = t.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, p in model.named_parameters():
            norm = p.dim() == 1 and key.endswith("weight") and "gemma" not in name
            p.copy_(torch.randn(p.shape, generator=generator) * (0.15 if p.dim() > 1 else 0.1) + (1.0 if norm else 0.0))
    model.save_pretrained(pathlib.Path(sys.argv[1]) / name)
"""

LOSSES = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
data, *jobs = sys.argv[1:]
for job in jobs:
    folder, _, adapter = job.partition("+")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    with torch.no_grad():
        for line in open(data):
            ids = tokenizer(json.loads(line)["text"])["input_ids"]
            ids = torch.tensor([ids + [tokenizer.eos_token_id] * (ids[-1] != tokenizer.eos_token_id)])
            logits = model(ids).logits[0, :-1].double()
            total -= torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
    print(json.dumps({"job": job, "loss": total / count, "targets": count}))
"""


@unittest.skipUnless(PEER, "KAMERTON_PEER_PYTHON is not set (a Python with transformers and peft)")
class Families(support.ProgramTest):
    """Models of every family as transformers writes them: in, trained, out, and adapters in PEFT."""
    NAMES = ("gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "olmo2", "granite")

    def setUp(self):
        super().setUp()
        tokenizer = support.SHARED / "models" / "stories260K"
        if not tokenizer.exists():
            self.skipTest("reference data is absent: models/stories260K (set KAMERTON_SHARED)")
        self.peer(MAKE, ".")
        for name in self.NAMES:
            for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                shutil.copy(tokenizer / file, self.folder / name / file)
        rows = [{"text": f"Once upon a time, there was a cat named Tom{i}. He liked to run in the park with Anna."} for i in range(6)]
        (self.folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def peer(self, code, *arguments):
        done = subprocess.run([PEER, "-c", code, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def ours(self, *where):
        self.assert_success(self.run_program("eval", *where, "--data", "text.jsonl", "--json", "ours.json", "--dtype", "fp32"))
        return json.loads((self.folder / "ours.json").read_text())

    def tune(self, run, name, *more):
        self.assert_success(self.train(run, "--set", f"model.path={name}", "--set", "model.random_init=false", "--set", "data.train=[text.jsonl]",
                                       "--set", "train.steps=3", "--set", "optim.lr=1e-3", *more))

    def test_every_family_goes_in_and_out(self):
        figures = {}
        for name in self.NAMES:
            figures[name] = self.ours("--model", name)
            self.tune(f"full-{name}", name, "--set", "tuning.method=full")
            self.assert_success(self.run_program("export", "--checkpoint", f"runs/full-{name}", "--to", f"out-{name}", "--dtype", "fp32"))
            figures[f"out-{name}"] = self.ours("--model", f"out-{name}")
            self.assertNotAlmostEqual(figures[name]["loss"], figures[f"out-{name}"]["loss"], delta=1e-3)
        for theirs in self.peer(LOSSES, "text.jsonl", *figures):
            with self.subTest(model=theirs["job"]):
                self.assertEqual(figures[theirs["job"]]["targets"], theirs["targets"])
                self.assertAlmostEqual(figures[theirs["job"]]["loss"], theirs["loss"], delta=5e-5)

    def test_adapters_of_every_family_in_peft(self):
        figures = {}
        for name in self.NAMES:
            self.tune(f"lora-{name}", name, "--set", "tuning.method=lora", "--set", "tuning.lora.r=4", "--set", "tuning.lora.targets=[all-linear]",
                      "--set", "optim.lr=1e-2")
            adapter = f"runs/lora-{name}/adapter"
            figures[f"{name}+{adapter}"] = self.ours("--model", name, "--adapter", adapter)
        for theirs in self.peer(LOSSES, "text.jsonl", *figures):
            with self.subTest(model=theirs["job"]):
                self.assertAlmostEqual(figures[theirs["job"]]["loss"], theirs["loss"], delta=5e-5)


if __name__ == "__main__":
    support.main()
