# SPDX-License-Identifier: Apache-2.0
"""What must not be left in the text: marks of unfinished work, switched-off tests, missing licence lines, and calls that
a library may not make."""

import re
import sys

import source_tree as tree

LICENCE = "SPDX-License-Identifier: Apache-2.0"
FOLDERS = ("include", "src", "tests", "benchmarks", "launch", "configs", "cluster")
TEXT_SUFFIXES = tree.CPP_SUFFIXES | {".py", ".sh", ".txt", ".md", ".yaml", ".cmake", ""}
# Written in pieces, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" "DO", "FIX" "ME", "X" "XX", "HA" "CK"]) + r")\b|\bDIS" r"ABLED_")
# Pattern in product code -> why not. Comments and strings are not searched.
FORBIDDEN = [
    (re.compile(r"\bmt19937|\brandom_device\b|(?<![\w.>:])s?rand\s*\("), "random numbers come from kamerton/core/random.h"),
    (re.compile(r"(?<![\w.>])(std::)?(quick_exit|_Exit|_exit|exit|terminate)\s*\("), "a library throws core::Error"),
]
MAY_EXIT = ("src/comm/", "src/main.cpp")


def text_files(root):
    files = [p for p in (root / "CMakeLists.txt", root / "README.md", root / "CONTRIBUTING.md") if p.exists()]
    for folder in FOLDERS:
        files += [p for p in (root / folder).rglob("*") if p.is_file() and p.suffix in TEXT_SUFFIXES]
    return sorted(p.relative_to(root) for p in files if "__pycache__" not in p.parts)


def check_product_code(path, text):
    faults = []
    code = tree.without_comments_and_strings(text)
    for number, line in enumerate(code.splitlines(), 1):
        for pattern, why in FORBIDDEN:
            if pattern.search(line) and not (why.startswith("a library") and path.as_posix().startswith(MAY_EXIT)):
                faults.append(f"{path}:{number}: {line.strip()[:80]}: {why}")
        if path.suffix == ".h" and re.match(r"\s*using namespace\b", line):
            faults.append(f"{path}:{number}: no 'using namespace' in a header")
    return faults


def check_cpp(path, text):
    faults = []
    if LICENCE not in text.split("\n", 1)[0]:
        faults.append(f"{path}:1: the first line must be '// {LICENCE}'")
    if path.suffix in (".h", ".cuh") and "#pragma once" not in text:
        faults.append(f"{path}: '#pragma once' is missing")
    if path.parts[0] in ("include", "src"):
        faults += check_product_code(path, text)
    return faults


def faults_of(root):
    faults = []
    for path in text_files(root):
        try:
            text = tree.read(root, path)
        except UnicodeDecodeError:
            continue  # a binary fixture
        for number, line in enumerate(text.splitlines(), 1):
            match = UNFINISHED.search(line)
            if match:
                faults.append(f"{path}:{number}: '{match.group(0)}' marks unfinished work")
        if path.suffix in tree.CPP_SUFFIXES:
            faults += check_cpp(path, text)
    return faults


if __name__ == "__main__":
    sys.exit(tree.report("text", faults_of(tree.root_from_arguments())))
