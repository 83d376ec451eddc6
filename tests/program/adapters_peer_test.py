# SPDX-License-Identifier: Apache-2.0
"""Every adapter that we train opens in PEFT with equal figures, and adapters that PEFT combines we combine alike.
KAMERTON_PEER_PYTHON names a Python that has transformers and peft; without it these tests skip with that reason."""
import json
import os
import subprocess
import unittest

import support

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")

# Method -> settings; what PEFT has no type for is not here.
METHODS = {
    "lora": ["lora.use_dora=true"], "lora-pissa": ["lora.init=pissa"], "lora-olora": ["lora.init=olora", "lora.use_rslora=true"],
    "lora-ffa": ["lora.freeze_a=true"], "lora-saved": ["modules_to_save=[lm_head, input_layernorm]"],
    "lora-pattern": ["lora.rank_pattern=['layers\\.0\\..*q_proj=2']", "lora.alpha_pattern=['v_proj=3']", "layers=['0', '2']"],
    "lora-embedding": ["lora.targets=[q_proj, embed_tokens]"],
    "lora-excluded": ["exclude=['re:.*layers\\.1\\..*']"], "lora-excluded-more": ["exclude=[up_proj, 're:.*layers\\.1\\..*']", "modules_to_save=[down_proj]"],
    "lora-expressions": ["targets=['re:.*[qv]_proj', embed_tokens]", "layers=['0', '2']"],
    "lora-tokens": ["settings=['trainable_token_indices=[1, 13, 403]']"],
    "ia3": [], "vera": ["settings=['r=16']"], "adalora": [], "loha": [], "lokr": ["settings=['r=2']"], "oft": ["settings=['oft_block_size=8']"],
    "boft": [], "hra": [], "miss": ["settings=['r=4']"], "fourierft": [], "randlora": [], "shira": ["settings=['r=4', 'random_seed=5']"],
    "ln_tuning": [], "trainable_tokens": ["settings=['token_indices=[1, 13, 403]']"],
    "prompt_tuning": ["settings=['num_virtual_tokens=4']"], "p_tuning": ["settings=['num_virtual_tokens=4']"],
    "prefix_tuning": ["settings=['num_virtual_tokens=4']"],
}
TARGETED = ("vera", "adalora", "loha", "lokr", "oft", "boft", "hra", "miss", "fourierft", "randlora", "shira")

LOSSES = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import PeftModel
folder, data, *adapters = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
for adapter in adapters:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, adapter).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for line in open(data):
            ids = tokenizer(json.loads(line)["text"])["input_ids"]
            ids = torch.tensor([ids + [tokenizer.eos_token_id] * (ids[-1] != tokenizer.eos_token_id)])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -ids.shape[1]:-1].double()
            total -= torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
    print(json.dumps({"adapter": adapter, "loss": total / count}))
"""

# name|configuration; every trained value is moved at random.
UNUSUAL = """
exclude|LoraConfig(target_modules="all-linear", exclude_modules=["up_proj"])
exclude-expression|LoraConfig(target_modules=["q_proj", "v_proj"], exclude_modules=r".*\\.1\\..*")
saved-linear|LoraConfig(target_modules="all-linear", modules_to_save=["up_proj"])
layers-pattern|LoraConfig(target_modules=["q_proj"], layers_to_transform=[1, 3], layers_pattern="layers")
patterns|LoraConfig(target_modules=["q_proj", "up_proj"], rank_pattern={"q_proj": 2, r"model\\.layers\\.1\\..*up_proj": 7}, alpha_pattern={"^model.layers.2.*": 5}, use_rslora=True)
pissa|LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights="pissa")
olora|LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights="olora")
tied|LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
untied|LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"])
tokens|LoraConfig(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1, 7, 300]})
ia3-expressions|IA3Config(target_modules=r".*(v_proj|up_proj)", feedforward_modules=r".*up_proj", exclude_modules=r".*\\.2\\..*")
hra-gs|HRAConfig(r=4, apply_GS=True, target_modules=["q_proj"])
boft-num|BOFTConfig(boft_block_size=0, boft_block_num=4, target_modules=["q_proj"])
!pissa-niter|LoraConfig(target_modules=["q_proj"], init_lora_weights="pissa_niter_4")
!sparse|RandLoraConfig(r=4, sparse=True, save_projection=False, target_modules=["q_proj"])
!bias|LoraConfig(target_modules=["q_proj"], lora_bias=True, init_lora_weights=False)
!head|LoraConfig(target_modules=["q_proj", "lm_head"])
!replicated|LoraConfig(target_modules=["q_proj"], layer_replication=[[0, 3], [2, 5]])
"""

MAKE = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import *
for line in sys.argv[2].strip().splitlines():
    name, config = line.split("|", 1)
    torch.manual_seed(len(name))
    config = eval(config)
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained("unusual/" + name.lstrip("!"))
"""

COMBINE = """
import json, sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
folder, first, second, jobs = sys.argv[1:]
base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model = PeftModel.from_pretrained(base, first, adapter_name="a")
model.load_adapter(second, adapter_name="b")
for i, (how, options) in enumerate(json.loads(jobs)):
    model.add_weighted_adapter(["a", "b"], [0.7, -0.4], f"m{i}", combination_type=how, **options)
    deltas = {name: module.get_delta_weight(f"m{i}").norm().item() for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")}
    probe = {name: module.get_delta_weight(f"m{i}")[:2, :3].flatten().tolist() for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")}
    print(json.dumps({"how": how, "norms": deltas, "probe": probe}))
"""

READ = """
import json, sys
from safetensors.torch import load_file
tensors = load_file(sys.argv[1] + "/adapter_model.safetensors")
config = json.load(open(sys.argv[1] + "/adapter_config.json"))
scale = config["lora_alpha"] / config["r"]
out = {}
for key in tensors:
    if key.endswith("lora_A.weight"):
        delta = scale * tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
        out[key[len("base_model.model."):-len(".lora_A.weight")]] = {"norm": delta.norm().item(), "probe": delta[:2, :3].flatten().tolist()}
print(json.dumps(out))
"""


PRUNE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import PeftModel
folder, data, start, to, steps, lr, settings = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), start, is_trainable=True)
for name, value in json.loads(settings).items():
    setattr(model.peft_config["default"], name, value)
allocator = model.base_model.rankallocator
allocator.beta1, allocator.beta2 = model.peft_config["default"].beta1, model.peft_config["default"].beta2
allocator._set_budget_scheduler(model.base_model.model)
rows = [tokenizer(json.loads(line)["text"])["input_ids"] + [tokenizer.eos_token_id] for line in open(data)]
width = max(map(len, rows))
ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=float(lr), weight_decay=0.0)
for step in range(1, int(steps) + 1):
    plain = model.base_model.model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    model.base_model.update_and_allocate(step)
    optimizer.zero_grad()
    left = sum(int((p != 0).sum()) for n, p in model.named_parameters() if "lora_E" in n)
    print(json.dumps({"loss": plain.item(), "orthogonality": (loss - plain).item(), "grad_norm": norm.item(), "triplets": left}))
model.save_pretrained(to)
"""


@unittest.skipUnless(PEER, "KAMERTON_PEER_PYTHON is not set (a Python with transformers and peft)")
class Adapters(support.ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = support.SHARED / "models" / "stories260K"
        if not self.model.exists():
            self.skipTest("reference data is absent: models/stories260K (set KAMERTON_SHARED)")
        rows = [{"text": f"Once upon a time, there was a cat named Tom{i}. He liked to run in the park with Anna."} for i in range(8)]
        (self.folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def peer(self, code, *arguments):
        done = subprocess.run([PEER, "-c", code, *map(str, arguments)], cwd=self.folder, capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def tune(self, name, *settings, seed=1):
        more = []
        for setting in settings:
            more += ["--set", f"tuning.{setting}"]
        self.assert_success(self.train(name, "--set", f"model.path={self.model}", "--set", "model.random_init=false", "--set", "data.train=[text.jsonl]",
                                       "--set", "train.steps=2", "--set", "optim.lr=1e-2", "--set", f"train.seed={seed}", *more))
        return f"runs/{name}/adapter"

    def test_every_method_opens_in_peft(self):
        ours = {}
        for name, settings in METHODS.items():
            method = name.partition("-")[0]
            targets = ["targets=[q_proj, v_proj]"] if method in TARGETED else []
            adapter = self.tune(name, f"method={method}", *targets, *settings)
            self.assert_success(self.run_program("eval", "--model", self.model, "--adapter", adapter, "--data", "text.jsonl", "--json", "ours.json",
                                                 "--dtype", "fp32"))
            ours[adapter] = json.loads((self.folder / "ours.json").read_text())["loss"]
        for theirs in self.peer(LOSSES, self.model, "text.jsonl", *ours):
            with self.subTest(adapter=theirs["adapter"]):
                self.assertAlmostEqual(ours[theirs["adapter"]], theirs["loss"], delta=1e-4)

    def test_unusual_adapters_of_peft_give_its_figures_or_are_refused(self):
        self.peer(MAKE, self.model, UNUSUAL)
        ours = {}
        for line in UNUSUAL.strip().splitlines():
            name = line.split("|")[0]
            folder = f"unusual/{name.lstrip('!')}"
            result = self.run_program("eval", "--model", self.model, "--adapter", folder, "--data", "text.jsonl", "--json", "ours.json", "--dtype", "fp32")
            if name.startswith("!"):
                self.assertIn(result.code, (64, 65), f"{name}: {result}")
                continue
            self.assert_success(result)
            ours[folder] = json.loads((self.folder / "ours.json").read_text())["loss"]
        for theirs in self.peer(LOSSES, self.model, "text.jsonl", *ours):
            with self.subTest(adapter=theirs["adapter"]):
                self.assertAlmostEqual(ours[theirs["adapter"]], theirs["loss"], delta=1e-4)
        into = self.folder / "merged"  # a start that changed the base is in the merged model, too
        self.assert_success(self.run_program("adapter", "merge", "--model", self.model, "--adapter", "unusual/pissa", "--to", into, "--dtype", "fp32"))
        self.assert_success(self.run_program("eval", "--model", into, "--data", "text.jsonl", "--json", "ours.json", "--dtype", "fp32"))
        self.assertAlmostEqual(json.loads((self.folder / "ours.json").read_text())["loss"], ours["unusual/pissa"], delta=1e-5)
        combined = self.run_program("adapter", "combine", "unusual/pissa", "unusual/olora", "--to", "both")
        self.assert_refused(combined, 65, "whose start changed the base")

    def test_adalora_prunes_as_peft_does(self):
        schedule = {"init_r": 6, "target_r": 1, "tinit": 2, "tfinal": 3, "deltaT": 2, "orth_reg_weight": 0.3, "beta1": 0.8}
        words = ["method=adalora", "targets=[q_proj, v_proj, up_proj]", "settings=[" + ", ".join(f"{k}={v}" for k, v in schedule.items()) + "]"]

        def tune(name, steps, lr, ranks=0, stage=1):
            more = [word for setting in words for word in ("--set", f"tuning.{setting}")]
            self.assert_success(self.train(name, "--set", f"model.path={self.model}", "--set", "model.random_init=false", "--set", "data.train=[text.jsonl]",
                                           "--set", f"train.steps={steps}", "--set", f"optim.lr={lr}", "--set", "optim.schedule=constant", "--set", "optim.weight_decay=0",
                                           "--set", "optim.warmup_steps=0", "--set", f"optim.zero_stage={stage}", *more, ranks=ranks))
            return self.metrics(name)
        tune("start", 6, 0)  # an adapter that has not moved keeps its ranks
        theirs = self.peer(PRUNE, self.model, "text.jsonl", "runs/start/adapter", "theirs", 12, 0.02, json.dumps(schedule | {"total_step": 12}))
        for name, ranks, stage in (("ours", 0, 1), ("ours1", 2, 1), ("ours3", 2, 3)):
            ours = tune(name, 12, 0.02, ranks, stage)
            for step, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1):
                if other["triplets"] == theirs[0]["triplets"]:
                    other["triplets"] = mine["triplets"]  # grown again since the last pruning
                for key, tolerance in (("loss", 2e-4), ("orthogonality", 2e-4), ("grad_norm", 2e-3), ("triplets", 0)):
                    self.assertAlmostEqual(mine[key], other[key], delta=tolerance * abs(other[key]), msg=f"{name} {key} step {step}")
            config, other = (json.loads((self.folder / folder / "adapter_config.json").read_text()) for folder in (f"runs/{name}/adapter", "theirs"))
            self.assertEqual(config["rank_pattern"], other["rank_pattern"])
            self.assertEqual(config["total_step"], 12)
            ranks_left = [sum(flags) for flags in config["rank_pattern"].values()]
            self.assertEqual((sum(ranks_left), min(ranks_left)), (len(ranks_left), 0), "a module may lose all")
        losses = {}
        for folder in ("runs/ours/adapter", "theirs"):
            self.assert_success(self.run_program("eval", "--model", self.model, "--adapter", folder, "--data", "text.jsonl", "--json", "loss.json", "--dtype", "fp32"))
            losses[folder] = json.loads((self.folder / "loss.json").read_text())["loss"]
        for theirs in self.peer(LOSSES, self.model, "text.jsonl", *losses):
            self.assertAlmostEqual(losses[theirs["adapter"]], theirs["loss"], delta=1e-4)
        self.assertAlmostEqual(losses["runs/ours/adapter"], losses["theirs"], delta=1e-3)

    def test_combinations_equal_peft(self):
        first = self.tune("first", "method=lora", "lora.r=4")
        second = self.tune("second", "method=lora", "lora.r=4", seed=2)
        jobs = [["linear", {}], ["cat", {}], ["svd", {"svd_rank": 3}], ["ties", {"density": 0.5}], ["ties_svd", {"density": 0.5, "svd_rank": 3}],
                ["magnitude_prune", {"density": 0.3}]]
        for theirs, (how, options) in zip(self.peer(COMBINE, self.model, first, second, json.dumps(jobs)), jobs):
            out = f"combined-{how}"
            self.assert_success(self.run_program("adapter", "combine", first, second, "--to", out, "--how", how, "--weight=0.7", "--weight=-0.4",
                                                 "--density", options.get("density", 1.0), "--rank", options.get("svd_rank", 0)))
            ours = self.peer(READ, out)[0]
            with self.subTest(how=how):
                self.assertEqual(set(ours), set(theirs["norms"]))
                for name, one in ours.items():
                    self.assertAlmostEqual(one["norm"], theirs["norms"][name], delta=1e-5 + 1e-4 * theirs["norms"][name])
                    for mine, other in zip(one["probe"], theirs["probe"][name]):
                        self.assertAlmostEqual(mine, other, delta=2e-5)


class Commands(support.ProgramTest):
    """No peer is needed: adapters are listed, shown, compared, merged, and mixed in one batch."""

    def setUp(self):
        super().setUp()
        self.model = support.SHARED / "models" / "stories260K"
        self.lora = support.SHARED / "fixtures" / "peft" / "lora"
        self.ia3 = support.SHARED / "fixtures" / "peft" / "ia3"
        if not self.lora.exists() or not self.model.exists():
            self.skipTest("reference data is absent: fixtures/peft (set KAMERTON_SHARED)")

    def test_listed_shown_and_compared(self):
        listed = self.run_program("adapter", "list", self.lora.parent)
        self.assert_success(listed)
        self.assertRegex(listed.out, r"/dora\s+lora r 8")
        self.assertRegex(listed.out, r"/bottleneck_houlsby\s+houlsby")
        shown = self.run_program("adapter", "show", self.lora)
        self.assertIn("lora_alpha", shown.out)
        same = self.run_program("adapter", "diff", self.lora, self.lora)
        self.assertIn("0 of 20 tensors differ", same.out)
        other = self.run_program("adapter", "diff", self.lora, self.lora.parent / "lora_rslora")
        self.assertRegex(other.out, r"use_rslora\s+false \| true")
        self.assertIn("shira (SHIRA)", self.run_program("adapter", "methods").out)

    def test_merged_once_and_only_once(self):
        merged = self.run_program("adapter", "merge", "--model", self.model, "--adapter", self.lora, "--adapter", self.ia3, "--to", "merged", "--dtype", "fp32")
        self.assert_success(merged)
        again = self.run_program("adapter", "merge", "--model", "merged", "--adapter", self.lora, "--to", "twice")
        self.assertEqual(again.code, 64)
        self.assertIn("in the model already", again.err)
        self.assertFalse((self.folder / "twice").exists())
        refused = self.run_program("adapter", "merge", "--model", self.model, "--adapter", self.lora.parent / "prompt_tuning", "--to", "prompt")
        self.assertEqual(refused.code, 64)
        self.assertFalse((self.folder / "prompt").exists())

    def test_requests_through_different_adapters_in_one_batch_equal_single_ones(self):
        prompts = [("Once upon a time", "lora"), ("Once upon a time", "ia3"), ("Once upon a time", None), ("Lily and Tom", "lora")]
        lines = [{"prompt": p} | ({"adapter": a} if a else {}) for p, a in prompts]
        (self.folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        mixed = self.run_program("generate", "--model", self.model, "--mix", f"lora={self.lora}", "--mix", f"ia3={self.ia3}", "--requests", "requests.jsonl",
                                 "-n", "12", "--dtype", "fp32")
        self.assert_success(mixed)
        answers = [json.loads(line) for line in mixed.out.splitlines()]
        for (prompt, adapter), answer in zip(prompts, answers):
            more = ["--adapter", self.lora.parent / adapter] if adapter else []
            alone = self.run_program("generate", "--model", self.model, *more, "--prompt", prompt, "-n", "12", "--dtype", "fp32")
            self.assertEqual(answer["text"].strip(), alone.out.strip(), (prompt, adapter))
        records = {adapter: [{"prompt": "Once upon a time", "completion": f" there was a {word}."} | ({"adapter": adapter} if adapter else {})
                             for word in ("cat", "little dog", "tree")] for adapter in ("lora", "ia3", None)}
        sums = [0.0, 0]
        for adapter, part in records.items():
            (self.folder / "part.jsonl").write_text("".join(json.dumps(record) + "\n" for record in part))
            more = ["--adapter", self.lora.parent / adapter] if adapter else []
            self.assert_success(self.run_program("eval", "--model", self.model, *more, "--data", "part.jsonl", "--dtype", "fp32", "--json", "part.json"))
            figures = json.loads((self.folder / "part.json").read_text())
            sums = [sums[0] + figures["loss"] * figures["targets"], sums[1] + figures["targets"]]
        everything = [records[adapter][i] for i in range(3) for adapter in records]
        (self.folder / "all.jsonl").write_text("".join(json.dumps(record) + "\n" for record in everything))
        evaluated = self.run_program("eval", "--model", self.model, "--mix", f"lora={self.lora}", "--mix", f"ia3={self.ia3}", "--data", "all.jsonl",
                                     "--metric", "loss", "--metric", "exact_match", "-n", "4", "--dtype", "fp32", "--json", "all.json", ranks=2)
        self.assert_success(evaluated)
        figures = json.loads((self.folder / "all.json").read_text())
        self.assertEqual(figures["targets"], sums[1])
        self.assertAlmostEqual(figures["loss"], sums[0] / sums[1], delta=1e-5)
        self.assertEqual(self.run_program("eval", "--model", self.model, "--mix", f"ia3={self.ia3}", "--data", "all.jsonl").code, 65)
        wrong = self.run_program("generate", "--model", self.model, "--mix", f"lora={self.lora}", "--requests", "requests.jsonl")
        self.assertEqual(wrong.code, 65)
        self.assertIn("requests.jsonl:2", wrong.err)


if __name__ == "__main__":
    support.main()
