# SPDX-License-Identifier: Apache-2.0
"""The peer of prepare_bench.py: FILE MODEL PROCESSES CACHE -> a line of JSON. Text plus the end token, as TRL tokenizes text."""
import json
import resource
import sys
import time

import datasets
import transformers

file, model, processes, cache = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
datasets.disable_progress_bars()
tokenizer = transformers.AutoTokenizer.from_pretrained(model)


def tokenize(rows):
    ids = tokenizer([text + tokenizer.eos_token for text in rows["text"]])["input_ids"]
    return {"input_ids": ids, "length": [len(row) for row in ids]}


start = time.monotonic()
rows = datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache)
done = rows.map(tokenize, batched=True, num_proc=processes, remove_columns=["text"])
seconds = time.monotonic() - start
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "tokens": sum(done["length"])}))
