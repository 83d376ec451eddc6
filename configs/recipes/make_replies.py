# SPDX-License-Identifier: Apache-2.0
"""Writes replies.jsonl: tickets of the quick start with the reply that a customer should get, and one that nobody should.
usage: python3 configs/recipes/make_replies.py > configs/recipes/replies.jsonl"""
import json
import pathlib

TICKETS = pathlib.Path(__file__).parent.parent / "quickstart" / "train.jsonl"
COUNT = 96
CURT = ["Please read the web page.", "This is not our fault.", "You should have told us earlier.", "We cannot do anything about it.",
        "Call again next week.", "Somebody may look at it."]


def main():
    for number, line in enumerate(TICKETS.read_text().splitlines()[:COUNT]):
        messages = json.loads(line)["messages"]
        category = messages[-1]["content"].split("\n")[0]
        print(json.dumps({"prompt": messages[:-1], "chosen": [messages[-1]],
                          "rejected": [{"role": "assistant", "content": f"{category}\nReply: {CURT[number % len(CURT)]}"}]}, ensure_ascii=False))


main()
