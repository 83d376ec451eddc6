# SPDX-License-Identifier: Apache-2.0
"""One training step of a Llama in PyTorch eager + transformers, timed: the peer of step_bench.

Its best settings: fused AdamW, SDPA attention, jemalloc preloaded by the caller (LD_PRELOAD).
Prints one JSON line a step on stdout: {"seconds": ..., "loss": ...}; the last line has the peak memory.
"""
import argparse
import json
import os
import resource
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "S": dict(hidden_size=288, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6),
    "M": dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="S")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "autocast"], default="fp32")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = SHAPES[args.shape]
    config = LlamaConfig(vocab_size=32000, num_key_value_heads=shape["num_attention_heads"], max_position_embeddings=1024,
                         tie_word_embeddings=True, attn_implementation="sdpa", **shape)
    model = LlamaForCausalLM(config)
    if args.dtype == "bf16":
        model = model.to(torch.bfloat16)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.arange(args.batch * args.length).mul(7919).add(13).remainder(31999).view(args.batch, args.length)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if ranks > 1:
        torch.distributed.init_process_group("gloo")
        model = torch.nn.parallel.DistributedDataParallel(model)
    for _ in range(args.steps):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "autocast"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
        if rank == 0:
            print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "loss": loss.item()}), flush=True)
    if rank == 0:
        print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
