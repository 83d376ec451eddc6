# SPDX-License-Identifier: Apache-2.0
"""What each way of tuning gives and costs: gain on a task beside what is forgotten, trained parameters, memory, time.

    python3 benchmarks/methods_table.py --program build/kamerton --model models/SmolLM2-135M-Instruct --shared DIR [--examples 320] [--ranks 2] > results.md

Tasks: our tickets (configs/quickstart), and banking77 and MTS-Dialog of DIR/data where they are (DIR: KAMERTON_SHARED). The score is the share of
held-out answers whose first line is right: the ticket's category, one of 77 intents, the section of a clinical note. Forgetting is the loss on general
text (DIR/data/corpus/wiki_demo.txt) before and after, measured by the run's own `watch`."""
import argparse
import csv
import hashlib
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Name, keys, learning rate: the usual one of each family for a model of this size.
METHODS = {
    "LoRA r 16": (["tuning.method=lora", "tuning.lora.r=16", "tuning.lora.alpha=32"], 1e-3),
    "DoRA r 16": (["tuning.method=lora", "tuning.lora.r=16", "tuning.lora.alpha=32", "tuning.lora.use_dora=true"], 1e-3),
    "QLoRA r 16, nf4": (["tuning.method=lora", "tuning.lora.r=16", "tuning.lora.alpha=32", "tuning.quantize=nf4"], 1e-3),
    "bottleneck adapters (Houlsby)": (["tuning.method=houlsby"], 1e-3),
    "IA3": (["tuning.method=ia3"], 1e-2),
    "half": (["tuning.method=half"], 1e-4),
    "full": (["tuning.method=full"], 1e-4),
}


def message(system, user, answer):
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def chosen(records, count):
    """A fixed sample that does not depend on the files' order of classes."""
    return sorted(records, key=lambda record: hashlib.sha256(json.dumps(record).encode()).hexdigest())[:count]


def tickets():
    folder = ROOT / "configs" / "quickstart"
    return [[json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()] for part in ("train", "heldout")]


def banking(folder):
    def read(name):
        with (folder / name).open(newline="") as file:
            return [message("Name the intent of this bank customer's question.", row["text"], row["category"].replace("_", " ")) for row in csv.DictReader(file)]
    return read("train.csv"), read("test.csv")


def clinic(folder):
    def read(name):
        with (folder / name).open(newline="") as file:
            return [message("Write this dialogue's section of the clinical note.", row["dialogue"], row["section_header"] + "\n" + row["section_text"])
                    for row in csv.DictReader(file) if len(row["dialogue"]) < 700 and len(row["section_text"]) < 300]
    return read("TrainingSet.csv"), read("TestSet-1-MEDIQA-Chat-2023.csv")


def general_text(shared):
    paragraphs = [part.strip() for part in (shared / "data" / "corpus" / "wiki_demo.txt").read_text().split("\n") if len(part) > 300]
    return [{"text": part[:1200]} for part in chosen(paragraphs, 30)]


def write(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def call(arguments, folder, words):
    """Runs the program on the ranks; returns its output and the processor time of all ranks in seconds."""
    launcher = ["mpirun", "-np", str(arguments.ranks), "--oversubscribe", "--bind-to", "none"] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(launcher + [str(pathlib.Path(arguments.program).resolve()), *words], cwd=folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout + done.stderr, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def score(arguments, folder, what):
    file = folder / "figures.json"
    call(arguments, folder, ["eval", *what, "--data", "test.jsonl", "--metric", "first_line", "--metric", "loss", "--max-new-tokens", "16",
                             "--json", str(file)])
    figures = json.loads(file.read_text())
    return figures["accuracy"], figures["loss"]


def tune(arguments, folder, model, number, settings, lr):
    name = f"run{number}"
    fixed = [f"name={name}", f"model.path={model}", "data.train=[train.jsonl]", "data.packing=true", "data.sequence_length=320", "data.batch_rows=2",
             "data.micro_batch_rows=1", f"optim.lr={lr}", "optim.schedule=cosine", "optim.warmup_ratio=0.05", "optim.weight_decay=0", "optim.zero_stage=1",
             f"train.epochs={arguments.epochs}", "train.eval_every=1000000", "watch=[{name: general, files: [general.jsonl]}]"]
    words = [word for assignment in fixed + settings for word in ("--set", assignment)]
    text, seconds = call(arguments, folder, ["train", "run.yaml", *words])
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    run = folder / "runs" / name
    watched = [json.loads(line)["watch/general/loss"] for line in (run / "eval.jsonl").read_text().splitlines()]
    start = float(re.search(r"watch: general has loss ([0-9.]+) before the run", text)[1])
    return {"trained": re.search(r"parameters, (\S+(?: [kMG])?) trained", text)[1], "seconds": seconds, "start": start, "end": watched[-1],
            "peak": max(line["peak_rss_bytes"] for line in lines if "peak_rss_bytes" in line), "run": run}


def table(arguments, name, train, test, general):
    print(f"\n### {name}: {len(train)} examples, {len(test)} held out\n")
    print("| method | learning rate | right first lines | held-out loss | general text: before | after | change | trained | peak memory of a rank | processor time |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    model = str(pathlib.Path(arguments.model).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write(folder / "train.jsonl", train)
        write(folder / "test.jsonl", test)
        write(folder / "general.jsonl", general)
        (folder / "run.yaml").write_text("name: run\n")
        right, loss = score(arguments, folder, ["--model", model])
        print(f"| base | - | {100 * right:.1f} % | {loss:.3f} | | | | - | - | - |", flush=True)
        for number, (method, (settings, lr)) in enumerate((name, METHODS[name]) for name in arguments.methods):
            done = tune(arguments, folder, model, number, settings, lr)
            right, loss = score(arguments, folder, ["--checkpoint", str(done["run"])])
            print(f"| {method} | {lr:g} | {100 * right:.1f} % | {loss:.3f} | {done['start']:.3f} | {done['end']:.3f} | {done['end'] - done['start']:+.3f} | "
                  f"{done['trained']} | {done['peak'] / 2**30:.2f} GiB | {done['seconds']:.0f} s |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build" / "kamerton"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--shared", default=os.environ.get("KAMERTON_SHARED", ""), help="folder with data/banking77, data/mts-dialog, data/corpus")
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--held-out", type=int, default=150)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tasks", nargs="*", default=["tickets", "banking77", "mts-dialog"])
    arguments = parser.parse_args()
    shared = pathlib.Path(arguments.shared)
    if not (shared / "data" / "corpus" / "wiki_demo.txt").exists():
        sys.exit("--shared: a folder with data/corpus/wiki_demo.txt is needed for the loss on general text")
    readers = {"tickets": tickets, "banking77": lambda: banking(shared / "data" / "banking77"), "mts-dialog": lambda: clinic(shared / "data" / "mts-dialog")}
    print(f"`benchmarks/methods_table.py --examples {arguments.examples} --held-out {arguments.held_out} --epochs {arguments.epochs:g} --ranks {arguments.ranks}`, "
          f"{pathlib.Path(arguments.model).name}, packed rows of 320 tokens, 2 rows an update, ZeRO 1.")
    for name in arguments.tasks:
        train, test = readers[name]()
        table(arguments, name, chosen(train, arguments.examples), chosen(test, arguments.held_out), general_text(shared))


main()
