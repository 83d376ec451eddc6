# SPDX-License-Identifier: Apache-2.0
"""Measured memory against the plan, and against what ZeRO promises."""
import json
import shutil

import support

MIB = 1 << 20


class Memory(support.ProgramTest):
    def model(self, name, hidden, intermediate, layers, heads):
        """A random Llama: only its shapes matter."""
        folder = self.folder / name
        shutil.copytree(support.SOURCE / "configs/debug/tiny-model", folder)
        config = json.loads((folder / "config.json").read_text())
        config.update(hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads,
                      num_key_value_heads=heads, head_dim=hidden // heads, vocab_size=32000, max_position_embeddings=1024)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def summary(self, name, model, stage, ranks, *more):
        # windows of raw text: every row is full and every token a target, as the plan assumes
        (self.folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog and runs away. " * 2000)
        result = self.train(name, "--set", f"model.path={model}", "--set", f"optim.zero_stage={stage}", "--set", "data.train=[text.txt]",
                            "--set", "data.text_windows=true", "--set", "data.sequence_length=512", "--set", f"data.batch_rows={ranks}", "--set", "train.steps=3",
                            "--set", "train.checkpoint.every=0", *more, ranks=ranks, timeout=280)
        self.assert_success(result)
        return json.loads((self.folder / "runs" / name / "summary.json").read_text())

    def test_measured_peak_is_within_ten_percent_of_the_plan(self):
        model = self.model("s", 288, 768, 6, 6)  # 15 M parameters
        rows = []
        for ranks in (2, 4):
            for stage in (0, 1, 2, 3):
                summary = self.summary(f"s{ranks}z{stage}", model, stage, ranks)
                rows.append((ranks, stage, summary["peak_rss_bytes"] / MIB, summary["planned_bytes"] / MIB))
        table = "\n".join(f"{ranks} ranks, stage {stage}: measured {have:.0f} MiB, planned {plan:.0f} ({have / plan - 1:+.1%})" for ranks, stage, have, plan in rows)
        print("\n" + table)
        for _, _, have, plan in rows:
            self.assertLess(abs(have / plan - 1), 0.10, table)

    def test_stage_three_holds_a_quarter_and_two_units(self):
        model = self.model("m", 768, 2048, 12, 12)  # 110 M parameters
        engine = self.summary("m4z3", model, 3, 4, "--set", "model.activation_checkpointing=block", "--set", "data.sequence_length=128")["engine_bytes"]
        parameters = 32000 * 768 + 12 * (4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768) + 768
        whole = parameters * 16  # fp32: weights, gradients, two moments
        held = engine["parameters"] + engine["gradients"] + engine["optimizer_state"]
        units = 2 * (engine["largest_unit_parameters"] + engine["largest_unit_gradients"])
        print(f"\nheld {held / MIB:.0f} MiB of {whole / MIB:.0f}, transient at most {engine['transient_peak'] / MIB:.0f}, two units {units / MIB:.0f}")
        self.assertLessEqual(held, whole / 4 * 1.001)
        self.assertLessEqual(engine["transient_peak"], units)


if __name__ == "__main__":
    support.main()
