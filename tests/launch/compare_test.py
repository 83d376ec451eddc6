#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/compare.py: the quick start's table and examples."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def compare(*words):
    done = subprocess.run([sys.executable, "-B", str(ROOT / "launch/compare.py"), *map(str, words)], stdout=subprocess.PIPE,
                          env={"PYTHONUTF8": "1"})  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8")


def answers(*correct, **more):
    rows = [{"question": "My phone is mute", "answer": "Category: x\nReply: y.", "correct": c} for c in correct]
    return json.dumps({"answers": rows, **more})


class Compare(unittest.TestCase):
    def test_picks_three_hand_written_records(self):
        code, out = compare("--pick", ROOT / "configs/quickstart/heldout.jsonl")
        self.assertEqual((code, len(out.splitlines())), (0, 3))

    def test_table_counts_and_leaves_out_what_was_not_measured(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "before.json").write_text(answers(False, False, False, True, loss=3.5))
            (path / "after.json").write_text(answers(True, True, True, False, loss=0.25))
            for name in ("examples_before", "examples_after"):
                (path / (name + ".json")).write_text(answers(True))
            code, out = compare(folder)
        self.assertEqual(code, 0)
        self.assertRegex(out, r"before tuning +1 of +4 +25\.0 % +3\.50")
        self.assertRegex(out, r"after tuning +3 of +4 +75\.0 % +0\.25")
        self.assertNotIn("told", out)
        self.assertIn("ticket  My phone is mute", out)


if __name__ == "__main__":
    unittest.main(verbosity=1)
