# SPDX-License-Identifier: Apache-2.0
"""Federated runs: against centralized training, against their formulas, through crashes."""
import array
import json
import os
import pathlib
import struct

import support

RUN = """
model: {path: configs/debug/tiny-model, random_init: true, dtype: fp32}
tuning: {method: full}
data:
  train: [all.jsonl]
  sequence_length: 128
  shuffle: false
  batch_rows: 4
  micro_batch_rows: 2
  on_no_target: skip
optim: {algorithm: sgd, lr: 0.2, momentum: 0, weight_decay: 0, max_grad_norm: 0, schedule: constant, warmup_ratio: 0, zero_stage: 1}
train: {steps: 3}
federation:
  rounds: 3
  eval_every: 0
  local: {steps: 1}
  sites:
    - {name: a, train: [a.jsonl]}
    - {name: b, train: [b.jsonl]}
"""
LORA = ["tuning.method=lora", "tuning.lora.r=4"]


def floats(path):
    values = array.array("f")
    values.frombytes(pathlib.Path(path).read_bytes())
    return values


def weights(path):
    """name -> floats of a safetensors file."""
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in entry["data_offsets"])
            tensors[name] = array.array("f", raw[begin:end])
    return tensors


def distance(left, right):
    return max(abs(x - y) for x, y in zip(left, right, strict=True))


class Simulations(support.ProgramTest):
    """A run of two sites, and what it leaves."""

    def setUp(self):
        super().setUp()
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        cut = {"a": lines[:4], "b": lines[4:8], "all": lines[:8]}
        for name, part in cut.items():
            (self.folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")
        (self.folder / "run.yaml").write_text(RUN)

    def simulate(self, name, *settings, ranks=0, env=None, resume=False):
        arguments = ["federate", "simulate", "run.yaml", "--set", f"name={name}"]
        for setting in settings:
            arguments += ["--set", setting]
        return self.run_program(*arguments, *(["--resume"] if resume else []), ranks=ranks, env=env)

    def done(self, name, *settings, **keywords):
        self.assert_success(self.simulate(name, *settings, **keywords))
        return self.folder / "runs" / name

    def state(self, run, round_number):
        return floats(run / f"coordinator/models/round-{round_number:06d}.f32")

    def delta(self, run, site):
        """What the site sent in the last round."""
        return floats(run / "sites" / site / "scratch.f32")


class Federated(Simulations):
    def test_one_local_step_is_centralized_sgd(self):
        result = self.run_program("train", "run.yaml", "--set", "name=pooled", "--set", "data.batch_rows=8")
        self.assert_success(result)
        self.assert_success(self.run_program("export", "--checkpoint", "runs/pooled", "--to", "pooled", "--dtype", "fp32"))
        want = weights(self.folder / "pooled/model.safetensors")
        for ranks, name in ((0, "one"), (2, "two")):
            got = weights(self.done(name, ranks=ranks) / "model/model.safetensors")
            self.assertEqual(set(got), set(want))
            for tensor, values in want.items():
                self.assertLess(distance(got[tensor], values), 1e-6, tensor)
        moved = self.state(self.folder / "runs/one", 3)
        self.assertGreater(max(map(abs, moved)), 1e-3)

    def test_proximal_term_is_its_formula(self):
        """y2 = y2(fedavg) - lr mu (y1 - x): the term is zero in the first step."""
        one = self.delta(self.done("k1", "federation.rounds=1"), "a")
        two = self.delta(self.done("k2", "federation.rounds=1", "federation.local.steps=2"), "a")
        near = self.delta(self.done("prox", "federation.rounds=1", "federation.local.steps=2", "federation.method=fedprox",
                                    "federation.local.proximal_mu=0.5"), "a")
        want = [y2 - 0.2 * 0.5 * y1 for y1, y2 in zip(one, two)]
        self.assertLess(distance(near, want), 1e-6)
        self.assertGreater(distance(near, two), 1e-4)

    def test_scaffold_is_its_formulas(self):
        settings = ["federation.weights=uniform", "federation.rounds=2"]
        plain = self.done("plain", *settings)
        run = self.done("scaffold", *settings, "federation.method=scaffold")
        size = len(self.state(plain, 2))
        first = self.state(run, 1)
        self.assertEqual(list(first[:size]), list(self.state(plain, 1)), "c is zero in the first round")
        control = {}
        for site in "ab":
            before = floats(run / f"sites/{site}/state/round-000000/control.f32")
            after = floats(run / f"sites/{site}/state/round-000001/control.f32")
            sent = self.delta(run, site)
            # gradient g - c_k + c: one step of it beside one step of g from the same weights
            drift = [c - own for c, own in zip(first[size:], before)]
            want = [y - 0.2 * d for y, d in zip(self.delta(plain, site), drift)]
            self.assertLess(distance(sent[:size], want), 1e-6)
            # c_k+ = c_k - c + (x - y) / (K lr)
            want = [own - c - y / 0.2 for own, c, y in zip(before, first[size:], sent[:size])]
            self.assertLess(distance(after, want), 1e-5)
            control[site] = after
        # full participation: c is the mean of the c_k
        want = [(x + y) / 2 for x, y in zip(control["a"], control["b"])]
        self.assertLess(distance(self.state(run, 2)[size:], want), 1e-5)

    def test_ranks_and_arrival_do_not_change_a_bit(self):
        for name, settings in {"full": [], "lora": LORA, "int8": ["federation.update.encoding=int8"]}.items():
            one = self.done(name, "federation.local.steps=2", *settings)
            two = self.done(name + "2", "federation.local.steps=2", *settings, ranks=2)
            self.assertEqual(self.state(one, 3), self.state(two, 3), name)

    def test_exact_adapters_agree_and_wrong_ones_say_so(self):
        """stack and svd sum the products of factors; with rank to spare they are the same model."""
        common = [*LORA, "federation.local.steps=3", "federation.eval_every=1", "data.eval=[all.jsonl]", "optim.lr=2"]
        losses = {}
        for kind in ("ffa", "stack", "svd", "average_factors"):
            run = self.done(kind, *common, f"federation.adapters={kind}")
            rounds = [json.loads(line) for line in (run / "coordinator/rounds.jsonl").read_text().splitlines()]
            losses[kind] = [line["eval_loss"] for line in rounds]
            self.assertEqual(len(rounds), 4)
            self.assertLess(losses[kind][-1], losses[kind][0], kind)
            self.assertEqual("adapter_error" in rounds[0], kind in ("svd", "average_factors"))
        self.assertAlmostEqual(losses["stack"][1], losses["svd"][1], delta=1e-3)
        self.assertTrue((self.folder / "runs/stack/model/model.safetensors").exists())
        self.assertTrue((self.folder / "runs/svd/adapter/adapter_model.safetensors").exists())

    def test_personal_parts_stay(self):
        run = self.done("personal", "federation.local.personal=['model\\.embed_tokens\\..*']")
        layout = json.loads((run / "coordinator/layout.json").read_text())
        self.assertNotIn("model.embed_tokens.weight", [tensor["name"] for tensor in layout["tensors"]])
        own = [floats(run / f"sites/{site}/state/round-000002/personal.f32") for site in "ab"]
        self.assertNotEqual(own[0], own[1])

    def test_killed_anywhere_it_goes_on_to_the_same_bits(self):
        settings = ["federation.rounds=2", "federation.method=fedadam", "federation.update.encoding=int8",
                    "federation.local.optimizer_state=keep", "optim.momentum=0.9"]
        want = self.state(self.done("whole", *settings), 2)
        points = ["site.encoded", "coordinator.accepted", "coordinator.written"]
        if os.environ.get("KAMERTON_ALL_FAULTS"):
            points += ["site.trained", "coordinator.opened", "coordinator.received", "coordinator.combining", "coordinator.published",
                       "coordinator.committed"]
        for point in points:
            name = point.replace(".", "-")
            killed = self.simulate(name, *settings, env={"KAMERTON_FEDERATION_FAULT": f"{point}:2"})
            self.assertNotEqual(killed.code, 0, point)
            self.assertEqual(self.state(self.done(name, *settings, resume=True), 2), want, point)

    def test_masked_sums_are_plain_sums_to_the_bit(self):
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        (self.folder / "c.jsonl").write_text("\n".join(lines[8:12]) + "\n")
        with (self.folder / "run.yaml").open("a") as file:
            file.write("    - {name: c, train: [c.jsonl]}\n")
        settings = ["federation.update.encoding=ring32", "federation.weights=uniform", "federation.cohort.min_sites=3",
                    "federation.rounds=2"]
        plain = self.state(self.done("plain", *settings), 2)
        masks = [*settings, "federation.privacy.secure_aggregation=true"]
        run = self.done("masked", *masks)
        self.assertEqual(self.state(run, 2), plain)
        self.assertGreater(max(map(abs, plain)), 1e-3)
        self.assertFalse(list(run.glob("coordinator/spool/*/*.update")))
        # what reached the coordinator is not what the site computed
        stopped = self.simulate("seen", *masks, env={"KAMERTON_FEDERATION_FAULT": "coordinator.combining:1"})
        self.assertNotEqual(stopped.code, 0)
        for site in "abc":
            spool = self.folder / f"runs/seen/coordinator/spool/round-000000/{site}.update"
            own = self.folder / f"runs/seen/sites/{site}/update"
            same = sum(x == y for x, y in zip(array.array("I", spool.read_bytes()), array.array("I", own.read_bytes())))
            self.assertLess(same, 5, "masked words are not the site's")
        self.assertEqual(self.state(self.done("seen", *masks, resume=True), 2), plain)
        for point in ("coordinator.secure_message:5", "coordinator.secure_stage:3"):
            name = point.replace(".", "-").replace(":", "-")
            self.assertNotEqual(self.simulate(name, *masks, env={"KAMERTON_FEDERATION_FAULT": point}).code, 0, point)
            self.assertEqual(self.state(self.done(name, *masks, resume=True), 2), plain, point)

    def test_weighted_sums_hide_the_weights_under_masks(self):
        lines = (support.SOURCE / "configs/debug/sums.jsonl").read_text().splitlines()
        (self.folder / "c.jsonl").write_text("\n".join(lines[8:10]) + "\n")
        with (self.folder / "run.yaml").open("a") as file:
            file.write("    - {name: c, train: [c.jsonl]}\n")
        common = ["federation.weights=examples", "federation.rounds=2", "federation.cohort.min_sites=3", "federation.local.epochs=1"]
        ring = ["federation.update.encoding=ring32", "federation.update.max_weight=8"]
        exact = self.state(self.done("exact", *common), 2)
        plain = self.state(self.done("plain", *common, *ring), 2)
        self.assertLess(distance(plain, exact), 2e-5)  # steps of 2^-19, weights 1/2 and 1/4 of the bound
        uniform = self.state(self.done("uniform", *common, "federation.weights=uniform"), 2)
        self.assertGreater(distance(uniform, exact), 1e-3)
        run = self.done("masked", *common, *ring, "federation.privacy.secure_aggregation=true")
        self.assertEqual(self.state(run, 2), plain)
        for line in (run / "coordinator/journal").read_text().splitlines():
            if '"accept"' in line:
                self.assertRegex(line, r'"targets":0,"examples":0')
        self.assert_refused(self.simulate("x", *common, "federation.update.encoding=ring32"), 64, "max_weight")

    def test_ranks_may_differ_from_site_to_site(self):
        """The product of what a site sends has its own rank; the server's step is as exact as with equal ranks."""
        text = (self.folder / "run.yaml").read_text()
        (self.folder / "run.yaml").write_text(text.replace("{name: a,", "{name: a, rank: 2,"))
        common = [*LORA, "federation.local.steps=3", "federation.eval_every=1", "data.eval=[all.jsonl]", "optim.lr=0.5"]
        for kind in ("stack", "svd"):
            run = self.done(kind, *common, f"federation.adapters={kind}")
            layout = json.loads((run / "coordinator/layout.json").read_text())["tensors"]
            at = 0
            for tensor in layout:
                rows, columns = tensor["shape"]
                size = rows * columns
                for site, rank in (("a", 2), ("b", 4)):
                    values = self.delta(run, site)[at:at + size]
                    if ".lora_A." in tensor["name"]:
                        lines = [any(values[r * columns:(r + 1) * columns]) for r in range(rows)]
                    else:
                        lines = [any(values[c::columns]) for c in range(columns)]
                    self.assertEqual(lines, [k < rank for k in range(4)], f"{kind} {site} {tensor['name']}")
                at += size
            losses = [json.loads(line)["eval_loss"] for line in (run / "coordinator/rounds.jsonl").read_text().splitlines()]
            self.assertLess(losses[-1], losses[0], kind)
        self.assert_refused(self.simulate("x", *LORA), 64, "stack or svd")
        self.assert_refused(self.simulate("x", *LORA, "federation.adapters=svd", "tuning.lora.r=1"), 64, "above tuning.lora.r")

    def test_what_does_not_go_together_is_refused(self):
        self.assert_refused(self.simulate("x", "federation.method=scaffold"), 64, "plain mean")
        self.assert_refused(self.simulate("x", "federation.privacy.secure_aggregation=true", "federation.robust.rule=median"),
                            64, "median", "masked updates")
        self.assert_refused(self.simulate("x", "federation.robust.rule=krum"), 64, "min_sites")
        self.assert_refused(self.simulate("x", "federation.partition.kind=iid", "federation.partition.sites=2"), 64, "exclude")
        self.assert_refused(self.simulate("x", ranks=4), 64, "more groups of ranks than sites")
        self.done("once")
        self.assert_refused(self.simulate("once"), 73, "exists already")


if __name__ == "__main__":
    support.main()
