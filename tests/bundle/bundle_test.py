#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A bundle must run where nothing of this machine's build is: bundle_test.py WORK_FOLDER LIBTORCH."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("KAMERTON_PROGRAM") or str(ROOT / "build/kamerton")
WORK, LIBTORCH = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]

# Runs "$@" with this machine's Open MPI, PMIx and build folders covered, in a mount namespace of its own.
HIDE = """
for folder in /usr/lib/*/openmpi /usr/lib/*/pmix2 /usr/share/openmpi "$BUILD"; do [ -d "$folder" ] && mount -t tmpfs none "$folder"; done
for file in /usr/lib/*/libmpi.so.40.* /usr/lib/*/libopen-*.so.40.* /usr/bin/orterun /usr/bin/orted; do
  [ -f "$file" ] && mount --bind /dev/null "$file"
done
exec "$@"
"""


def can_hide():
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and shutil.which("unshare") and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0


class BundleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        made = WORK / "kamerton"
        done = subprocess.run([str(ROOT / "launch/bundle"), "--to", str(made), "--program", PROGRAM], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stdout.decode())
        cls.elsewhere = pathlib.Path(tempfile.mkdtemp(prefix="kamerton-bundle-"))
        cls.addClassCleanup(shutil.rmtree, str(cls.elsewhere), True)
        cls.bundle = cls.elsewhere / "moved"
        shutil.move(str(made), str(cls.bundle))

    def run_clean(self, *words, hide=False, **variables):
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KAMERTON_LIBTORCH": LIBTORCH, **variables}
        command = [str(w) for w in words]
        if hide and can_hide():
            # The build's own folder is covered, unless libtorch or the bundle is kept in there.
            inside = any(str(p).startswith(str(ROOT / "build")) for p in (LIBTORCH, self.bundle))
            environment["BUILD"] = "" if inside else str(ROOT / "build")
            command = ["unshare", "--mount", "bash", "-c", HIDE, "hide", *command]
        done = subprocess.run(command, cwd=str(self.bundle), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=200)  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def elf_files(self):
        return [f for f in self.bundle.rglob("*") if f.is_file() and f.read_bytes()[:4] == b"\x7fELF"]

    def test_is_small_and_names_no_folder_of_this_machine(self):
        self.assertLess(sum(f.stat().st_size for f in self.bundle.rglob("*") if f.is_file()), 60 * 2**20)
        self.assertFalse([f for f in self.elf_files() if "libtorch" in f.name])
        for file in self.elf_files():
            dynamic = subprocess.run(["readelf", "-d", str(file)], stdout=subprocess.PIPE, check=True).stdout.decode()
            for path in re.findall(r"R(?:UN)?PATH\).*\[(.*)\]", dynamic):
                self.assertTrue(all(p in ("", "$ORIGIN") or p.startswith("$ORIGIN/") for p in path.split(":")), (file, path))

    def test_program_starts_from_another_folder(self):
        code, out, err = self.run_clean(self.bundle / "kamerton", "version", hide=True)
        self.assertEqual(code, 0, err)
        self.assertIn("kamerton", out.lower())

    def test_doctor_finds_all_that_it_needs(self):
        code, out, err = self.run_clean(self.bundle / "kamerton", "doctor", hide=True)
        self.assertEqual(code, 0, out + err)

    def test_two_ranks_train_under_the_bundled_mpirun(self):
        runs = self.elsewhere / "runs"
        code, _, err = self.run_clean("launch/kamerton-run", "-n", "2", "train", "configs/debug/tiny.yaml", "--set",
                                      "output=%s" % runs, "--set", "train.steps=3", hide=True)  # fmt: skip
        self.assertEqual(code, 0, err)
        lines = [json.loads(line) for line in (runs / "tiny/metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines], [1, 2, 3])

    def test_without_libtorch_it_says_what_to_do(self):
        code, _, err = self.run_clean(self.bundle / "kamerton", "version", KAMERTON_LIBTORCH="/nonexistent")
        self.assertEqual(code, 64)
        self.assertIn("KAMERTON_LIBTORCH", err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
