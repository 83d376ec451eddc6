# SPDX-License-Identifier: Apache-2.0
"""peer_tokenizer.py TOKENIZER.json DOCUMENTS: CPU seconds and tokens of the Hugging Face `tokenizers` library, one thread.
DOCUMENTS: a line with the size in bytes, then the text, again and again. Reading is not counted."""
import sys
import time

import tokenizers

tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
data = open(sys.argv[2], "rb").read()
texts, at = [], 0
while at < len(data):
    end = data.index(b"\n", at)
    size = int(data[at:end])
    texts.append(data[end + 1:end + 1 + size].decode("utf-8", "replace"))
    at = end + 1 + size
start = time.process_time()
tokens = sum(len(e) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
print(time.process_time() - start, tokens)
