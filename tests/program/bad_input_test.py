# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with what a user gives: one clear error, the right code, nothing left behind."""
import json
import os
import subprocess
import shutil
import struct
import subprocess

import support

CONFIG, DATA, OUTPUT = 64, 65, 73


class BadConfig(support.ProgramTest):
    def refused(self, text, *words, ranks=0):
        (self.folder / "run.yaml").write_text(text)
        self.assert_refused(self.run_program("train", "run.yaml", ranks=ranks), CONFIG, *words)
        self.assertFalse((self.folder / "runs").exists())

    def test_unknown_key_names_the_nearest_with_file_and_line(self):
        self.refused("model:\n  path: x\noptim:\n  lerning_rate: 1\n  zero_stagge: 1\n", "run.yaml:", "optim.")
        self.refused("optim:\n  zero_stagge: 1\n", "run.yaml:2", "zero_stagge", "zero_stage")

    def test_override_with_a_typo(self):
        result = self.train("x", "--set", "optim.zero_stagge=1")
        self.assert_refused(result, CONFIG, "--set", "zero_stagge", "zero_stage")

    def test_wrong_type_and_range(self):
        self.assert_refused(self.train("x", "--set", "optim.zero_stage=7"), CONFIG, "zero_stage", "7")
        self.assert_refused(self.train("x", "--set", "optim.lr=fast"), CONFIG, "optim.lr", "fast")
        self.assert_refused(self.train("x", "--set", "tuning.method=magic"), CONFIG, "magic", "lora")

    def test_missing_file(self):
        self.assert_refused(self.run_program("train", "nowhere.yaml"), CONFIG, "nowhere.yaml")

    def test_rows_that_ranks_do_not_divide(self):
        self.assert_refused(self.train("x", "--set", "data.batch_rows=3", ranks=2), CONFIG, "batch_rows")

    def test_mesh_that_does_not_fit_the_world(self):
        result = self.train("x", "--set", "mesh.replicate=3", ranks=2)
        self.assert_refused(result, CONFIG, "3", "2")
        self.assertEqual(result.err.count("[mesh"), 1, str(result))  # one message, not one a rank

    def test_target_that_no_module_has(self):
        self.assert_refused(self.train("x", "--set", "tuning.method=lora", "--set", "tuning.lora.targets=[q_prj]"), CONFIG, "q_prj", "q_proj")

    def test_sequence_longer_than_the_model(self):
        self.assert_refused(self.train("x", "--set", "data.sequence_length=100000"), CONFIG, "100000", "256")

    def test_run_that_exists_is_not_overwritten(self):
        self.assert_success(self.train("same", "--set", "train.steps=2"))
        before = (self.folder / "runs/same/metrics.jsonl").read_bytes()
        self.assert_refused(self.train("same", "--set", "train.steps=2"), OUTPUT, "same", "--resume")
        self.assertEqual((self.folder / "runs/same/metrics.jsonl").read_bytes(), before)


class BadData(support.ProgramTest):
    def refused(self, text, *words, code=DATA, name="data.jsonl", ranks=0, more=()):
        (self.folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        result = self.train("x", "--set", f"data.train=[{name}]", *more, ranks=ranks)
        self.assert_refused(result, code, *words)
        return result

    GOOD = json.dumps({"prompt": "a", "completion": "b"}) + "\n"

    def test_malformed_line_is_named(self):
        self.refused(self.GOOD * 3 + '{"prompt": "a", \n' + self.GOOD, "data.jsonl:4")

    def test_malformed_line_is_named_once_on_two_ranks(self):
        result = self.refused(self.GOOD * 30 + "nonsense\n", "data.jsonl:31", ranks=2)
        self.assertEqual(result.err.count("data.jsonl:31"), 1, str(result))

    def test_empty_file(self):
        self.refused("", "data.jsonl", "empty")

    def test_missing_file(self):
        self.assert_refused(self.train("x", "--set", "data.train=[nowhere.jsonl]"), DATA, "nowhere.jsonl")

    def test_bytes_that_are_not_utf8(self):
        self.refused(self.GOOD.encode() + b'{"prompt": "\xff", "completion": "b"}\n', "data.jsonl:2")

    def test_example_without_a_target(self):
        self.refused(self.GOOD * 2 + json.dumps({"messages": [{"role": "user", "content": "x"}]}) + "\n", "data.jsonl:3")

    def test_other_layout_in_the_middle(self):
        self.refused(self.GOOD * 200 + json.dumps({"text": "x"}) + "\n", "data.jsonl:201", more=["--set", "train.epochs=1", "--set", "train.steps=null"])

    def test_record_text_is_not_shown(self):
        result = self.refused('{"prompt": "PATIENT SECRET", \n', "data.jsonl:1")
        self.assertNotIn("SECRET", result.err)

    def test_data_that_vanishes_in_mid_run(self):
        rows = "".join(json.dumps({"prompt": f"p{i}", "completion": "c" * 20}) + "\n" for i in range(20000))
        (self.folder / "data.jsonl").write_text(rows)
        process = self.start_program("train", "configs/debug/tiny.yaml", "--set", "name=gone", "--set", "data.train=[data.jsonl]", "--set", "train.steps=1000000")
        metrics = self.folder / "runs/gone/metrics.jsonl"
        self.assertTrue(support.wait_until(lambda: metrics.exists() and metrics.stat().st_size > 500))
        with open(self.folder / "data.jsonl", "r+") as file:
            file.truncate(100)
        _, err = process.communicate(timeout=60)
        self.assertIn(process.returncode, (DATA, 74), err)
        self.assertIn("data.jsonl", err)


class BadModel(support.ProgramTest):
    """A model folder with real weights, broken in one way each."""

    def setUp(self):
        super().setUp()
        self.assert_success(self.train("base", "--set", "train.steps=1"))
        self.model = self.folder / "model"
        self.assert_success(self.run_program("export", "--checkpoint", "runs/base", "--to", self.model, "--dtype", "fp32"))

    def refused(self, *words, code=DATA):
        result = self.train("x", "--set", f"model.path={self.model}", "--set", "model.random_init=false")
        self.assert_refused(result, code, *words)

    def rewrite_header(self, change):
        path = self.model / "model.safetensors"
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8:8 + size])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size:])

    def test_good_model_is_accepted(self):
        self.assert_success(self.train("good", "--set", f"model.path={self.model}", "--set", "model.random_init=false", "--set", "train.steps=1"))

    def test_missing_weights(self):
        (self.model / "model.safetensors").unlink()
        self.refused("model.safetensors")

    def test_truncated_weights(self):
        path = self.model / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        self.refused("model.safetensors", "rule 12")

    def test_header_longer_than_the_file(self):
        path = self.model / "model.safetensors"
        path.write_bytes(struct.pack("<Q", 1 << 40) + path.read_bytes()[8:])
        self.refused("model.safetensors", "rule 2")

    def test_weight_that_is_not_a_number(self):
        path = self.model / "model.safetensors"
        raw = bytearray(path.read_bytes())
        raw[-4:] = struct.pack("<f", float("nan"))
        path.write_bytes(raw)
        self.refused("model.", code=78)

    def test_wrong_shape(self):
        def change(header):
            shape = header["model.layers.1.mlp.up_proj.weight"]["shape"]
            shape.reverse()
        self.rewrite_header(change)
        self.refused("model.layers.1.mlp.up_proj.weight")

    def test_tensor_of_another_name(self):
        self.rewrite_header(lambda header: header.update({"model.layers.9.odd": header.pop("model.layers.1.mlp.up_proj.weight")}))
        self.refused("model.layers.1.mlp.up_proj.weight")

    def test_unknown_architecture(self):
        config = json.loads((self.model / "config.json").read_text())
        config["architectures"] = ["SomethingNewForCausalLM"]
        config["model_type"] = "something_new"
        (self.model / "config.json").write_text(json.dumps(config))
        self.refused("SomethingNew", "LlamaForCausalLM")

    def test_missing_folder(self):
        shutil.rmtree(self.model)
        self.assertNotEqual(self.train("x", "--set", f"model.path={self.model}", "--set", "model.random_init=false").code, 0)

    def test_truncated_gguf(self):
        (self.folder / "bad.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1))
        result = self.run_program("import", "--from", "bad.gguf", "--to", "out")
        self.assert_refused(result, DATA, "bad.gguf")
        self.assertFalse((self.folder / "out").exists())


class BadCheckpoint(support.ProgramTest):
    def setUp(self):
        super().setUp()
        self.assert_success(self.train("run", "--set", "train.steps=10"))
        self.checkpoint = self.folder / "runs/run/checkpoints/step-000010"

    def resume(self):
        return self.train("run", "--set", "train.steps=12", "--resume")

    def test_flipped_bit_is_refused_by_digest(self):
        path = next(self.checkpoint.glob("rank-*.h5"))
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        result = self.resume()
        self.assertIn(result.code, (DATA, 74), str(result))
        self.assertIn(path.name, result.err)

    def test_incomplete_newest_falls_back_with_a_loud_line(self):
        next(self.checkpoint.glob("rank-*.h5")).unlink()
        result = self.resume()
        self.assert_success(result)
        self.assertIn("step-000010", result.err)
        self.assertEqual(self.metrics("run")[-1]["step"], 12)

    def test_other_data_is_refused(self):
        text = (support.SOURCE / "configs/debug/sums.jsonl").read_text()
        (self.folder / "other.jsonl").write_text(text.replace("plus", "minus"))
        result = self.train("run", "--set", "data.train=[other.jsonl]", "--resume")
        self.assert_refused(result, CONFIG, "data set")


class FullDisk(support.ProgramTest):
    def test_too_little_room_is_said_before_the_first_step(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small file system needs root")
        disk = self.folder / "runs"
        disk.mkdir()
        if os.system(f"mount -t tmpfs -o size=8m tmpfs {disk} 2>/dev/null") != 0:
            self.skipTest("no file system can be mounted here")
        try:
            for ranks in (0, 2):
                result = self.train(f"full{ranks}", ranks=ranks)
                self.assert_refused(result, 74, "not enough space for a checkpoint", "needed")
                self.assertNotIn("step  1/20", result.out + result.err)
        finally:
            os.system(f"umount {disk}")

    def test_an_answer_that_cannot_be_written_is_no_success(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run(self.command("data", "show", "configs/debug/tiny.yaml"), cwd=self.folder, env=self.environment(None),
                                  stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 74, done.stderr)
        self.assertIn("stdout", done.stderr)

    def test_previous_checkpoint_stays_valid(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small file system needs root")
        disk = self.folder / "runs"
        disk.mkdir()
        # weights, moments and their file: a checkpoint of 1.6 MB wants 17.5 MiB free (margin included): the first fit, the last does not
        if os.system(f"mount -t tmpfs -o size=20m tmpfs {disk} 2>/dev/null") != 0:
            self.skipTest("no file system can be mounted here")
        try:
            result = self.train("full", "--set", "train.checkpoint.keep=0", "--set", "telemetry.tensorboard=false")
            self.assertEqual(result.code, 74, str(result))
            self.assertIn("checkpoints", result.err)
            looked = self.run_program("inspect", "runs/full", "--verify")
            self.assert_success(looked)
        finally:
            os.system(f"umount {disk}")


if __name__ == "__main__":
    support.main()
