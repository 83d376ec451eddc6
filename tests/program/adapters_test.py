# SPDX-License-Identifier: Apache-2.0
"""Every way to tune a part as a user runs it: killed and resumed, a run gives the same bits; its adapter shows, merges and answers."""
import json

import support

WAYS = {
    "lora": ("lora", []),
    "lora_saved": ("lora", ["tuning.modules_to_save=[input_layernorm]"]),
    "lora_tokens": ("lora", ["tuning.settings=['trainable_token_indices=[5, 29, 58]']", "tuning.exclude=[up_proj]"]),
    "dora_dropout": ("lora", ["tuning.lora.use_dora=true", "tuning.lora.dropout=0.2"]),
    "pissa": ("lora", ["tuning.lora.init=pissa", "tuning.lora.r=4"]),
    "ffa": ("lora", ["tuning.lora.freeze_a=true"]),
    "qlora_nf4": ("lora", ["tuning.quantize=nf4"]),
    "qlora_int8": ("lora", ["tuning.quantize=int8"]),
    "ia3": ("ia3", []),
    "vera": ("vera", ["tuning.settings=[r=16]"]),
    "adalora": ("adalora", ["tuning.settings=[init_r=4, target_r=2, tfinal=1]"]),
    "loha": ("loha", []),
    "lokr": ("lokr", []),
    "oft": ("oft", ["tuning.settings=[oft_block_size=8]"]),
    "boft": ("boft", []),
    "hra": ("hra", []),
    "miss": ("miss", ["tuning.settings=[r=8]"]),
    "fourierft": ("fourierft", []),
    "randlora": ("randlora", []),
    "shira": ("shira", ["tuning.settings=[r=4, random_seed=3]"]),
    "ln_tuning": ("ln_tuning", []),
    "trainable_tokens": ("trainable_tokens", ["tuning.settings=['token_indices=[5, 29, 58]']"]),
    "prompt_tuning": ("prompt_tuning", ["tuning.settings=[num_virtual_tokens=4]"]),
    "p_tuning": ("p_tuning", ["tuning.settings=[num_virtual_tokens=4]"]),
    "prefix_tuning": ("prefix_tuning", ["tuning.settings=[num_virtual_tokens=4]"]),
    "houlsby": ("houlsby", []),
    "pfeiffer": ("pfeiffer", []),
    "parallel": ("parallel", []),
    "partial": ("partial", ["tuning.last_layers=1"]),
}


class Adapters(support.ProgramTest):
    def words(self, way):
        method, settings = WAYS[way]
        settings = [f"tuning.method={method}", "data.micro_batch_rows=4", "train.steps=4", "train.checkpoint.every=2", *settings]
        return [word for setting in settings for word in ("--set", setting)]

    def result(self, name):
        run = self.folder / "runs" / name
        losses = [(line["step"], line["loss"], line["grad_norm"]) for line in self.metrics(name)]
        return losses, (run / "adapter" / "adapter_model.safetensors").read_bytes()

    def test_a_killed_run_goes_on_with_the_same_bits(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.assert_success(self.train(way, *self.words(way)))
                cut = self.train(f"{way}-cut", *self.words(way), env={"KAMERTON_FAULT": "kill:rank=0:step=4"})
                self.assertNotEqual(cut.code, 0)
                self.assert_success(self.train(f"{way}-cut", *self.words(way), "--resume"))
                self.assertEqual(self.result(f"{way}-cut"), self.result(way))

    def test_a_run_goes_on_at_stage_3_on_two_ranks(self):
        for way in ("dora_dropout", "vera", "prefix_tuning", "adalora"):
            with self.subTest(way=way):
                self.assert_success(self.train(way, *self.words(way)))
                cut = self.train(f"{way}-cut", *self.words(way), env={"KAMERTON_FAULT": "kill:rank=0:step=4"})
                self.assertNotEqual(cut.code, 0)
                self.assert_success(self.train(f"{way}-cut", *self.words(way), "--set", "optim.zero_stage=3", "--resume", ranks=2))
                for (_, *want), (_, *have) in zip(self.result(way)[0], self.result(f"{way}-cut")[0]):
                    for a, b in zip(want, have):
                        self.assertAlmostEqual(a, b, delta=2e-4 * abs(a))

    def test_keys_that_mean_nothing_are_named_with_a_reason(self):
        for method, setting, *words in (
            ("full", "targets=[q_proj]", "tuning.targets", "full"), ("half", "layers=['0']", "tuning.layers", "half"),
            ("full", "settings=['r=4']", "tuning.settings"), ("full", "exclude=[q_proj]", "tuning.exclude"),
            ("prefix_tuning", "targets=[q_proj]", "tuning.targets"), ("prefix_tuning", "modules_to_save=[norm]", "modules_to_save"),
            ("ia3", "bias=all", "tuning.bias"), ("lora", "train=['.*']", "tuning.train"), ("bitfit", "last_layers=1", "last_layers"),
            ("lora", "layers=['0', '9']", "no such layer", "0 to 2"), ("lora", "lora.rank_pattern=['q_prj=4']", "rank_pattern", "try q_proj"),
            ("lora", "lora.rank_pattern=['q_proj=nan']", "q_proj=nan"), ("lora", "lora.rank_pattern=['q_proj=4.5']", "whole number"),
            ("lora", "lora.alpha_pattern=['q_proj=inf']", "q_proj=inf"), ("lora", "settings=['lora_dropout=1']", "lora_dropout"),
            ("lora", "settings=['lora_alpha=-1']", "lora_alpha"), ("lora", "settings=['init_lora_weights=pisa']", "try pissa"),
            ("lora", "settings=['trainable_token_indices=5']", "trainable_token_indices"),
            ("lora", "settings=['trainable_token_indices={\"lm_head\": [1]}']", "other modules"),
            ("ia3", "settings=['feedforward_modules=5']", "feedforward_modules"), ("lokr", "settings=['rank_pattern={\"q_proj\": \"x\"}']", "rank_pattern.q_proj"),
            ("lokr", "settings=['decompose_factor=0']", "decompose_factor"), ("miss", "settings=['init_weights=bad']", "bat, mini"),
            ("houlsby", "settings=['init_weights=foo']", "mam_adapter"), ("houlsby", "settings=['bottleneck_size=\"a\"']", "bottleneck_size"),
            ("prompt_tuning", "settings=['prompt_tuning_init=TEXT']", "RANDOM"), ("prefix_tuning", "settings=['num_virtual_tokens=300']", "256 positions"),
            ("ln_tuning", "targets=[q_proj]", "no norm"), ("vera", "settings=['projection_prng_key=-1']", "projection_prng_key"),
            ("lora", "bias=all", "the model has no biases"), ("lora", "bias=lora_only", "targets have no biases"),
        ):
            with self.subTest(method=method, setting=setting):
                result = self.run_program("plan", "configs/debug/tiny.yaml", "--set", f"tuning.method={method}", "--set", f"tuning.{setting}")
                self.assert_refused(result, 64, *words)
        left = self.run_program("plan", "configs/debug/tiny.yaml", "--set", "tuning.method=lora", "--set", "tuning.exclude=[nothing]")
        self.assert_success(left)
        self.assertIn("no module is excluded by 'nothing'", left.err)

    def test_dropout_that_is_not_built_does_not_go_unnoticed(self):
        self.assert_success(self.train("lokr", *self.words("lokr")))
        adapter = self.folder / "runs/lokr/adapter"
        config = json.loads((adapter / "adapter_config.json").read_text())
        for value, code in ((0.1, 64), (0.0, 0)):
            (adapter / "adapter_config.json").write_text(json.dumps(config | {"rank_dropout": value}))
            self.assert_success(self.run_program("adapter", "show", adapter))  # nothing is trained there
            further = self.train(f"further-{code}", *self.words("lokr"), "--set", f"tuning.adapter={adapter}")
            self.assertEqual(further.code, code, str(further))
            if code:
                self.assert_refused(further, code, "rank_dropout: 0.1", "adapter_config.json")

    def test_packed_weights_are_cut_over_ranks(self):
        for way in ("qlora_nf4", "qlora_int8"):
            with self.subTest(way=way):
                self.assert_success(self.train(way, *self.words(way)))
                held = {}
                for stage in (1, 3):
                    name = f"{way}-{stage}"
                    self.assert_success(self.train(name, *self.words(way), "--set", f"optim.zero_stage={stage}", ranks=2))
                    summary = json.loads((self.folder / "runs" / name / "summary.json").read_text())
                    held[stage] = summary["engine_bytes"]["parameters"]
                    self.assertEqual(held[stage], summary["planned"]["parameters"])
                    for (_, *want), (_, *have) in zip(self.result(way)[0], self.result(name)[0]):
                        for a, b in zip(want, have):
                            self.assertAlmostEqual(a, b, delta=2e-4 * abs(a))
                self.assertEqual(held[3] * 2, held[1])

    def test_ranks_that_a_run_has_pruned_are_shown(self):
        self.assert_success(self.train("ada", *self.words("adalora")))
        shown = self.run_program("adapter", "show", "runs/ada/adapter")
        self.assert_success(shown)
        kept = [int(line.split()[-3]) for line in shown.out.splitlines() if line.endswith("of 4")]
        self.assertEqual((len(kept), sum(kept)), (21, 42), str(shown))
        frozen = self.train("frozen", *self.words("adalora"), "--set", "tuning.freeze=['.*lora_A.*']")
        self.assert_success(frozen)  # nothing that could be pruned
        self.assertNotIn("triplets", self.metrics("frozen")[-1])
        late = self.train("late", *self.words("adalora"), "--set", "tuning.settings=[tinit=4]", ranks=2)
        self.assert_refused(late, 64, "no step is left to prune ranks in", "tinit = 4", "total_step")

    def test_what_a_run_writes_is_shown(self):
        self.assert_success(self.train("ia3", *self.words("ia3")))
        shown = self.run_program("adapter", "show", "runs/ia3/adapter")
        self.assert_success(shown)
        self.assertIn("IA3", shown.out.upper())
        config = json.loads((self.folder / "runs/ia3/adapter/adapter_config.json").read_text())
        self.assertEqual(config["peft_type"], "IA3")


if __name__ == "__main__":
    support.main()
