#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The quick start's last page: how many held-out tickets were sorted right before and after tuning, and three answers.

    compare.py FOLDER          reads before, told (optional), after, examples_before and examples_after .json
    compare.py --pick FILE     prints the three example records of the held-out file
"""

import json
import pathlib
import sys
import textwrap

EXAMPLES = ("Stuck at Istanbul airport", "Sent fifty to my pay-as-you-go", "Waited from 8 to 16")

ROWS = (("before tuning", "before"), ("before, told the categories", "told"), ("after tuning", "after"))


def read_lines(path):
    with open(str(path), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def read_answers(path):
    """What `kamerton eval --json` wrote: [{"question", "answer", "correct", ...}, ...]."""
    return json.loads(path.read_text(encoding="utf-8"))["answers"]


def pick(path):
    """The records whose tickets start with EXAMPLES: written by hand, worded like nothing in the training set."""
    records = read_lines(path)
    chosen = [r for start in EXAMPLES for r in records if r["messages"][1]["content"].startswith(start)]
    for record in chosen:
        print(json.dumps(record, ensure_ascii=False))
    return 0 if len(chosen) == len(EXAMPLES) else 1


def print_table(folder):
    print("   held-out tickets                   sorted right            loss a token of the reference")
    for label, name in ROWS:
        path = folder / (name + ".json")
        if path.exists():
            report = json.loads(path.read_text(encoding="utf-8"))
            right, total = sum(bool(a["correct"]) for a in report["answers"]), len(report["answers"])
            loss = "%.2f" % report["loss"] if "loss" in report else ""
            print("   %-30s %4d of %3d  %6.1f %%    %s" % (label, right, total, 100.0 * right / max(total, 1), loss))


def indented(text, head):
    lines = [line for part in text.strip().splitlines() or [""] for line in textwrap.wrap(part, 96) or [""]]
    return "\n".join(("   %-8s" % head if i == 0 else " " * 11) + line for i, line in enumerate(lines))


def print_examples(folder):
    for before, after in zip(read_answers(folder / "examples_before.json"), read_answers(folder / "examples_after.json")):
        print()
        print(indented(before["question"], "ticket"))
        print(indented(before["answer"], "before"))
        print(indented(after["answer"], "after"))


def main(arguments):
    if arguments[:1] == ["--pick"]:
        return pick(arguments[1])
    folder = pathlib.Path(arguments[0])
    print_table(folder)
    print_examples(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
