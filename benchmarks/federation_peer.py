# SPDX-License-Identifier: Apache-2.0
"""kamerton federate beside Flower: the same small Llama, sites, rounds and local steps; seconds a round and bytes on the wire.

    KAMERTON_PROGRAM=build/release/kamerton python3 benchmarks/federation_peer.py MODEL --flower /opt/flower/bin [--rounds 5]

Each runs in a network namespace of its own (unshare -n), so that the loopback's counter holds its bytes and nobody else's: payload,
acknowledgements and headers, each counted once. Flower's SuperLink and SuperNodes speak HTTP without TLS (--insecure; 1.41), kamerton gRPC
with mutual TLS. FLOWER is the folder of a virtual environment's programs (pip install flwr torch transformers)."""
import argparse
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent

RUN = """
name: peer
model: {{path: {model}, dtype: fp32}}
tuning: {{method: full}}
data: {{train: [data.jsonl], sequence_length: {length}, batch_rows: {rows}, micro_batch_rows: {rows}, on_no_target: skip, shuffle: false}}
optim: {{algorithm: sgd, lr: 0.1, momentum: 0, weight_decay: 0, max_grad_norm: 0, schedule: constant, warmup_ratio: 0}}
federation:
  rounds: {rounds}
  eval_every: 0
  weights: uniform
  local: {{steps: {steps}}}
  cohort: {{start_sites: {sites}, min_sites: {sites}}}
"""
POLICY = "runs: [peer]\nmethods: [fedavg]\nencodings: [f32]\nmin_sites: 2\nmax_rounds: 100\nmax_bytes: 100000000\nrequire_secure_aggregation: false\n"


def wire_bytes():
    """Received by the loopback since it came up: every packet once."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    raise RuntimeError("no loopback")


def wait_for(condition, seconds, what):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            raise RuntimeError(f"{what} did not come in {seconds} s")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run_kamerton(args, folder):
    program = os.environ["KAMERTON_PROGRAM"]
    line = json.dumps({"text": "Once upon a time there was a little girl. " * 60})
    (folder / "data.jsonl").write_text((line + "\n") * args.rows * args.steps)
    (folder / "run.yaml").write_text(RUN.format(**vars(args)))

    def say(*words):
        return subprocess.run([program, "federate", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    say("init", "peer", "--authority", "authority")
    names = [f"site-{i}" for i in range(args.sites)]
    for name in names:
        token = say("invite", name, "--authority", "authority")
        say("join", "--identity", name, "--name", name, "--authority", "authority", "--token", token)
        (folder / name / "policy.yaml").write_text(POLICY)
    start = time.time()
    processes = [subprocess.Popen([program, "federate", "coordinator", "run.yaml", "--authority", "authority", "--listen", "127.0.0.1:0",
                                   "--linger", "1"], cwd=folder, stderr=subprocess.DEVNULL)]
    port = folder / "runs/peer/coordinator/port"
    wait_for(port.exists, 30, "the coordinator")
    before = wire_bytes()
    address = f"127.0.0.1:{port.read_text().strip()}"
    for name in names:
        processes.append(subprocess.Popen([program, "federate", "site", "run.yaml", "--coordinator", address, "--identity", name, "--set",
                                           f"output=at-{name}", "--poll", "0.05"], cwd=folder, stderr=subprocess.DEVNULL))
    for process in processes:
        if process.wait() != 0:
            raise RuntimeError("a process of kamerton failed")
    lines = (folder / "runs/peer/coordinator/rounds.jsonl").read_text().splitlines()
    return {"rounds": [json.loads(line)["seconds"] for line in lines], "wire": wire_bytes() - before, "whole": time.time() - start}


def run_flower(args, folder):
    flower = pathlib.Path(args.flower)
    home = folder / "flwr"
    home.mkdir()
    environment = {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                   "PATH": f"{flower}:{os.environ['PATH']}"}
    (home / "config.toml").write_text('[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:8000"\ninsecure = true\n')
    app = folder / "app"
    shutil.copytree(HERE / "flower", app)
    log = open(folder / "flower.log", "w")
    start = time.time()
    before = wire_bytes()
    processes = [subprocess.Popen([flower / "flower-superlink", "--insecure", "--disable-runtime-dependency-installation"], cwd=folder,
                                  env=environment, stdout=log, stderr=log)]
    for i in range(args.sites):
        processes.append(subprocess.Popen([flower / "flower-supernode", "--insecure", "--superlink", "127.0.0.1:8000", "--port",
                                           str(9100 + i), "--node-config", f"partition-id={i} num-partitions={args.sites}"],
                                          cwd=folder, env=environment, stdout=log, stderr=log))
    times = folder / "times.json"
    try:
        settings = f"model='{args.model}' rounds={args.rounds} sites={args.sites} steps={args.steps} rows={args.rows} length={args.length} times='{times}'"
        wait_for(lambda: listens(8000), 120, "Flower's SuperLink")
        subprocess.run([flower / "flwr", "run", str(app), "here", "--run-config", settings], cwd=folder, env=environment, check=True,
                       stdout=log, stderr=log)
        wait_for(times.exists, 600, "the end of Flower's rounds")
        wire = wire_bytes() - before
        whole = time.time() - start
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    marks = json.loads(times.read_text())
    return {"rounds": [b - a for a, b in zip(marks, marks[1:])], "wire": wire, "whole": whole}


def inside(args):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="federation-peer-"))
    try:
        result = (run_kamerton if args.inside == "kamerton" else run_flower)(args, folder)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["cpu"] = usage.ru_utime + usage.ru_stime
        print(json.dumps(result))
    except Exception:
        if (folder / "flower.log").exists():
            sys.stderr.write((folder / "flower.log").read_text()[-4000:])
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--flower", default="/opt/flower/bin")
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--only", choices=["kamerton", "flower"])
    parser.add_argument("--inside", choices=["kamerton", "flower"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.model = str(pathlib.Path(args.model).resolve())
    if args.inside:
        inside(args)
        return
    print(f"{args.sites} sites, {args.rounds} rounds of {args.steps} steps of {args.rows} x {args.length} tokens\n")
    print("| | a round, median | first round | bytes on the wire | a round | whole run | processor time |\n|---|---|---|---|---|---|---|")
    for which in [args.only] if args.only else ["kamerton", "flower"]:
        done = subprocess.run(["unshare", "-n", sys.executable, __file__, *sys.argv[1:], "--inside", which], stdout=subprocess.PIPE, text=True,
                              check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        rounds = sorted(result["rounds"])
        print(f"| {which} | {rounds[len(rounds) // 2]:.2f} s | {result['rounds'][0]:.2f} s | {result['wire'] / 1e6:.1f} MB | "
              f"{result['wire'] / 1e6 / args.rounds:.1f} MB | {result['whole']:.1f} s | {result['cpu']:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
