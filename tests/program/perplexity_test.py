# SPDX-License-Identifier: Apache-2.0
"""Perplexity of SmolLM2-135M-Instruct on an English text, equal to transformers', from GGUF and from the safetensors we write.
Slow. KAMERTON_PEER_PYTHON names a Python with transformers and gguf; the model is where launch/quickstart puts it. Without them
these tests skip with that reason. KAMERTON_PERPLEXITY_ROWS: pieces of the text to use (0: all of it)."""
import json
import math
import os
import subprocess
import unittest

import support

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")
TEXT = support.SHARED / "data/corpus/wiki_demo.txt"
FOLDER = support.SOURCE / "models/SmolLM2-135M-Instruct"
GGUF = support.SOURCE / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = int(os.environ.get("KAMERTON_PERPLEXITY_ROWS", "12"))
PIECE = 2000  # characters a row

# argv: folder of the tokenizer, folder or GGUF of the weights, rows.
LOSS = """
import json, pathlib, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokens, weights, data = sys.argv[1:4]
path = pathlib.Path(weights)
where = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name) if path.suffix == ".gguf" else dict(pretrained_model_name_or_path=path)
model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(tokens)
total, count = 0.0, 0
with torch.no_grad():
    for line in open(data):
        ids = tokenizer(json.loads(line)["text"])["input_ids"] + [tokenizer.eos_token_id]
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
        total -= torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[1:, None]).sum().item()
        count += len(ids) - 1
print(json.dumps({"loss": total / count, "targets": count}))
"""


@unittest.skipUnless(PEER, "KAMERTON_PEER_PYTHON is not set (a Python with transformers and gguf)")
@unittest.skipUnless(TEXT.exists(), "reference data is absent: data/corpus/wiki_demo.txt (set KAMERTON_SHARED)")
class Perplexity(support.ProgramTest):
    def setUp(self):
        super().setUp()
        text = TEXT.read_text()
        pieces = [text[i : i + PIECE].strip() for i in range(0, len(text), PIECE)]
        rows = [piece for piece in pieces if piece][: ROWS or None]
        (self.folder / "text.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))

    def ours(self, folder):
        self.assert_success(self.run_program("eval", "--model", folder, "--data", "text.jsonl", "--json", "ours.json", "--dtype", "fp32", "--rows", "2", timeout=3600))
        return json.loads((self.folder / "ours.json").read_text())

    def theirs(self, tokens, weights):
        done = subprocess.run([PEER, "-c", LOSS, str(tokens), str(weights), "text.jsonl"], cwd=self.folder, capture_output=True, text=True, timeout=3600)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def assert_equal_perplexity(self, ours, theirs):
        self.assertEqual(ours["targets"], theirs["targets"])
        mine, reference = math.exp(ours["loss"]), math.exp(theirs["loss"])
        print(f"perplexity {mine:.6f}, transformers {reference:.6f}, {ours['targets']} tokens")
        self.assertLess(abs(mine - reference) / reference, 1e-4)

    def test_from_gguf(self):
        if not GGUF.exists():
            self.skipTest("the GGUF file is absent (launch/quickstart fetches it)")
        self.assert_success(self.run_program("import", "--from", GGUF, "--to", "imported", "--dtype", "fp32"))
        self.assert_equal_perplexity(self.ours("imported"), self.theirs("imported", GGUF))

    def test_from_the_safetensors_we_write(self):
        if not FOLDER.exists():
            self.skipTest("the model is absent (launch/quickstart makes it)")
        self.assert_success(self.run_program("import", "--from", FOLDER, "--to", "written", "--dtype", "fp32"))
        self.assert_equal_perplexity(self.ours("written"), self.theirs("written", "written"))


if __name__ == "__main__":
    support.main()
