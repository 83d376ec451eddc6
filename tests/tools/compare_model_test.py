# SPDX-License-Identifier: Apache-2.0
"""The comparison tool finds reference models equal, and a changed one not.
KAMERTON_PEER_PYTHON names a Python that has transformers; without it these tests skip with that reason."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")
PROBE = os.environ.get("KAMERTON_MODEL_PROBE", "")
MODELS = pathlib.Path(os.environ.get("KAMERTON_SHARED", "/nonexistent")) / "models"
TOOL = pathlib.Path(__file__).with_name("compare_model.py")


@unittest.skipUnless(PEER, "KAMERTON_PEER_PYTHON is not set (a Python with transformers)")
@unittest.skipUnless(MODELS.exists(), "reference data is absent: models (set KAMERTON_SHARED)")
class CompareModel(unittest.TestCase):
    def compare(self, directory):
        return subprocess.run([PEER, str(TOOL), str(directory), "--probe", PROBE, "--tokens", "24", "--new", "8"],
                              capture_output=True, text=True, timeout=400)

    def test_reference_models_are_equal(self):
        for name in ("tiny-qwen3", "tiny-qwen3_moe"):
            done = self.compare(MODELS / name)
            self.assertEqual(done.returncode, 0, name + done.stdout + done.stderr)
            self.assertIn("all equal", done.stdout)

    def test_the_padding_row_and_an_early_end_are_no_difference(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "copy"
            shutil.copytree(MODELS / "tiny-qwen3", copy)
            config = copy / "config.json"
            config.chmod(0o644)
            settings = json.loads(config.read_text())
            # Every second token is an end; the reference's first random id is the padding.
            settings.update(pad_token_id=44, eos_token_id=list(range(0, settings["vocab_size"], 2)))
            config.write_text(json.dumps(settings))
            (copy / "generation_config.json").unlink(missing_ok=True)
            done = self.compare(copy)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_another_setting_shows(self):
        with tempfile.TemporaryDirectory() as folder:
            changed = pathlib.Path(folder) / "changed"
            shutil.copytree(MODELS / "tiny-qwen3", changed)
            # transformers reads the original; the probe is led to a copy with another setting.
            config = changed / "config.json"
            config.chmod(0o644)
            config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
            script = pathlib.Path(folder) / "probe.sh"
            script.write_text(f'#!/bin/sh\nshift\nexec "{PROBE}" "{changed}" "$@"\n')
            script.chmod(0o755)
            done = subprocess.run([PEER, str(TOOL), str(MODELS / "tiny-qwen3"), "--probe", str(script), "--tokens", "24", "--new", "8"],
                                  capture_output=True, text=True, timeout=400)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            self.assertIn("DIFFERS", done.stdout)


if __name__ == "__main__":
    unittest.main()
