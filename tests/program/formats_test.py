# SPDX-License-Identifier: Apache-2.0
"""The same training data in every form that people have it in: the same losses, or one clear error."""
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys

import support

CONFIG, DATA, IO = 64, 65, 74
ARROW = support.SOURCE / ".deps/arrow"
RECORDS = [{"prompt": f"{a} plus {b} is", "completion": f" {a + b}, of course"} for a in range(6) for b in range(6)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


def csv_of(records, delimiter=","):
    quoted = [['"' + value.replace('"', '""') + '"' for value in record.values()] for record in records]
    return "\r\n".join(delimiter.join(row) for row in [list(records[0])] + quoted) + "\r\n"


class Formats(support.ProgramTest):
    def losses(self, name, files, *more, ranks=0):
        values = ",".join(str(file) for file in files)
        result = self.train(name, "--set", f"data.train=[{values}]", "--set", "train.steps=3", "--set", "data.index_dir=index", *more, ranks=ranks)
        self.assert_success(result)
        return [row["loss"] for row in self.metrics(name)]

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def test_every_form_gives_the_same_losses(self):
        plain = self.losses("jsonl", [self.write("a.jsonl", LINES)])
        forms = {"json": self.write("a.json", json.dumps(RECORDS)),
                 "gz": self.write("b.jsonl.gz", gzip.compress(LINES.encode())),
                 "csv": self.write("c.csv", csv_of(RECORDS)),
                 "tsv": self.write("d.tsv", csv_of(RECORDS, "\t")),
                 "csv_gz": self.write("e.csv.gz", gzip.compress(csv_of(RECORDS).encode()))}
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-q", "a.jsonl", "-o", "f.jsonl.zst"], cwd=self.folder, check=True)
            forms["zst"] = "f.jsonl.zst"
        for name, file in forms.items():
            with self.subTest(name):
                self.assertEqual(self.losses(name, [file]), plain)
        renamed = self.write("g.csv", csv_of([{"question": r["prompt"], "answer": r["completion"]} for r in RECORDS]))
        self.assertEqual(self.losses("columns", [renamed], "--set", "data.columns={prompt: question, completion: answer}"), plain)
        self.write("many/part-1.jsonl", LINES[:len(LINES) // 2].rsplit("\n", 1)[0] + "\n")
        first = (self.folder / "many/part-1.jsonl").read_text()
        self.write("many/deep/part-2.jsonl", LINES[len(first):])
        # A folder's files come sorted by name: many/deep/... before many/part-1.
        swapped = self.write("h.jsonl", LINES[len(first):] + first)
        self.assertEqual(self.losses("folder", ["many"]), self.losses("swapped", [swapped]))
        self.assertEqual(self.losses("pattern", ["'many/**/*.jsonl'"]), self.losses("swapped2", [swapped]))

    def test_parquet_and_arrow(self):
        script = ("import sys, json, pyarrow as pa, pyarrow.parquet as pq\n"
                  "table = pa.Table.from_pylist([json.loads(line) for line in open('a.jsonl')])\n"
                  "pq.write_table(table, 'b.parquet')\n"
                  "with pa.OSFile('c.arrow', 'wb') as f, pa.ipc.new_stream(f, table.schema) as w: w.write_table(table)\n"
                  "with pa.OSFile('d.feather', 'wb') as f, pa.ipc.new_file(f, table.schema) as w: w.write_table(table)\n")
        self.write("a.jsonl", LINES)
        made = subprocess.run([sys.executable, "-c", script], cwd=self.folder, capture_output=True, text=True,
                              env={**self.environment(), "PYTHONPATH": str(ARROW)})
        if made.returncode != 0:
            self.skipTest("pyarrow is not there (launch/setup --arrow)")
        if not (pathlib.Path(support.PROGRAM).resolve().parent / "libkamerton_arrow.so").exists():
            self.assert_refused(self.train("x", "--set", "data.train=[b.parquet]"), CONFIG, "b.parquet", "launch/setup --arrow")
            return
        plain = self.losses("jsonl", ["a.jsonl"])
        for name in ("b.parquet", "c.arrow", "d.feather"):
            with self.subTest(name):
                self.assertEqual(self.losses(name.replace(".", "_"), [name]), plain)
        whole = (self.folder / "b.parquet").read_bytes()
        self.write("cut.parquet", whole[:len(whole) // 2])
        self.assert_refused(self.train("cut", "--set", "data.train=[cut.parquet]"), DATA, "cut.parquet")

    def test_packing_strategies_and_groups_are_the_same_on_one_and_two_ranks(self):
        self.write("a.jsonl", LINES)
        for strategy in ("bfd", "bfd_split", "wrapped", "group"):
            more = ["--set", "data.group_by_length=true"] if strategy == "group" else \
                ["--set", "data.packing=true", "--set", f"data.packing_strategy={strategy}"]
            with self.subTest(strategy):
                one = self.losses(f"{strategy}1", ["a.jsonl"], *more)
                two = self.losses(f"{strategy}2", ["a.jsonl"], *more, ranks=2)
                for a, b in zip(one, two):
                    self.assertAlmostEqual(a, b, delta=2e-5)

    def test_a_mixture_with_a_held_out_share_states_what_it_does(self):
        self.write("a.jsonl", LINES)
        self.write("words.txt", "\n\n".join(f"word {i}" for i in range(50)))
        result = self.train("mix", "--set", "data.train=[]",
                            "--set", "data.sources=[{files: [a.jsonl], weight: 3, name: sums}, {files: [words.txt], weight: 1, max_examples: 20}]",
                            "--set", "data.validation_fraction=0.2", "--set", "train.steps=3", "--set", "train.eval_every=3")
        self.assert_success(result)
        self.assertIn("source sums", result.out + result.err)
        self.assertIn("% of an epoch", result.out + result.err)

    def test_preferences_are_shown_and_not_trained(self):
        self.write("p.jsonl", "".join(json.dumps({"prompt": r["prompt"], "chosen": r["completion"], "rejected": " no"}) + "\n" for r in RECORDS))
        shown = self.run_program("data", "show", "configs/debug/tiny.yaml", "--data", "p.jsonl", "--count", "1")
        self.assert_success(shown)
        self.assertIn("chosen: ", shown.out)
        self.assertIn("rejected: ", shown.out)
        self.assert_refused(self.train("p", "--set", "data.train=[p.jsonl]"), CONFIG, "layout preference", "completion: chosen")


class BadFormats(support.ProgramTest):
    def refused(self, name, content, code, *words, more=()):
        (self.folder / name).write_bytes(content)
        result = self.train("x", "--set", f"data.train=[{name}]", "--set", "data.index_dir=index", *more)
        self.assert_refused(result, code, name, *words)
        self.assertFalse((self.folder / "runs").exists())
        self.assertEqual([path.name for path in (self.folder / "index").glob("*.part")], [])

    def test_cut_and_damaged_streams(self):
        packed = gzip.compress(LINES.encode())
        self.refused("cut.jsonl.gz", packed[:-9], DATA, "ends in the middle", f"byte {len(packed) - 9}")
        self.refused("bad.jsonl.gz", packed[:60] + b"\xff" * 20 + packed[80:], DATA, "damaged at byte")
        self.refused("page.jsonl.gz", b"<html>404</html>", DATA, "not what its name says")

    def test_bombs(self):
        bomb = gzip.compress(b" " * (200 << 20))
        self.refused("bomb.jsonl.gz", bomb, DATA, "grows too large", "data.max_expansion")

    def test_rows_of_another_width_name_their_line(self):
        self.refused("rows.csv", b'prompt,completion\n"a\nb",c\nonly\n', DATA, "rows.csv:4", "1 columns under a header of 2")
        self.refused("quote.csv", b'prompt,completion\na,"b\nc,d\n', DATA, "quote.csv:2", "never closed")

    def test_columns_that_are_not_there(self):
        self.refused("c.csv", b"q,a\n1,2\n", DATA, "no known layout", "'q', 'a'")
        self.refused("d.csv", b"q,a\n1,2\n", DATA, "'question' is missing", more=["--set", "data.columns={prompt: question, completion: a}"])

    def test_a_column_of_no_layout(self):
        result = self.train("x", "--set", "data.columns.promt=q")
        self.assert_refused(result, CONFIG, "promt", "prompt")

    def test_a_pattern_that_matches_nothing_says_what_is_near(self):
        (self.folder / "train.jsonl").write_text(LINES)
        result = self.train("x", "--set", "data.train=['tarin*.jsonl']")
        self.assert_refused(result, DATA, "tarin*.jsonl", "no file matches", "train.jsonl")

    def test_a_disk_that_is_full_while_unpacking(self):
        if self.make_small_disk():
            result = self.train("x", "--set", "data.train=[big.jsonl.gz]", "--set", "data.index_dir=small")
            self.assert_refused(result, IO, "small")
            self.assertEqual([path.name for path in (self.folder / "small").glob("*.p*")], [])

    def make_small_disk(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small file system needs root")
        (self.folder / "small").mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.folder / "small"], capture_output=True).returncode != 0:
            self.skipTest("no file system can be mounted here")
        self.addCleanup(subprocess.run, ["umount", self.folder / "small"])
        (self.folder / "big.jsonl.gz").write_bytes(gzip.compress(LINES.encode() * 2000))
        return True


if __name__ == "__main__":
    support.main()
