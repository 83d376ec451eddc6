#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts single tests in the JUnit file that ctest wrote; the last line is `N passed, N failed[, N skipped]`.

ctest knows programs only. A GoogleTest program and a script of Python's unittest print how many of their cases passed,
failed and were skipped, so these are read from the output. Under mpirun several ranks may print a summary: the entry
counts once, by the summary with most failures and then most cases. An entry without a summary (a plain script, a crashed
program) counts as one test by its exit status.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree

RAN = re.compile(r"^\[=+\] (\d+) tests? from \d+ test (?:suites?|cases?) ran\.", re.M)
PASSED = re.compile(r"^\[  PASSED  \] (\d+) tests?\.", re.M)
FAILED = re.compile(r"^\[  FAILED  \] (\d+) tests?, listed below:", re.M)
SKIPPED = re.compile(r"^\[  SKIPPED \] (\d+) tests?, listed below:", re.M)
UNITTEST = re.compile(r"^Ran (\d+) tests? in [\d.]+s\n\n(?:OK|FAILED|NO TESTS RAN)(?: \((.*)\))?$", re.M)


def unittest_summaries(output):
    """Yields (failed, passed, skipped) for each summary of unittest in `output`."""
    for match in UNITTEST.finditer(output):
        parts = dict(part.split("=") for part in (match.group(2) or "").split(", ") if "=" in part)
        numbers = {name: int(number) for name, number in parts.items()}
        failed = numbers.get("failures", 0) + numbers.get("errors", 0) + numbers.get("unexpected successes", 0)
        skipped = numbers.get("skipped", 0)
        # A part of a test (subTest) fails by itself, and a class that is skipped whole is not among those that ran.
        yield failed, max(0, int(match.group(1)) - failed - skipped), skipped


def summaries(output):
    """Yields (failed, passed, skipped) for each summary in `output`."""
    yield from unittest_summaries(output)
    starts = [match.start() for match in RAN.finditer(output)]
    for start, end in zip(starts, starts[1:] + [len(output)]):
        part = output[start:end]
        numbers = [pattern.search(part) for pattern in (FAILED, PASSED, SKIPPED)]
        yield tuple(int(number.group(1)) if number else 0 for number in numbers)


def count(entry):
    """Returns (passed, failed, skipped) of one ctest entry."""
    status = entry.get("status")
    if status in ("notrun", "disabled") or entry.find("skipped") is not None:
        # ctest reports a program that could not be started as "notrun" too: that is a failure, not a skip.
        reason = entry.find("skipped")
        skipped = reason is not None and "SKIP" in (reason.get("message") or "")
        return (0, 0, 1) if skipped or status == "disabled" else (0, 1, 0)
    output = entry.findtext("system-out") or ""
    found = max(summaries(output), default=None, key=lambda s: (s[0], sum(s)))
    entry_failed = status == "fail" or entry.find("failure") is not None
    if found is None:
        return (0, 1, 0) if entry_failed else (1, 0, 0)
    failed, passed, skipped = found
    if entry_failed and failed == 0:  # it failed after its cases passed: at exit, by a time limit, or on another rank
        failed = 1
    return passed, failed, skipped


def main(path):
    entries = list(ElementTree.parse(path).getroot().iter("testcase"))
    totals = [0, 0, 0]
    bad = []
    for entry in entries:
        numbers = count(entry)
        totals = [total + number for total, number in zip(totals, numbers)]
        if numbers[1]:
            bad.append(entry.get("name"))
    if bad:
        print("failed: " + " ".join(sorted(bad)))
    passed, failed, skipped = totals
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not entries else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
