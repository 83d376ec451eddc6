#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the quick start's tickets: form, balance, no leak from training to held-out, reproducible by their script."""

import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest
from collections import Counter, defaultdict

FOLDER = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "configs/quickstart"


def load_maker():
    spec = importlib.util.spec_from_file_location("make_tickets", FOLDER / "make_tickets.py")
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


def read(name):
    with open(FOLDER / name, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ticket(record):
    return record["messages"][1]["content"]


class QuickstartData(unittest.TestCase):
    def setUp(self):
        self.train, self.heldout = read("train.jsonl"), read("heldout.jsonl")
        self.maker = load_maker()

    def test_is_large_and_balanced(self):
        self.assertGreaterEqual(len(self.train), 600)
        self.assertGreaterEqual(len(self.heldout), 150)
        for records in (self.train, self.heldout):
            counts = Counter(r["category"] for r in records)
            self.assertGreaterEqual(len(counts), 12)
            self.assertEqual(len(set(counts.values())), 1, counts)
        self.assertEqual({r["category"] for r in self.train}, {r["category"] for r in self.heldout})

    def test_records_have_the_promised_form(self):
        for record in self.train + self.heldout:
            self.assertEqual([m["role"] for m in record["messages"]], ["system", "user", "assistant"])
            first, second = record["messages"][2]["content"].split("\n")
            self.assertEqual(first, f"Category: {record['category']}")
            self.assertTrue(second.startswith("Reply: ") and second.endswith("."), second)
            self.assertTrue(10 <= len(second.split()) - 1 <= 25, second)
            self.assertTrue(12 <= len(self.maker.words(ticket(record))) <= 45, ticket(record))
            self.assertNotRegex(ticket(record) + second, r"[{}]")

    def test_no_ticket_twice_and_none_alike_across_the_split(self):
        texts = [ticket(r).lower() for r in self.train + self.heldout]
        self.assertEqual(len(set(texts)), len(texts))
        grams = [self.maker.grams(ticket(r)) for r in self.train]
        worst = max((self.maker.similarity(self.maker.grams(ticket(h)), g), ticket(h)) for h in self.heldout for g in grams)
        self.assertLess(worst[0], 0.5, worst)

    def test_phrases_stay_in_one_split(self):
        phrases = self.maker.read_phrases(FOLDER / "phrases.txt")
        for (category, part, split), found in phrases.items():
            self.assertEqual(len(set(found)), len(found), (category, part, split))
            if split == "train":
                self.assertFalse(set(found) & set(phrases[(category, part, "heldout")]), (category, part))

    def test_enough_is_written_by_hand(self):
        hand = read("handwritten.jsonl")
        self.assertGreaterEqual(len(hand), 60)
        known = {ticket(r) for r in self.heldout}
        self.assertGreaterEqual(sum(h["ticket"] in known for h in hand), 40)

    def test_categories_can_be_learned_from_the_words(self):
        # Naive Bayes on words: well above chance (1/14), yet far from certain: held-out tickets are worded differently.
        counts, totals = defaultdict(Counter), Counter()
        for r in self.train:
            counts[r["category"]].update(self.maker.words(ticket(r)))
        for category, c in counts.items():
            totals[category] = sum(c.values())
        vocabulary = len(set().union(*counts.values()))

        def guess(text):
            w = self.maker.words(text)
            return max(counts, key=lambda k: sum(math.log((counts[k][x] + 0.3) / (totals[k] + 0.3 * vocabulary)) for x in w))

        right = sum(guess(ticket(r)) == r["category"] for r in self.heldout) / len(self.heldout)
        print(f"naive Bayes: {right:.1%} of held-out tickets right")
        self.assertTrue(0.25 < right < 0.9, right)

    def test_instructed_twin_differs_in_the_system_prompt_only(self):
        for plain, told in zip(self.heldout, read("heldout_instructed.jsonl")):
            self.assertEqual(plain["messages"][1:], told["messages"][1:])
            self.assertIn(plain["category"], told["messages"][0]["content"])

    def test_script_reproduces_the_committed_files(self):
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([sys.executable, "-B", FOLDER / "make_tickets.py", "--out", out], check=True)
            for made in pathlib.Path(out).iterdir():
                self.assertEqual(made.read_bytes(), (FOLDER / made.name).read_bytes(), made.name)


if __name__ == "__main__":
    unittest.main(verbosity=1)
