# SPDX-License-Identifier: Apache-2.0
"""Writes replies.jsonl: tickets of the quick start with the reply that a customer should get, and one that nobody should.
usage: python3 configs/recipes/make_replies.py > configs/recipes/replies.jsonl
       python3 configs/recipes/make_replies.py judged > configs/recipes/judged.jsonl   (one reply a ticket, called good or bad)"""
import json
import pathlib
import sys

TICKETS = pathlib.Path(__file__).parent.parent / "quickstart" / "train.jsonl"
COUNT = 96
CURT = ["Please read the web page.", "This is not our fault.", "You should have told us earlier.", "We cannot do anything about it.",
        "Call again next week.", "Somebody may look at it."]


def main():
    for number, line in enumerate(TICKETS.read_text().splitlines()[:COUNT]):
        messages = json.loads(line)["messages"]
        category = messages[-1]["content"].split("\n")[0]
        curt = {"role": "assistant", "content": f"{category}\nReply: {CURT[number % len(CURT)]}"}
        if "judged" in sys.argv:
            good = number % 3 != 0
            record = {"prompt": messages[:-1], "completion": [messages[-1] if good else curt], "label": good}
        else:
            record = {"prompt": messages[:-1], "chosen": [messages[-1]], "rejected": [curt]}
        print(json.dumps(record, ensure_ascii=False))


main()
