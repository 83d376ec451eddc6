# SPDX-License-Identifier: Apache-2.0
"""Files and functions keep to their size: a loop that nobody budgets triples."""

import re
import sys

import source_tree as tree

FILE_LINES = 500
FUNCTION_LINES = 60
TIGHTER = {"src/main.cpp": 40, "src/train/loop.cpp": 150, "src/train/step.cpp": 120}
EXEMPT_LIST = "tests/arch/budget_exempt.txt"


def exemptions(root):
    """path -> reason; each line is 'path: reason'. For tables of constants only."""
    result = {}
    for line in tree.read(root, EXEMPT_LIST).splitlines():
        if line.strip() and not line.startswith("#"):
            path, _, reason = line.partition(":")
            result[path.strip()] = reason.strip()
    return result


def _strip_balanced(head, opener):
    """The head without 'template <...>' or 'alignas(...)' groups that start at `opener`."""
    while True:
        match = re.search(opener, head)
        if match is None:
            return head
        start, close = match.end() - 1, {"<": ">", "(": ")"}[head[match.end() - 1]]
        depth, end = 0, start
        while end < len(head):
            depth += (head[end] == head[start]) - (head[end] == close)
            end += 1
            if depth == 0:
                break
        head = head[:match.start()] + head[end:]


def kind_of_block(head):
    """'scope' (look inside), 'function' (measure) or 'other' (skip) for the text before a brace."""
    head = _strip_balanced(_strip_balanced(head, r"\btemplate\s*<"), r"\b(alignas|__attribute__)\s*\(")
    head = re.sub(r"\[\[.*?\]\]", "", head).strip()
    if re.match(r"(inline\s+)?namespace\b|extern\b\s*\"\"$", head):
        return "scope"
    if re.search(r"\b(class|struct|union)\b", head) and "(" not in head:
        return "scope"
    in_initializer_list = re.search(r"\)\s*(noexcept\s*)?:(?!:)", head) and re.search(r"[\w>]$", head)
    if head.endswith("=") or "(" not in head or in_initializer_list:
        return "other"
    return "function"


def functions(text):
    """(first line, last line, head) of each function, found by matching braces outside of comments and strings."""
    code = tree.without_comments_and_strings(text)
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m.group(0).count("\n"), code, flags=re.MULTILINE)
    found, open_blocks, head_start, parens, line = [], [], 0, 0, 1
    for at, char in enumerate(code):
        if char == "\n":
            line += 1
        inside = any(kind != "scope" for kind, *_ in open_blocks)
        if not inside and char in "()":
            parens += 1 if char == "(" else -1
        if char == "{":
            head = code[head_start:at]
            kind = "other" if parens > 0 or inside else kind_of_block(head)
            first = line - head.lstrip().count("\n")
            open_blocks.append((kind, first, " ".join(head.split()), head_start))
        elif char == "}" and open_blocks:
            kind, first, head, start = open_blocks.pop()
            if kind == "function":
                found.append((first, line, head))
            if kind == "other":  # a braced value: the head goes on behind it
                head_start = start
                continue
        if char in "{};" and parens == 0 and not (char == ";" and inside):
            head_start = at + 1
    return found


def faults_of(root):
    exempt = exemptions(root)
    faults = [f"{EXEMPT_LIST}: {path}: no such file" for path in exempt if not (root / path).exists()]
    faults += [f"{EXEMPT_LIST}: {path}: no reason given" for path, reason in exempt.items() if not reason]
    for path in tree.cpp_files(root):
        name = path.as_posix()
        if name in exempt:
            continue
        text = tree.read(root, path)
        limit = TIGHTER.get(name, FILE_LINES)
        lines = len(text.splitlines())
        if lines > limit:
            faults.append(f"{name}: {lines} lines, allowed {limit}")
        for first, last, head in functions(text):
            if last - first + 1 > FUNCTION_LINES:
                faults.append(f"{name}:{first}: {last - first + 1} lines, allowed {FUNCTION_LINES}: {head[:100]}")
    return faults


if __name__ == "__main__":
    sys.exit(tree.report("budget", faults_of(tree.root_from_arguments())))
