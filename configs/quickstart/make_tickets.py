#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the quick start's data: support tickets of Wislanet, an invented telecom operator.

    python3 configs/quickstart/make_tickets.py [--out DIR]

Reads phrases.txt and handwritten.jsonl beside this file and writes train.jsonl, heldout.jsonl and
heldout_instructed.jsonl (the held-out tickets with the categories and the answer's form spelled out in the system
prompt: what an untuned model must be told before its answers can be compared at all). Same inputs, same bytes.

How the two sets are kept apart: the sentences that state the matter (core) and add a fact (detail), the greetings, the
side remarks and half of the names and sums are drawn from separate lists for train and heldout, and a ticket too close to
an earlier one (word 3-grams, see `similarity`) is drawn again. A quarter of the held-out tickets is written by hand.
"""

import argparse
import json
import pathlib
import random
import re
from collections import defaultdict

SEED = 20240531
TRAIN_PER_CATEGORY = 46
HELDOUT_PER_CATEGORY = 12
WORDS = (13, 45)
SAME_SPLIT_LIMIT = 0.8  # two training tickets may share a core sentence, not nearly everything
CROSS_SPLIT_LIMIT = 0.35
SYSTEM = "Sort this Wislanet ticket and reply."
INSTRUCTIONS = (
    "Sort this Wislanet ticket and reply. Answer in two lines: 'Category: ' with exactly one of [{categories}], "
    "then 'Reply: ' with one sentence."
)


def read_phrases(path):
    """Returns {(category, part, split): [phrase, ...]}; general sections read (what they are, "any", split)."""
    phrases, key = defaultdict(list), None
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            category, part, split = re.fullmatch(r"\[(.+) (\w+) (\w+)\]", line).groups()
            key = (category, part, split)
        else:
            phrases[key].append(line)
    return phrases


def words(text):
    return re.findall(r"\w+", text.lower())


def grams(text, n=3):
    w = words(text)
    return {tuple(w[i : i + n]) for i in range(len(w) - n + 1)}


def similarity(a, b):
    """Jaccard index of two sets of word 3-grams: 0 shares nothing, 1 is the same."""
    return len(a & b) / len(a | b) if a and b else 0.0


def record(category, ticket, reply):
    answer = f"Category: {category}\nReply: {reply}"
    roles = (("system", SYSTEM), ("user", ticket), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in roles], "category": category}


class Maker:
    def __init__(self, phrases, split, rng):
        self.phrases, self.split, self.rng = phrases, split, rng
        self.next_core = defaultdict(int)

    def slot_values(self, name):
        values = self.phrases[("slot", name, "train")]
        unseen = self.phrases[("slot", name, "heldout")]
        # Half of the held-out names and sums never occur in training.
        return self.rng.choice([values, unseen]) if self.split == "heldout" else values

    def fill(self, text, used):
        def value(match):
            name = match.group(1)
            if name not in used:
                used[name] = self.rng.choice(self.slot_values(name))
            return used[name]

        return re.sub(r"\{(\w+)\}", value, text)

    def some(self, part, chance):
        found = self.phrases[(part, "any", self.split)]
        return [self.rng.choice(found)] if self.rng.random() < chance else []

    def draw(self, category):
        cores = self.phrases[(category, "core", self.split)]
        core = cores[self.next_core[category] % len(cores)]  # every core sentence equally often
        self.next_core[category] += 1
        details = self.rng.sample(self.phrases[(category, "detail", self.split)], self.rng.choice([0, 1, 1, 2]))
        body = details + self.some("context", 0.45)
        body.insert(len(body) if self.rng.random() < 0.25 else 0, core)  # sometimes the matter comes last
        used = {}
        text = " ".join(self.fill(sentence, used) for sentence in body + self.some("closing", 0.4))
        for greeting in self.some("opening", 0.5):  # "Hello, my phone ...", but "Hello, I ..." and "Hello, LTE ..."
            first = text.split()[0]
            text = f"{greeting} {text if first == 'I' or first[1:2].isupper() else text[0].lower() + text[1:]}"
        if self.rng.random() < 0.12:
            text = text.lower()
        fitting = [r for r in self.phrases[(category, "reply", "any")] if set(re.findall(r"\{(\w+)\}", r)) <= set(used)]
        return text, self.fill(self.rng.choice(fitting), used)


def make_split(split, per_category, phrases, handwritten, others):
    """Returns the records of a split; `others` holds the 3-grams of tickets of the other split."""
    maker = Maker(phrases, split, random.Random(f"{SEED}/{split}"))
    categories = sorted({key[0] for key in phrases if key[1] == "core"})
    records, seen = [], []
    for category in categories:
        own = [h for h in handwritten if h["split"] == split and h["category"] == category]
        made = [(h["ticket"], h["reply"]) for h in own]
        seen += [grams(ticket) for ticket, _ in made]
        for _ in range(200 * per_category):
            if len(made) == per_category:
                break
            ticket, reply = maker.draw(category)
            g = grams(ticket)
            if not WORDS[0] <= len(words(ticket)) <= WORDS[1]:
                continue
            if any(similarity(g, s) > SAME_SPLIT_LIMIT for s in seen) or any(similarity(g, o) > CROSS_SPLIT_LIMIT for o in others):
                continue
            seen.append(g)
            made.append((ticket, reply))
        assert len(made) == per_category, f"too few different phrases for {category} ({split}): {len(made)}"
        records += [record(category, ticket, reply) for ticket, reply in made]
    maker.rng.shuffle(records)
    return records, seen


def write(path, records):
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_text(text, encoding="utf-8")


def instructed(records):
    categories = ", ".join(sorted({r["category"] for r in records}))
    system = {"role": "system", "content": INSTRUCTIONS.format(categories=categories)}
    return [{**r, "messages": [system] + r["messages"][1:]} for r in records]


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=here)
    out = parser.parse_args().out
    phrases = read_phrases(here / "phrases.txt")
    handwritten = [json.loads(line) for line in (here / "handwritten.jsonl").read_text(encoding="utf-8").splitlines()]
    train, seen = make_split("train", TRAIN_PER_CATEGORY, phrases, handwritten, [])
    heldout, _ = make_split("heldout", HELDOUT_PER_CATEGORY, phrases, handwritten, seen)
    out.mkdir(parents=True, exist_ok=True)
    write(out / "train.jsonl", train)
    write(out / "heldout.jsonl", heldout)
    write(out / "heldout_instructed.jsonl", instructed(heldout))


if __name__ == "__main__":
    main()
