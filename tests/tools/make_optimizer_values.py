# SPDX-License-Identifier: Apache-2.0
"""Weights after five steps of the reference libraries' optimizers: tests/unit/optim/optimizer_values.json.

    python tests/tools/make_optimizer_values.py > tests/unit/optim/optimizer_values.json

Needs torch, transformers and bitsandbytes. Starts and gradients are formulas that the C++ test repeats (optimizer_values_test.cpp)."""
import json
import math
import sys

import torch

SHAPES = {"layers.0.wide": (24, 40), "layers.0.tall": (96, 48), "layers.0.bias": (40,), "embed.table": (70, 64)}
STEPS, LR, DECAY = 5, 1e-2, 0.1


def wave(shape, phase, rate):
    count = math.prod(shape)
    return torch.tensor([math.sin(rate * i + phase) for i in range(count)], dtype=torch.float64)


def start(index, shape):
    return (wave(shape, index, 0.37) * 0.5).float().reshape(shape)


def gradient(index, shape, step):
    """Of very different sizes from element to element."""
    values = wave(shape, index + 0.7 * step, 0.11) * wave(shape, 0.3, 0.0131).abs().pow(3)
    return (values * 0.1).float().reshape(shape)


def run(make, names):
    weights = {name: torch.nn.Parameter(start(i, SHAPES[name])) for i, name in enumerate(SHAPES) if name in names}
    optimizer = make(list(weights.values()))
    for step in range(STEPS):
        for i, name in enumerate(SHAPES):
            if name in weights:
                weights[name].grad = gradient(i, SHAPES[name], step)
        optimizer.step()
    return {name: [float(x) for x in weight.detach().reshape(-1)[::37]] for name, weight in weights.items()}


def adafactor(scale):
    from transformers.optimization import Adafactor
    return lambda weights: Adafactor(weights, lr=LR, relative_step=False, scale_parameter=scale, weight_decay=DECAY)


def muon(scale):
    """In fp32, where torch computes in bfloat16."""
    torch.Tensor.bfloat16 = lambda self: self
    return lambda weights: torch.optim.Muon(weights, lr=LR, weight_decay=DECAY, momentum=0.95, adjust_lr_fn=scale)


def nearest(values, code, scales, codes, block):
    """What bitsandbytes' kernels for other devices do; the table that its CPU kernel looks codes up in is coarse near zero (0 becomes 2e-5)."""
    bounds = (code[:-1] + code[1:]) / 2
    flat, out = values.reshape(-1), codes.reshape(-1)
    for number, begin in enumerate(range(0, flat.numel(), block)):
        part = flat[begin:begin + block]
        scales[number] = part.abs().max()
        out[begin:begin + block] = torch.bucketize(part * (1.0 / scales[number]), bounds).to(torch.uint8)


def adamw8bit(weights):
    import bitsandbytes
    from bitsandbytes.backends.cpu import ops
    ops._quant_blockwise_fp32_direct = nearest
    return bitsandbytes.optim.AdamW8bit(weights, lr=LR, weight_decay=DECAY, min_8bit_size=1)


def adamw(weights):
    return torch.optim.AdamW(weights, lr=LR, weight_decay=DECAY)


def codes():
    from bitsandbytes.functional import create_dynamic_map
    return {"signed": create_dynamic_map(True).tolist(), "unsigned": create_dynamic_map(False).tolist()}


def main():
    everything = set(SHAPES)
    matrices = {"layers.0.wide", "layers.0.tall"}
    values = {
        "made_by": f"torch {torch.__version__}",
        "codes": codes(),
        "adamw": run(adamw, everything),
        "adafactor": run(adafactor(True), everything),
        "adafactor_unscaled": run(adafactor(False), everything),
        "adamw8bit": run(adamw8bit, everything),
        "muon": run(muon("match_rms_adamw"), matrices),
        "muon_original": run(muon("original"), matrices),
    }
    json.dump(values, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    main()
