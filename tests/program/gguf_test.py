# SPDX-License-Identifier: Apache-2.0
"""What `export --format gguf` writes runs in llama.cpp with the same greedy text.
KAMERTON_PEER_PYTHON names a Python that has llama-cpp-python (PyPI); without it these tests skip with that reason."""
import json
import os
import shutil
import subprocess
import unittest

import support

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")

# One thread: its threads spin, which is slow beside other work. Cached keys and values in fp32 (type 0), as here.
LLAMA = """
import json, sys
from llama_cpp import Llama
path, prompt, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = Llama(path, n_ctx=0, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False)
text = isinstance(prompt, str)
ids = model.tokenize(prompt.encode(), add_bos=True, special=True) if text else prompt
new = []
for token in model.generate(ids, temp=0.0):
    new.append(token)
    if len(new) == count:
        break
print(json.dumps({"prompt": ids, "new": new, "text": model.detokenize(ids + new)[len(model.detokenize(ids)):].decode(errors="replace") if text else "",
                  "template": model.metadata.get("tokenizer.chat_template", ""), "context": model.n_ctx()}))
"""


SMALL = dict(vocab_size=512, hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
FAMILIES = {
    "gemma3_text": dict(SMALL, num_hidden_layers=7, sliding_window=8, query_pre_attn_scalar=24, sliding_window_pattern=6),
    "qwen3_moe": dict(SMALL, num_hidden_layers=2, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1,
                      norm_topk_prob=True),
}

MAKE = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
torch.manual_seed(3)
config = AutoConfig.for_model(sys.argv[1], **json.loads(sys.argv[2]))
model = AutoModelForCausalLM.from_config(config).float().eval()
with torch.no_grad():
    for name, value in model.named_parameters():
        value.copy_(torch.randn(value.shape) * (0.1 if value.dim() == 1 else 0.25))
model.save_pretrained(sys.argv[3])
prompt = [(7 * i) % 317 + 3 for i in range(24)]
out = model.generate(torch.tensor([prompt]), max_new_tokens=16, min_new_tokens=16, do_sample=False)
print(json.dumps({"prompt": prompt, "new": out[0, 24:].tolist()}))
"""


def missing():
    if not PEER:
        return "KAMERTON_PEER_PYTHON is not set (a Python with llama-cpp-python)"
    done = subprocess.run([PEER, "-c", "import llama_cpp"], capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else "KAMERTON_PEER_PYTHON has no llama-cpp-python"


MISSING = missing()


class Gguf(support.ProgramTest):
    def model(self, name):
        folder = support.SHARED / "models" / name
        if not folder.exists():
            self.skipTest(f"reference data is absent: models/{name} (set KAMERTON_SHARED)")
        return folder

    def export(self, name, dtype, *where):
        self.assert_success(self.run_program("export", *where, "--format", "gguf", "--dtype", dtype, "--to", name))

    def llama(self, file, prompt, count=24):
        if MISSING:
            self.skipTest(MISSING)
        done = subprocess.run([PEER, "-c", LLAMA, file, json.dumps(prompt), str(count)], cwd=self.folder, capture_output=True, text=True, timeout=280)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def ours(self, model, prompt, count=24):
        done = self.run_program("generate", "--model", model, "--prompt", prompt, "-n", count, "--dtype", "fp32")
        self.assert_success(done)
        return done.out.strip()

    def test_a_trained_model_says_the_same_in_every_type(self):
        model = self.model("stories260K")
        prompt = "Once upon a time, Anna"
        expected = self.ours(model, prompt)
        for dtype in ("f16", "bf16", "q8_0", "fp32"):
            self.export(f"{dtype}.gguf", dtype, "--model", model)
            self.assertEqual(self.llama(f"{dtype}.gguf", prompt)["text"].strip(), expected, dtype)

    def test_families_continue_ids_as_the_reference_does(self):
        from_fixture = support.SHARED / "fixtures/forward"
        if not from_fixture.exists():
            self.skipTest("reference data is absent: fixtures/forward (set KAMERTON_SHARED)")
        for name in ("tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-gemma2", "tiny-phi3", "tiny-mixtral"):
            ids = greedy_ids(from_fixture / f"{name}.safetensors")
            self.export(f"{name}.gguf", "fp32", "--model", self.model(name))
            self.assertEqual(self.llama(f"{name}.gguf", ids[:24], 16)["new"], ids[24:], name)

    def test_families_without_a_fixture_that_fits_llama_cpp(self):
        """Gemma 3 with llama.cpp's own pattern of windows, Qwen3-MoE with experts in every layer: transformers makes and continues them."""
        if MISSING:
            self.skipTest(MISSING)
        for name, config in FAMILIES.items():
            done = subprocess.run([PEER, "-c", MAKE, name, json.dumps(config), str(self.folder / name)], capture_output=True, text=True, timeout=280)
            self.assertEqual(done.returncode, 0, done.stderr)
            expected = json.loads(done.stdout.splitlines()[-1])
            self.export(f"{name}.gguf", "fp32", "--model", name)
            self.assertEqual(self.llama(f"{name}.gguf", expected["prompt"], 16)["new"], expected["new"], name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.model("stories260K") / file, self.folder / "gemma3_text" / file)
        self.export("gemma.gguf", "fp32", "--model", "gemma3_text")
        self.assert_success(self.run_program("import", "--from", "gemma.gguf", "--to", "again/gemma3_text", "--dtype", "fp32"))
        self.export("again.gguf", "fp32", "--model", "again/gemma3_text")
        self.assertEqual((self.folder / "again.gguf").read_bytes(), (self.folder / "gemma.gguf").read_bytes())

    def test_what_llama_cpp_does_not_compute_is_refused(self):
        refused = self.run_program("export", "--model", self.model("tiny-qwen3_moe"), "--format", "gguf", "--to", "x.gguf")
        self.assert_refused(refused, 65, "experts in every layer", "layer 0 is dense")
        self.assertFalse((self.folder / "x.gguf").exists())

    def test_a_tuned_adapter_is_merged_into_the_file(self):
        model = self.model("stories260K")
        rows = [{"text": f"Tom{i} saw a big dog. The dog was green and it could fly very far."} for i in range(16)]
        (self.folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.assert_success(self.train("lora", "--set", f"model.path={model}", "--set", "model.random_init=false", "--set", "data.train=[text.jsonl]",
                                       "--set", "train.steps=8", "--set", "optim.lr=1e-2", "--set", "tuning.method=lora", "--set", "tuning.lora.r=4"))
        self.assert_success(self.run_program("export", "--checkpoint", "runs/lora", "--to", "merged", "--merge", "--dtype", "fp32"))
        self.export("lora.gguf", "fp32", "--checkpoint", "runs/lora")
        self.assertEqual(self.llama("lora.gguf", "The dog")["text"].strip(), self.ours("merged", "The dog"))

    def test_the_file_comes_back_as_the_same_model(self):
        model = self.model("stories260K")
        self.export("m.gguf", "fp32", "--model", model)
        self.assert_success(self.run_program("import", "--from", "m.gguf", "--to", "again", "--dtype", "fp32"))
        self.assertEqual(self.ours("again", "Once upon a time"), self.ours(model, "Once upon a time"))

    def test_a_file_without_a_tokenizer_comes_back_as_weights_alone(self):
        model = self.model("tiny-llama")
        shutil.copytree(model, self.folder / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*", "chat_template*"))
        self.export("bare.gguf", "fp32", "--model", "bare")
        imported = self.run_program("import", "--from", "bare.gguf", "--to", "again", "--dtype", "fp32")
        self.assert_success(imported)
        self.assertIn("holds no tokenizer", imported.err)
        self.assertFalse((self.folder / "again/tokenizer.json").exists())
        self.export("again.gguf", "fp32", "--model", "again")
        self.assertEqual((self.folder / "again.gguf").stat().st_size, (self.folder / "bare.gguf").stat().st_size)

    def test_bad_requests_are_refused(self):
        model = self.model("stories260K")
        (self.folder / "there.gguf").write_text("x")
        self.assert_refused(self.run_program("export", "--model", model, "--format", "gguf", "--to", "there.gguf"), 73, "exists", "--force")
        self.assert_refused(self.run_program("export", "--model", model, "--format", "gguf", "--dtype", "q2", "--to", "x.gguf"), 64, "q8_0")
        self.assert_refused(self.run_program("export", "--format", "gguf", "--to", "x.gguf"), 64, "--checkpoint", "--model")
        self.assert_refused(self.run_program("export", "--model", model, "--format", "onnx", "--to", "x"), 64, "hf, gguf")
        self.assertFalse((self.folder / "x.gguf").exists())


def greedy_ids(path):
    """greedy.ids of a fixture, read without any library: a safetensors file of int64."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])["greedy.ids"]["data_offsets"]
    raw = data[8 + length + begin : 8 + length + end]
    return [int.from_bytes(raw[i : i + 8], "little", signed=True) for i in range(0, len(raw), 8)]


if __name__ == "__main__":
    support.main()
