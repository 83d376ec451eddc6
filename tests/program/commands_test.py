# SPDX-License-Identifier: Apache-2.0
"""Help, versions, looking: commands that need no long run."""
import json
import os
import re
import shutil

import support


class Commands(support.ProgramTest):
    NAMES = ["train", "eval", "generate", "chat", "data show", "data stats", "data verify", "data redact", "data prepare", "import", "export", "inspect", "plan", "doctor", "version"]

    OF_GROUPS = [f"adapter {name}" for name in ("list", "show", "diff", "merge", "combine", "methods")] + [
        f"federate {name}" for name in ("simulate", "coordinator", "site", "init", "invite", "join", "admit", "renew", "revoke", "status", "audit", "ledger")]

    def test_overview_names_every_command(self):
        result = self.run_program("--help")
        self.assert_success(result)
        for name in self.NAMES:
            self.assertIn(name, result.out)

    def test_every_help_teaches_with_an_example(self):
        for name in self.NAMES + self.OF_GROUPS:
            result = self.run_program(*name.split(), "--help")
            self.assert_success(result)
            self.assertIn("Usage: kamerton " + name, result.out)
            if name != "version":
                self.assertRegex(result.out, r"Examples?:\n  \S")

    def test_a_group_lists_its_own_commands(self):
        for group, member, other in (("data", "data verify", "federate"), ("adapter", "adapter merge", "data"), ("federate", "federate site", "adapter")):
            result = self.run_program(group, "--help")
            self.assert_success(result)
            self.assertIn(f"\n  {member} ", result.out)
            self.assertNotIn(f"\n  {other} ", result.out)
        self.assert_refused(self.run_program("adapter", "lst"), 64, "adapter lst", "kamerton adapter list")

    def test_typo_in_a_command_names_the_nearest(self):
        self.assert_refused(self.run_program("trian", "x.yaml"), 64, "trian", "kamerton train")

    def test_typo_in_an_option_names_the_nearest(self):
        self.assert_refused(self.run_program("generate", "--promt", "x"), 64, "--promt", "--prompt")

    def test_no_command_is_an_error(self):
        self.assertEqual(self.run_program().code, 64)

    def test_version_is_printed(self):
        result = self.run_program("version")
        self.assert_success(result)
        self.assertRegex(result.out, r"^kamerton \d+\.\d+\.\d+ \(libtorch 2\.")

    def test_doctor_finds_this_machine_sound_on_one_and_two_ranks(self):
        for ranks in (0, 2):
            result = self.run_program("doctor", "--folder", ".", ranks=ranks)
            self.assert_success(result)
            self.assertIn("all is well", result.out)

    def test_plan_shows_every_stage_without_weights(self):
        result = self.run_program("plan", "configs/debug/tiny.yaml", "--ranks", "4")
        self.assert_success(result)
        for stage in ("0", "1 *", "2", "3"):
            self.assertRegex(result.out, rf"(?m)^{re.escape(stage)}\s+\d")

    def test_every_run_file_here_is_valid(self):
        files = sorted(support.SOURCE.glob("configs/**/*.yaml"))
        self.assertGreaterEqual(len(files), 5)
        for file in files:  # with the tiny model, so that nothing need be downloaded
            self.assert_success(self.run_program("plan", file, "--ranks", "4", "--set", "model.path=configs/debug/tiny-model",
                                                 "--set", "model.random_init=true", "--set", "data.sequence_length=64"))

    def test_settings_of_other_programs_are_told_their_key_here(self):
        keys = self.run_program("train", "--keys-markdown").out
        ours = {re.sub(r"\.<i>$", "", key) for key in re.findall(r"^(?:\| |## )`([^`]+)`", keys, re.M)}
        source = (support.SOURCE / "src/cli/names_elsewhere.cpp").read_text()
        table = re.findall(r'\{"(\w+)", "([\w.]+)"\}', source)
        self.assertGreater(len(table), 60)
        for name, key in table:
            self.assertIn(key, ours, name)
            self.assertNotIn(name, {one.rsplit(".", 1)[-1] for one in ours}, "a key of ours is found by its own name")
        self.assert_refused(self.train("peer", "--set", "train.learning_rate=1e-4"), 64, "unknown key 'train.learning_rate'", "'optim.lr'")
        self.assert_refused(self.train("moved", "--set", "lora.r=4"), 64, "unknown key 'lora'", "'tuning.lora'")

    def test_keys_are_listed_with_their_documentation(self):
        result = self.run_program("train", "--keys", "optim")
        self.assert_success(result)
        self.assertIn("zero_stage", result.out)

    def test_configs_readme_is_what_the_program_says(self):
        result = self.run_program("train", "--keys-markdown")
        self.assert_success(result)
        self.assertEqual(result.out, (support.SOURCE / "configs" / "README.md").read_text(),
                         "configs/README.md is stale: kamerton train --keys-markdown > configs/README.md")

    def test_data_show_marks_what_is_trained(self):
        result = self.run_program("data", "show", "configs/debug/tiny.yaml", "--count", "1")
        self.assert_success(result)
        self.assertIn("plus", result.out)
        self.assertIn("[[", result.out)

    def test_data_stats_counts(self):
        result = self.run_program("data", "stats", "configs/debug/tiny.yaml")
        self.assert_success(result)
        self.assertIn("64", result.out)

    def test_data_verify_passes_good_data(self):
        result = self.run_program("data", "verify", "configs/debug/tiny.yaml")
        self.assert_success(result)
        self.assertIn("no error found", result.out)


class RealModel(support.ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = support.SHARED / "models" / "stories260K"
        if not self.model.exists():
            self.skipTest("reference data is absent: models/stories260K (set KAMERTON_SHARED)")

    def test_greedy_story_is_exact_and_alone_on_stdout(self):
        result = self.run_program("generate", "--model", self.model, "--prompt", "", "--max-new-tokens", "64")
        self.assert_success(result)
        self.assertTrue(result.out.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside in the park."), str(result))

    def test_what_would_have_no_effect_is_refused(self):
        (self.folder / "requests.jsonl").write_text('{"prompt": "Once"}\n')
        story = lambda *more: self.run_program("generate", "--model", self.model, *more)
        self.assert_refused(story("--prompt", "a", "--dtype", "fp64"), 64, "fp64", "auto, fp32, bf16")
        self.assert_refused(story("--prompt", "a", "--system", "Be brief."), 64, "--system", "--chat")
        self.assert_refused(story("--prompt", "a", "--mix", "x=y"), 64, "--mix", "--requests")
        self.assert_refused(story("--prompt", "a", "--requests", "requests.jsonl"), 64, "--prompt", "--requests")
        self.assert_refused(story("--adapter", "x", "--requests", "requests.jsonl"), 64, "--adapter", "--mix")
        self.assert_refused(story("--prompt", os.fsdecode(b"caf\xe9")), 65, "UTF-8")
        self.assert_refused(story("--prompt", "a", "b"), 64, "kamerton: [cli.generate]", "--help")

    def test_a_request_keeps_its_own_keys_and_a_misspelt_one_is_refused(self):
        requests = self.folder / "requests.jsonl"
        answer = lambda: self.run_program("generate", "--model", self.model, "--requests", "requests.jsonl", "-n", "4")
        requests.write_text('{"id": 7, "prompt": "Once", "tags": ["a"]}\n')
        result = answer()
        self.assert_success(result)
        line = json.loads(result.out)
        self.assertEqual((line["id"], line["prompt"], line["tags"]), (7, "Once", ["a"]))
        for key, words in (("adaptor", "'adapter'"), ("text", "the answer will be there")):
            requests.write_text('{"prompt": "Once"}\n' + json.dumps({"prompt": "Once", key: "x"}) + "\n")
            self.assert_refused(answer(), 65, "requests.jsonl:2", f"'{key}'", words)

    def test_a_file_of_figures_that_cannot_be_written_is_told_before_the_work(self):
        (self.folder / "data.jsonl").write_text('{"prompt": "Once", "completion": " upon a time"}\n')
        for path in ("nowhere/x.json", "."):
            result = self.run_program("eval", "--model", self.model, "--data", "data.jsonl", "--json", path)
            self.assert_refused(result, 73, path)
            self.assertEqual(result.out, "")

    def test_numbers_of_an_evaluation_that_cannot_be_are_refused(self):
        for option in ("--rows=0", "--limit=-3", "--examples=-1", "--max-new-tokens=0"):
            result = self.run_program("eval", "--model", self.model, "--data", "configs/debug/sums.jsonl", option)
            self.assert_refused(result, 64, option.split("=")[0], "out of range")

    def test_a_model_that_is_not_there_is_said_so(self):
        (self.folder / "empty.yaml").write_text("")
        self.assert_refused(self.run_program("train", "empty.yaml"), 64, "no model is named", "model.path")
        self.assert_refused(self.run_program("generate", "--model", "nowhere", "--prompt", "a"), 74, "no model folder 'nowhere'")
        self.assert_refused(self.run_program("generate", "--model", "empty.yaml", "--prompt", "a"), 74, "no model folder", "a file")

    def test_same_seed_same_text(self):
        texts = {self.run_program("generate", "--model", self.model, "--prompt", "Once", "-t", "1.0", "--seed", "5", "-n", "30").out for _ in range(2)}
        other = self.run_program("generate", "--model", self.model, "--prompt", "Once", "-t", "1.0", "--seed", "6", "-n", "30").out
        self.assertEqual(len(texts), 1)
        self.assertNotIn(other, texts)

    def test_inspect_describes_the_model(self):
        result = self.run_program("inspect", self.model, "--tensors")
        self.assert_success(result)
        self.assertIn("LlamaForCausalLM", result.out)
        self.assertIn("model.layers.4.mlp.down_proj.weight", result.out)

    def test_eval_is_the_same_on_one_and_two_ranks(self):
        rows = [{"text": f"Once upon a time, there was a dog named Max{i}. He was happy."} for i in range(7)]
        (self.folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        losses = []
        for ranks in (0, 2):
            result = self.run_program("eval", "--model", self.model, "--data", "text.jsonl", "--json", f"r{ranks}.json", ranks=ranks)
            self.assert_success(result)
            losses.append(json.loads((self.folder / f"r{ranks}.json").read_text())["loss"])
        self.assertAlmostEqual(losses[0], losses[1], places=6)

    def test_eval_measures_an_example_whole_up_to_the_models_limit(self):
        longer = self.folder / "longer"
        shutil.copytree(self.model, longer)
        config = json.loads((longer / "config.json").read_text())
        (longer / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
        (self.folder / "text.jsonl").write_text(json.dumps({"text": "The dog ran. " * 500}) + "\n")

        def targets(*more):
            self.assert_success(self.run_program("eval", "--model", longer, "--data", "text.jsonl", "--json", "whole.json", *more))
            return json.loads((self.folder / "whole.json").read_text())["targets"]
        self.assertGreater(targets(), 1500)
        self.assertEqual(targets("--set", "sequence_length=1024"), 1023)
        self.assertEqual(targets("--set", "text_windows=true"), targets() - 2, "three windows, whose first tokens are given")


if __name__ == "__main__":
    support.main()
