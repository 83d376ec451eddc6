# SPDX-License-Identifier: Apache-2.0
"""Compares a Hugging Face directory as this program and as transformers compute it: logits, loss, every gradient, greedy tokens.

    PYTHON tests/tools/compare_model.py DIRECTORY [--probe build/release/tests/model_probe] [--tokens 48] [--text FILE] [--new 32]

PYTHON has torch and transformers. Both sides compute in fp32, transformers with eager attention. The documents are the text of
--text where the directory has a tokenizer, else pseudo-random ids. One line a quantity; exit code 0 when all are equal within
the tolerances, 1 when not, 2 when the program refuses the model."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = {"logits": 2e-4, "loss": 2e-5, "gradients": 2e-4}  # of the largest value; the loss is absolute


def documents(arguments, vocabulary, padding=None):
    """Two documents: one of the wanted length, one a third of it. Without the id of `padding`, whose row transformers never trains."""
    length = arguments.tokens
    if arguments.text:
        ids = AutoTokenizer.from_pretrained(arguments.directory)(pathlib.Path(arguments.text).read_text())["input_ids"]
        if len(ids) < length:
            raise SystemExit(f"{arguments.text} has {len(ids)} tokens, --tokens {length} are asked for")
        return [ids[:length], ids[: max(2, length // 3)]]
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([token for token in range(vocabulary) if token != padding])
    return [ids[torch.randint(0, len(ids), (n,), generator=generator)].tolist() for n in (length, max(2, length // 3))]


def read_safetensors(folder):
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def gradients_by_checkpoint_name(model):
    """Gradients take the place of the weights and are saved: the library's own way back to the names on disk (experts apart again,
    tied weights once)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return read_safetensors(folder)


def theirs(model, batch, new):
    logits, total, count = [], 0.0, 0
    for ids in batch:
        out = model(torch.tensor([ids])).logits[0].float()
        logits.append(out.detach())
        total = total + torch.nn.functional.cross_entropy(out[:-1], torch.tensor(ids[1:]), reduction="sum")
        count += len(ids) - 1
    loss = total / count
    loss.backward()
    prompt = torch.tensor([batch[0]])
    with torch.no_grad():
        greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False)
    return {"logits": torch.cat(logits), "loss": loss.detach(), "greedy": greedy[0, prompt.shape[1] :]}, gradients_by_checkpoint_name(model)


def ours(arguments, batch):
    with tempfile.TemporaryDirectory() as folder:
        ids, out = pathlib.Path(folder) / "ids.json", pathlib.Path(folder) / "out.safetensors"
        ids.write_text(json.dumps(batch))
        done = subprocess.run([arguments.probe, arguments.directory, ids, out, str(arguments.new)], capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stderr.strip())
            raise SystemExit(2)
        return read_safetensors(folder)


def relative(got, want):
    return ((got - want).abs().max() / want.abs().max().clamp_min(1e-9)).item()


def compare(mine, reference, gradients):
    """(quantity, difference, limit) lines."""
    yield "logits", relative(mine["logits"], reference["logits"]), TOLERANCE["logits"]
    yield "loss", (mine["loss"] - reference["loss"]).abs().item(), TOLERANCE["loss"]
    names = {name[5:] for name in mine if name.startswith("grad.")}
    for name in sorted(names ^ gradients.keys()):
        yield f"gradient of {name}: {'only ours' if name in names else 'only theirs'}", float("inf"), 0.0
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name in sorted(names & gradients.keys()):
        floor = gradients[name].abs().max().clamp_min(1e-3 * largest)
        yield f"gradient of {name}", ((mine["grad." + name] - gradients[name]).abs().max() / floor).item(), TOLERANCE["gradients"]
    yield "greedy tokens that differ", float((mine["greedy"] != reference["greedy"]).sum()), 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--probe", default="build/release/tests/model_probe")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--text")
    parser.add_argument("--new", type=int, default=32)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(arguments.directory, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None  # all tokens that are asked for, ends among them
    settings = model.config.get_text_config()
    batch = documents(arguments, settings.vocab_size, settings.pad_token_id)
    mine = ours(arguments, batch)
    reference, gradients = theirs(model, batch, arguments.new)
    worst = True
    for what, difference, limit in compare(mine, reference, gradients):
        good = difference <= limit
        worst = worst and good
        if not good or not what.startswith("gradient"):
            print(f"{'equal ' if good else 'DIFFERS'} {what:<60} {difference:.3g} (at most {limit:g})")
    print(f"{len(gradients)} gradients compared; {'all equal' if worst else 'NOT equal'}")
    return 0 if worst else 1


if __name__ == "__main__":
    sys.exit(main())
