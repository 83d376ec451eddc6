# SPDX-License-Identifier: Apache-2.0
"""Whether a reward rises: a story-telling model learns by GRPO, RLOO and PPO to meet a rule that it meets seldom at first.
usage: python3 benchmarks/reward_rise.py --program build/release/kamerton --model MODEL [--ranks 2] [--steps 60] > results.md
MODEL: a Hugging Face folder, such as stories260K. The rule is a regular expression on the answer."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

PROMPTS = ("Once upon a time", "One day,", "Lily and Tom", "The little dog", "There was a boy", "In the park,", "Mom said", "It was a sunny day")
RULE = r"\bhappy\b"
METHODS = {
    "GRPO": ["objective.method=grpo"],
    "GRPO, KL 0.02": ["objective.method=grpo", "objective.policy.kl_coef=0.02"],
    "GRPO, RLOO advantages": ["objective.method=grpo", "objective.policy.advantages=rloo"],
    "PPO, 2 epochs": ["objective.method=ppo", "objective.rollout.epochs=2", "objective.policy.kl_coef=0.01"],
}


def run(arguments, folder, name, settings):
    command = ["mpirun", "-np", str(arguments.ranks), "--oversubscribe", "--bind-to", "none", "--allow-run-as-root"] if arguments.ranks > 1 else []
    fixed = [f"name={name}", f"model.path={pathlib.Path(arguments.model).resolve()}", "tuning.method=full", f"data.train=[{folder}/prompts.jsonl]",
             "data.batch_rows=8", "data.micro_batch_rows=4", "objective.rollout.samples=8", "objective.rollout.max_new_tokens=40",
             f'objective.rewards=[{{kind: match, pattern: "{RULE}"}}]'.replace("\\", "\\\\"), f"train.steps={arguments.steps}", "optim.lr=3e-4", "optim.schedule=constant",
             "optim.warmup_steps=0", "model.dtype=fp32"]
    words = [word for assignment in fixed + settings for word in ("--set", assignment)]
    start = time.monotonic()
    done = subprocess.run(command + [str(pathlib.Path(arguments.program).resolve()), "train", f"{folder}/run.yaml", *words],
                          cwd=folder, capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stderr}")
    return [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()], seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    print(f"Share of answers that match `{RULE}`: mean over the first three and the last ten steps. {arguments.steps} steps of 8 prompts x 8 answers of at most "
          f"40 tokens, {pathlib.Path(arguments.model).name}, all weights trained, {arguments.ranks} rank(s).\n")
    print("| method | first 3 steps | last 10 steps | KL at the end | answers/s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
        (folder / "run.yaml").write_text("name: run\n")
        for number, (method, settings) in enumerate(METHODS.items()):
            lines, seconds = run(arguments, folder, f"run{number}", settings)
            mean = lambda part, key: sum(line[key] for line in part) / len(part)
            kl = f"{mean(lines[-10:], 'kl'):.3f}" if any("kl_coef" in s for s in settings) else "-"
            print(f"| {method} | {mean(lines[:3], 'reward'):.3f} | {mean(lines[-10:], 'reward'):.3f} | {kl} | {64 * arguments.steps / seconds:.0f} |", flush=True)


main()
