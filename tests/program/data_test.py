# SPDX-License-Identifier: Apache-2.0
"""Data commands from outside: what they find, what they write, what survives a kill."""
import json
import os
import resource
import subprocess
import xml.etree.ElementTree as xml

import support

MODEL = "configs/debug/tiny-model"


def chat(user, answer):
    return json.dumps({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}) + "\n"


def good(count, start=0):
    return "".join(chat(f"What is {i} plus {i * 7 % 13}, please, today?", f"{i} plus {i * 7 % 13} is {i + i * 7 % 13}.") for i in range(start, start + count))


class Verify(support.ProgramTest):
    def verify(self, text, *more):
        (self.folder / "train.jsonl").write_text(text)
        return self.run_program("data", "verify", "--model", MODEL, "--data", "train.jsonl", *more)

    def test_good_data_passes(self):
        result = self.verify(good(30), "--no-duplicates")
        self.assert_success(result)
        self.assertIn("no fault found", result.out)

    def test_every_error_names_line_and_remedy_and_ends_with_65(self):
        cases = {
            "special_marker": chat("end it with <|im_end|> please", "no, thank you"),
            "empty_answer": chat("say something", "  "),
            "pesel": chat("my number is 44051401359", "noted, thank you"),
            "iban": chat("pay to PL61 1090 1014 0000 0712 1981 2874", "it is paid now"),
            "card": chat("card 4111 1111 1111 1111", "that is a test card"),
            "bad_record": "{\"messages\": 3}\n",
        }
        for rule, line in cases.items():
            with self.subTest(rule):
                result = self.verify(good(20) + line, "--no-duplicates")
                self.assert_refused(result, 65, rule)
                self.assertIn(f"error: {rule}:", result.out)
                self.assertIn("train.jsonl:21", result.out)
                self.assertIn("remedy:", result.out)
                for secret in ("44051401359", "4111 1111", "1090 1014"):
                    self.assertNotIn(secret, result.out + result.err)

    def test_warnings_pass_unless_strict(self):
        text = good(20) + chat("write to anna@example.org", "it is sent now")
        result = self.verify(text, "--no-duplicates")
        self.assert_success(result)
        self.assertIn("warning: email", result.out)
        self.assert_refused(self.verify(text, "--no-duplicates", "--strict"), 65, "warnings")

    def test_held_out_records_in_the_training_files_are_found(self):
        (self.folder / "eval.jsonl").write_text(good(5, 100) + good(1, 3))
        result = self.verify(good(30), "--set", "data.eval=[eval.jsonl]")
        self.assert_refused(result, 65, "leak_exact")
        self.assertRegex(result.out, r"eval\.jsonl:6 \(as train\.jsonl:4\)")

    def test_a_leak_stops_a_run_and_can_be_allowed(self):
        leak = ["--set", "data.eval=[configs/debug/sums.jsonl]", "--set", "train.steps=1"]
        self.assert_refused(self.train("leaky", *leak), 65, "leak_exact", "data.verify: off")
        self.assertFalse((self.folder / "runs/leaky").exists())
        self.assert_success(self.train("allowed", *leak, "--set", "data.verify=off"))

    def test_bad_arguments_are_refused(self):
        self.assert_refused(self.verify(good(3), "--similarity", "7"), 64, "--similarity")
        self.assert_refused(self.run_program("data", "verify", "--model", MODEL, "--data", "none.jsonl"), 65, "none.jsonl")


class Redact(support.ProgramTest):
    def test_a_clean_copy_has_no_personal_data_and_keeps_the_rest(self):
        lines = [{"messages": [{"role": "user", "content": "I am anna@example.org, tel. 601-234-567"}], "pesel": 44051401359},
                 {"messages": [{"role": "user", "content": "zażółć 12345"}], "pesel": None}]
        (self.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = self.run_program("data", "redact", "in.jsonl", "--to", "out.jsonl")
        self.assert_success(result)
        for secret in ("anna", "601", "44051401359"):
            self.assertNotIn(secret, result.out + result.err)
        out = [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]
        self.assertEqual(out[0], {"messages": [{"role": "user", "content": "I am [EMAIL], tel. [PHONE]"}], "pesel": "[PESEL]"})
        self.assertEqual(out[1], lines[1])
        self.assertRegex(result.out, r"1 e-mail address -> \[EMAIL\]")
        again = self.run_program("data", "redact", "out.jsonl", "--to", "twice.jsonl")
        self.assertIn("2 records, 0 changed", again.out)

    def test_plain_text_and_bad_input(self):
        (self.folder / "a.txt").write_text("Write to a@example.org.\n\nSecond.\n")
        self.assert_success(self.run_program("data", "redact", "a.txt", "--to", "a.jsonl"))
        texts = [json.loads(line)["text"] for line in (self.folder / "a.jsonl").read_text().splitlines()]
        self.assertEqual(texts, ["Write to [EMAIL].", "Second."])
        self.assert_refused(self.run_program("data", "redact", "a.txt", "--to", "a.jsonl"), 73, "exists")
        self.assert_refused(self.run_program("data", "redact", "a.txt"), 64, "to")
        self.assert_refused(self.run_program("data", "redact", "--to", "x"), 64, "file")
        (self.folder / "bad.jsonl").write_text("{\"a\": 1}\n{\"a\n")
        self.assert_refused(self.run_program("data", "redact", "bad.jsonl", "--to", "b.jsonl"), 65, "bad.jsonl:2")
        self.assertEqual([p.name for p in self.folder.glob("b.jsonl*")], [])


class Look(support.ProgramTest):
    def test_the_picture_is_an_svg_of_itself(self):
        result = self.run_program("data", "stats", "configs/debug/tiny.yaml", "--svg", "lengths.svg")
        self.assert_success(result)
        self.assertRegex(result.out, r"source +configs/debug/sums\.jsonl: 64 examples")
        text = (self.folder / "lengths.svg").read_text()
        self.assertEqual(xml.fromstring(text).tag, "{http://www.w3.org/2000/svg}svg")
        self.assertNotIn("href", text)

    def test_the_page_colours_trained_tokens_and_escapes_the_rest(self):
        (self.folder / "t.jsonl").write_text(chat("<b>bold & \"quoted\"</b>", "fine & well") * 3)
        self.assert_success(self.run_program("data", "show", "--model", MODEL, "--data", "t.jsonl", "--html", "page.html"))
        page = (self.folder / "page.html").read_text()
        self.assertIn('class="t', page)
        self.assertNotIn("<b>", page)
        self.assertNotIn("http", page)


    def test_numbers_that_cannot_be_are_refused(self):
        for option in ("--first=0", "--first=65", "--count=0"):
            self.assert_refused(self.run_program("data", "show", "configs/debug/tiny.yaml", option), 64, option[:7], "out of range")

    def test_statistics_count_what_would_stop_a_run(self):
        (self.folder / "t.jsonl").write_text(chat("long " * 40, "never reached") + chat("a", "b") * 2)
        short = ["--model", MODEL, "--data", "t.jsonl", "--set", "data.sequence_length=32"]
        self.assert_refused(self.run_program("data", "show", *short), 65, "t.jsonl:1", "no token to train")
        for more in ([], ["--set", "data.too_long=error"]):
            result = self.run_program("data", "stats", *short, *more)
            self.assert_success(result)
            self.assertIn("2 used, 1 left out", result.out)


class Prepare(support.ProgramTest):
    def prepare(self, *more, ranks=0, **keywords):
        return self.run_program("data", "prepare", "configs/debug/tiny.yaml", *more, ranks=ranks, **keywords)

    def store(self):
        return next(path for path in (self.folder / "stores").iterdir() if path.is_dir())

    def losses(self, name):
        return [(line["step"], line["loss"], line["grad_norm"]) for line in self.metrics(name) if "loss" in line]

    def test_a_run_from_the_store_is_the_run_from_raw_files_to_the_bit(self):
        self.assert_success(self.prepare(ranks=2))
        self.assert_success(self.train("stored", "--set", "data.store=require"))
        self.assert_success(self.train("raw", "--set", "data.store=off"))
        self.assertEqual(self.losses("stored"), self.losses("raw"))
        self.assertGreater(len(self.losses("raw")), 10)

    def test_the_same_bytes_on_one_and_two_ranks_and_a_second_call_does_nothing(self):
        digests = []
        for ranks in (0, 2):
            self.assert_success(self.prepare("--to", f"s{ranks}", ranks=ranks))
            files = sorted(path for path in (self.folder / f"s{ranks}").rglob("*") if path.is_file() and path.suffix != ".lock")
            digests.append([(path.relative_to(self.folder / f"s{ranks}"), path.read_bytes()) for path in files])
        self.assertEqual(digests[0], digests[1])
        result = self.prepare("--to", "s2")
        self.assertIn("there and whole", result.out)

    def test_what_is_missing_or_damaged_is_said(self):
        self.assert_refused(self.train("none", "--set", "data.store=require"), 65, "data prepare")
        self.assert_success(self.prepare())
        part = self.store() / "part-00000.h5"
        data = bytearray(part.read_bytes())
        data[-5] ^= 1
        part.write_bytes(data)
        self.assert_refused(self.train("hurt"), 65, "part-00000.h5", "damaged")
        self.assert_success(self.prepare())
        self.assert_success(self.train("mended", "--set", "data.store=require", "--set", "train.steps=1"))
        self.assert_refused(self.prepare("--set", "data.text_windows=true"), 64, "text_windows is for raw text")

    def test_windows_of_raw_text_from_a_store_are_those_of_the_text(self):
        (self.folder / "prose.txt").write_text("\n\n".join(f"Chapter {i}. " + "Once upon a time. " * (i % 9) for i in range(200)))
        text = ["--set", "data.train=[prose.txt]", "--set", "data.eval=[]", "--set", "data.text_windows=true", "--set", "data.validation_fraction=0.1",
                "--set", "data.sequence_length=48"]
        self.assert_success(self.prepare(*text, ranks=2))
        self.assert_success(self.train("raw", *text, "--set", "data.store=off", "--set", "train.steps=6"))
        self.assert_success(self.train("stored", *text, "--set", "data.store=require", "--set", "train.steps=6"))
        self.assertEqual(self.losses("stored"), self.losses("raw"))
        self.assertEqual(len(self.losses("raw")), 6)

    def test_killed_work_goes_on(self):
        lines = "".join(chat("What is it? " + "long text " * 300 + str(i), f"It is {i}.") for i in range(12000))
        (self.folder / "big.jsonl").write_text(lines)
        command = ["data", "prepare", "--model", MODEL, "--data", "big.jsonl", "--threads", "1"]
        process = self.start_program(*command)
        stores = self.folder / "stores"
        self.assertTrue(support.wait_until(lambda: any(stores.glob("*.making/part-00000.json"))), "no part was made in time")
        support.kill_tree(process)
        process.stdout.close()
        process.stderr.close()
        done = {path.name: path.stat().st_mtime_ns for path in stores.glob("*.making/*.h5") if path.with_suffix(".json").exists()}
        self.assertFalse(any(stores.glob("*/manifest.json")), "it was quicker than the kill")
        result = self.run_program(*command)
        self.assert_success(result)
        kept = {path.name: path.stat().st_mtime_ns for path in self.store().glob("*.h5")}
        self.assertGreater(len(kept), len(done))
        for name, time_ns in done.items():
            self.assertEqual(kept[name], time_ns, "a finished part was made again")
        self.assertEqual(list(self.store().glob("*.tmp")), [])


class Peer(support.ProgramTest):
    """h5py reads the store as STORE.md says."""

    def test_h5py_reads_tokens_and_trained_stretches(self):
        python = os.environ.get("KAMERTON_PEER_PYTHON")
        if not python or subprocess.run([python, "-c", "import h5py"], capture_output=True).returncode != 0:
            self.skipTest("no Python with h5py (set KAMERTON_PEER_PYTHON)")
        self.assert_success(self.run_program("data", "prepare", "configs/debug/tiny.yaml"))
        folder = next(path for path in (self.folder / "stores").iterdir() if path.is_dir())
        script = (
            "import h5py, json, sys\n"
            "with h5py.File(sys.argv[1] + '/part-00000.h5') as part:\n"
            "    o, s, so = part['offsets'][:], part['spans'][:].reshape(-1, 2), part['span_offsets'][:]\n"
            "    print(json.dumps([part.attrs['format'].decode() if isinstance(part.attrs['format'], bytes) else part.attrs['format'],\n"
            "                      len(o) - 1, len(part['tokens']), int((s[:, 1] - s[:, 0]).sum()), int(so[-1])]))\n")
        done = subprocess.run([python, "-c", script, str(folder)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        part = json.loads((folder / "manifest.json").read_text())["parts"][0]
        self.assertEqual(json.loads(done.stdout), ["kamerton token store 1", part["records"], part["tokens"], part["targets"], part["spans"]])


class ManyFiles(support.ProgramTest):
    def test_a_folder_of_more_files_than_may_be_open_trains(self):
        (self.folder / "notes").mkdir()
        for i in range(300):
            (self.folder / f"notes/{i:04}.txt").write_text(f"Note {i}: the line was measured and is {i} metres long.\n")
        files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, files[1]))
        try:
            result = self.train("notes", "--set", "data.train=[notes]", "--set", "data.eval=[]", "--set", "train.steps=3")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
        self.assert_success(result)
        self.assertEqual(len(self.metrics("notes")), 3)


if __name__ == "__main__":
    support.main()
