# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own files: read when asked for, never executed.
KAMERTON_PEER_PYTHON names a Python with torch and safetensors; without it most of these tests skip with that reason."""
import json
import os
import pickle
import shutil
import subprocess
import unittest
import zipfile

import support

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")

SAVE = """
import json, sys, torch
from safetensors.torch import load_file
source, target, kind = sys.argv[1:4]
state = load_file(source + "/model.safetensors")
if kind == "whole":
    state["lm_head.weight"] = state["model.embed_tokens.weight"]  # tied: the same storage twice
    torch.save(state, target + "/pytorch_model.bin")
elif kind == "half":
    torch.save({"state_dict": {name: torch.nn.Parameter(tensor.bfloat16()) for name, tensor in state.items()}}, target + "/pytorch_model.bin")
elif kind == "old":
    torch.save(state, target + "/pytorch_model.bin", _use_new_zipfile_serialization=False)
else:
    names = sorted(state)
    parts = [names[::2], names[1::2]]
    files = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)]
    for part, file in zip(parts, files):
        torch.save({name: state[name] for name in part}, target + "/" + file)
    json.dump({"weight_map": {name: file for part, file in zip(parts, files) for name in part}}, open(target + "/pytorch_model.bin.index.json", "w"))
"""


class Pickle(support.ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = support.SHARED / "models" / "stories260K"
        if not self.model.exists():
            self.skipTest("reference data is absent: models/stories260K (set KAMERTON_SHARED)")

    def bare(self, name="bare"):
        """The model's folder without its weights."""
        shutil.copytree(self.model, self.folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
        (self.folder / name).chmod(0o755)
        return self.folder / name

    def save(self, kind):
        if not PEER:
            self.skipTest("KAMERTON_PEER_PYTHON is not set (a Python with torch)")
        folder = self.bare(kind)
        done = subprocess.run([PEER, "-c", SAVE, str(self.model), str(folder), kind], capture_output=True, text=True, timeout=280)
        self.assertEqual(done.returncode, 0, done.stderr)
        return folder

    def text(self, model):
        done = self.run_program("generate", "--model", model, "--prompt", "Once upon a time", "-n", "20", "--dtype", "fp32")
        self.assert_success(done)
        return done.out

    def test_a_state_dict_is_imported(self):
        folder = self.save("whole")
        self.assert_success(self.run_program("import", "--from", folder / "pytorch_model.bin", "--to", "out", "--dtype", "fp32"))
        self.assertEqual(self.text("out"), self.text(self.model))
        self.assert_refused(self.run_program("generate", "--model", folder, "--prompt", "x"), 64, "allow_pickle")

    def test_parameters_in_bf16_inside_a_checkpoint_are_imported(self):
        folder = self.save("half")
        self.assert_success(self.run_program("import", "--from", folder / "pytorch_model.bin", "--to", "half", "--dtype", "bf16"))
        self.assert_success(self.run_program("import", "--from", self.model, "--to", "same", "--dtype", "bf16"))
        self.assertEqual((self.folder / "half/model.safetensors").read_bytes(), (self.folder / "same/model.safetensors").read_bytes())

    def test_shards_are_trained_on_when_the_key_says_so(self):
        folder = self.save("shards")
        (self.folder / "text.jsonl").write_text(json.dumps({"text": "A dog ran home. " * 8}) + "\n")
        where = ["--set", f"model.path={folder}", "--set", "model.random_init=false", "--set", "data.train=[text.jsonl]", "--set", "train.steps=1"]
        self.assert_refused(self.train("no", *where), 64, "allow_pickle")
        self.assert_success(self.train("yes", *where, "--set", "model.allow_pickle=true"))

    def test_the_format_before_1_6_is_refused(self):
        folder = self.save("old")
        self.assert_refused(self.run_program("import", "--from", folder / "pytorch_model.bin", "--to", "out"), 65, "no zip archive", "1.6")

    def test_code_is_refused_by_name_and_not_run(self):
        class Evil:
            def __reduce__(self):
                return os.system, ("touch executed",)

        folder = self.bare()
        with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
            archive.writestr("model/data.pkl", pickle.dumps({"model.norm.weight": Evil()}, protocol=2))
        refused = self.run_program("import", "--from", folder / "pytorch_model.bin", "--to", "out")
        self.assert_refused(refused, 65, "system", "nothing was executed")
        self.assertFalse((self.folder / "executed").exists())
        self.assertFalse((self.folder / "out").exists())


if __name__ == "__main__":
    support.main()
