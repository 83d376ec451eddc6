# SPDX-License-Identifier: Apache-2.0
"""Tokenizing a corpus once: `kamerton data prepare` on ranks beside `datasets.map` on as many processes, same tokenizer.

    python benchmarks/prepare_bench.py --model models/SmolLM2-135M-Instruct --megabytes 100 1000 --ranks 2 --peer PYTHON

Text: the corpora of KAMERTON_SHARED, repeated, each paragraph numbered so that no cache of words decides. `--peer` is a Python with
`datasets` and `transformers`; without it our own figures are printed alone. KAMERTON_PROGRAM names the program (default: build/kamerton).
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = os.environ.get("KAMERTON_PROGRAM", str(HERE.parent / "build" / "kamerton"))
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])


def corpus(shared):
    """Paragraphs of all corpora, in order."""
    folder = shared / "data" / "corpus"
    for name in sorted(folder.iterdir()):
        text = name.read_text(errors="replace")
        if name.suffix == ".jsonl":
            yield from (json.loads(line).get("text", "") for line in text.splitlines())
        else:
            yield from text.split("\n\n")


def write_text(path, megabytes, shared):
    paragraphs = [part for part in corpus(shared) if len(part) > 40]
    written = number = 0
    with path.open("w") as out:
        while written < megabytes * 1_000_000:
            line = json.dumps({"text": f"{number}. {paragraphs[number % len(paragraphs)]}"}, ensure_ascii=False) + "\n"
            out.write(line)
            written += len(line.encode())
            number += 1
    return written


def ours(file, model, ranks, folder):
    start = time.monotonic()
    done = subprocess.run(MPIRUN + ["-np", str(ranks), PROGRAM, "data", "prepare", "--model", model, "--data", str(file), "--threads", "1",
                                    "--to", str(folder / "stores"), "--set", f"data.index_dir={folder / 'index'}"],
                          capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    peak = re.search(r"peak memory of a rank ([\d.]+ \w+)", done.stdout).group(1)
    tokens = int(re.search(r", (\d+) tokens", done.stdout).group(1))
    shutil.rmtree(folder / "stores")
    return seconds, peak, tokens


def peer(python, file, model, processes, folder):
    done = subprocess.run([python, str(HERE / "peer_prepare.py"), str(file), model, str(processes), str(folder / "peer")],
                          capture_output=True, text=True, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    shutil.rmtree(folder / "peer", ignore_errors=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], f"{result['peak_bytes'] / 2**20:.1f} MiB", result["tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--peer")
    parser.add_argument("--scratch", default=None)
    arguments = parser.parse_args()
    shared = pathlib.Path(os.environ["KAMERTON_SHARED"])
    print("| text | program | s | MB/s | peak memory of a rank | tokens |\n|---|---|---|---|---|---|")
    for megabytes in arguments.megabytes:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="kamerton-prepare-", dir=arguments.scratch))
        try:
            size = write_text(folder / "text.jsonl", megabytes, shared)
            rows = [(f"kamerton data prepare, {arguments.ranks} ranks", ours(folder / "text.jsonl", arguments.model, arguments.ranks, folder))]
            if arguments.peer:
                rows.append((f"datasets.map, {arguments.ranks} processes", peer(arguments.peer, folder / "text.jsonl", arguments.model, arguments.ranks, folder)))
            for name, (seconds, peak, tokens) in rows:
                print(f"| {size / 1e6:.0f} MB | {name} | {seconds:.1f} | {size / 1e6 / seconds:.2f} | {peak} | {tokens} |", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
