# SPDX-License-Identifier: Apache-2.0
"""Reading the repository for the architecture tests: files, layers, includes, C++ text without comments."""

import pathlib
import re
import sys

CPP_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def cpp_files(root, folders=("include", "src", "tests", "benchmarks")):
    """The C++ files below the folders, as paths relative to the root, sorted."""
    files = []
    for folder in folders:
        for path in (root / folder).rglob("*"):
            if path.suffix in CPP_SUFFIXES and path.is_file():
                files.append(path.relative_to(root))
    return sorted(files)


def read(root, path):
    return (root / path).read_text(encoding="utf-8")


def layers(root):
    """Module -> the modules that it may use, in the order of layers.txt."""
    result = {}
    for line in read(root, "tests/arch/layers.txt").splitlines():
        match = re.match(r"([a-z]+) +->(.*)", line)
        if match:
            result[match.group(1)] = match.group(2).split()
    return result


def torch_free(root):
    """The modules that CMake builds without libtorch."""
    match = re.search(r"set\(KAMERTON_TORCH_FREE ([a-z ]+)\)", read(root, "CMakeLists.txt"))
    return match.group(1).split() if match else []


def module_of(path):
    """The module of a file of include/kamerton/<m>, src/<m>, tests/unit/<m> or tests/dist/<m>; None elsewhere."""
    parts = path.parts
    if parts[:2] == ("include", "kamerton") and len(parts) > 3:
        return parts[2]
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    if parts[0] == "tests" and parts[1] in ("unit", "dist") and len(parts) > 3:
        return parts[2]
    return None


def includes(text):
    """(line number, '<' or '"', name) of each include line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            found.append((number, match.group(1), match.group(2)))
    return found


_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'""",
    re.DOTALL)


def without_comments_and_strings(text):
    """The same text with comments, string and character literals blanked; line breaks stay, so line numbers hold."""
    def blank(match):
        token = match.group(0)
        keep = "\"\"" if token[0] in "\"R" else ""
        return keep + "\n" * token.count("\n")

    return _TOKEN.sub(blank, text)


def report(name, faults):
    """Prints the faults; returns the exit code."""
    for fault in faults:
        print(fault)
    print(f"{name}: {len(faults)} fault(s)")
    return 1 if faults else 0


def root_from_arguments():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} <repository root>")
    return pathlib.Path(sys.argv[1]).resolve()
