#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/support/count_results.py: the last line of tests/run must be honest."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "support/count_results.py"


def entry(name, status="run", output="", child=""):
    return f'<testcase name="{name}" status="{status}">{child}<system-out>{output}</system-out></testcase>'


def gtest(ran, passed, skipped=0, failed=0):
    lines = [f"[==========] {ran} tests from 2 test suites ran. (5 ms total)", f"[  PASSED  ] {passed} tests."]
    lines += [f"[  SKIPPED ] {skipped} test{'s' * (skipped > 1)}, listed below:"] * (skipped > 0)
    lines += [f"[  FAILED  ] {failed} test{'s' * (failed > 1)}, listed below:"] * (failed > 0)
    return "\n".join(lines) + "\n"


def count(*entries):
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write("<testsuite>" + "".join(entries) + "</testsuite>")
        file.flush()
        done = subprocess.run([sys.executable, "-B", str(SCRIPT), file.name], stdout=subprocess.PIPE, universal_newlines=True)
    return done.stdout.strip().splitlines()[-1], done.returncode


class Counting(unittest.TestCase):
    def test_sums_cases_of_programs_and_plain_tests(self):
        self.assertEqual(count(entry("a", output=gtest(7, 7)), entry("script")), ("8 passed, 0 failed", 0))

    def test_skips_are_reported_and_are_no_failure(self):
        skip = entry("s", "notrun", child='<skipped message="SKIP_RETURN_CODE=77"/>')
        self.assertEqual(count(entry("a", output=gtest(7, 5, skipped=2)), skip), ("5 passed, 0 failed, 3 skipped", 0))

    def test_one_failed_case_fails_the_run(self):
        bad = entry("a", "fail", gtest(7, 6, failed=1), "<failure/>")
        self.assertEqual(count(bad), ("6 passed, 1 failed", 1))

    def test_a_program_that_fails_after_its_cases_passed_counts_as_a_failure(self):
        self.assertEqual(count(entry("a", "fail", gtest(7, 7), "<failure/>")), ("7 passed, 1 failed", 1))

    def test_a_crash_a_missing_program_and_no_test_at_all_are_failures(self):
        missing = entry("m", "notrun", child='<skipped message="Unable to find executable"/>')
        self.assertEqual(count(entry("crash", "fail", "segfault", "<failure/>"), missing), ("0 passed, 2 failed", 1))
        self.assertEqual(count(), ("0 passed, 0 failed", 1))

    def test_several_ranks_count_once_and_the_worst_counts(self):
        both = gtest(4, 4) + gtest(4, 3, failed=1)
        self.assertEqual(count(entry("d", "fail", both, "<failure/>")), ("3 passed, 1 failed", 1))

    def test_cases_of_a_unittest_script_count_each(self):
        ran = lambda text: "...\n----\n" + text + "\n"
        passed = entry("p", output=ran("Ran 7 tests in 70.363s\n\nOK"))
        skipped = entry("s", output=ran("Ran 3 tests in 0.010s\n\nOK (skipped=2)"))
        whole = entry("w", output=ran("Ran 0 tests in 0.000s\n\nOK (skipped=1)"))
        bad = entry("b", "fail", ran("Ran 5 tests in 1.000s\n\nFAILED (failures=1, errors=1, skipped=1)"), "<failure/>")
        self.assertEqual(count(passed, skipped, whole), ("8 passed, 0 failed, 3 skipped", 0))
        self.assertEqual(count(bad), ("2 passed, 2 failed, 1 skipped", 1))


if __name__ == "__main__":
    unittest.main(verbosity=1)
