# SPDX-License-Identifier: Apache-2.0
"""Round trips with the real peers: what we write opens in transformers and PEFT and gives equal figures.
KAMERTON_PEER_PYTHON names a Python that has transformers and peft; without it these tests skip with that reason."""
import json
import os
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


if __name__ == "__main__":
    support.main()
