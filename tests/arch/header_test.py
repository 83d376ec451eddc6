# SPDX-License-Identifier: Apache-2.0
"""Public headers include what they use. The compiler proves it too (CMakeLists.txt beside this file), but headers that see
libtorch are compiled with the shared precompiled header, which would hide a missing include."""

import re
import sys

import source_tree as tree

PROVIDERS = [
    (r"\bstd::vector\b", {"vector"}),
    (r"\bstd::string\b", {"string"}),
    (r"\bstd::string_view\b", {"string_view", "string"}),
    (r"\bstd::optional\b", {"optional"}),
    (r"\bstd::function\b", {"functional"}),
    (r"\bstd::(unique_ptr|shared_ptr|weak_ptr)\b", {"memory"}),
    (r"\bstd::array\b", {"array"}),
    (r"\bstd::span\b", {"span"}),
    (r"\bstd::map\b", {"map"}),
    (r"\bstd::unordered_map\b", {"unordered_map"}),
    (r"\bstd::(unordered_)?set\b", {"set", "unordered_set"}),
    (r"\bstd::deque\b", {"deque"}),
    (r"\bstd::variant\b", {"variant"}),
    (r"\bstd::atomic\b", {"atomic"}),
    (r"\bstd::mutex\b", {"mutex"}),
    (r"\bstd::thread\b", {"thread"}),
    (r"\bstd::filesystem\b", {"filesystem"}),
    (r"\bu?int(8|16|32|64)_t\b", {"cstdint"}),
    (r"\b(at|torch|c10)::\w", {"ATen", "torch", "c10"}),
]


def reachable_includes(root, path, seen=None):
    """Names of angle includes, also through kamerton headers; libtorch's by their first folder."""
    seen = set() if seen is None else seen
    names = set()
    if path in seen:
        return names
    seen.add(path)
    for _, bracket, name in tree.includes(tree.read(root, path)):
        if bracket == "<":
            names.add(name.split("/")[0])
        elif name.startswith("kamerton/") and (root / "include" / name).exists():
            names |= reachable_includes(root, "include/" + name, seen)
    return names


def faults_of(root):
    faults = []
    for path in tree.cpp_files(root, ("include",)):
        available = reachable_includes(root, path.as_posix())
        code = tree.without_comments_and_strings(tree.read(root, path))
        for pattern, providers in PROVIDERS:
            match = re.search(pattern, code)
            if match and not (providers & available):
                faults.append(f"{path}: uses {match.group(0)} without including <{sorted(providers)[0]}>")
    return faults


if __name__ == "__main__":
    sys.exit(tree.report("headers", faults_of(tree.root_from_arguments())))
