# SPDX-License-Identifier: Apache-2.0
"""Training steps of a Llama in PyTorch + transformers on one GPU, timed: the peer of gpu_bench.

fp32 masters with bf16 products (autocast), SDPA attention, fused AdamW. Prints one JSON line a step on stdout:
{"seconds": ..., "loss": ...}; the last line has the peak of device memory, or {"failure": ...} when it does not fit.
"""
import argparse
import json
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def run(args):
    settings = json.loads(args.config)
    vocabulary = settings["vocab_size"]
    for key in ("architectures", "model_type"):
        settings.pop(key)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(attn_implementation="sdpa", use_cache=False, **settings))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.arange(args.batch * args.length, device="cuda").mul(7919).add(13).remainder(min(151643, vocabulary))
    ids = ids.view(args.batch, args.length)
    forward = torch.compile(model) if args.compile else model
    torch.cuda.synchronize()
    for _ in range(args.steps):
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - start, "loss": loss.item()}), flush=True)
    print(json.dumps({"peak_bytes": torch.cuda.max_memory_allocated()}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, help="config.json of the model, as text")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    try:
        run(args)
    except torch.OutOfMemoryError:
        print(json.dumps({"failure": "out of memory"}), flush=True)


if __name__ == "__main__":
    main()
