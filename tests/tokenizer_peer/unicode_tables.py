# SPDX-License-Identifier: Apache-2.0
"""Writes src/text/unicode_tables.cpp: where the Unicode versions inside the Hugging Face `tokenizers` library (each of its parts has one of
its own) differ from utf8proc's and PCRE2's. Needs Python's tokenizers and regex: python unicode_tables.py > src/text/unicode_tables.cpp"""
import sys
import unicodedata

import regex
from tokenizers import Regex, normalizers, pre_tokenizers

ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BIG = "".join(chr(c) for c in ALL)
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()


def left_over(pre_tokenizer):
    """The characters that a removing pre-tokenizer leaves."""
    out = set()
    for _, (begin, end) in pre_tokenizer.pre_tokenize_str(BIG):
        out.update(ALL[begin:end])
    return out


def onig(pattern):
    return set(ALL) - left_over(pre_tokenizers.Split(Regex(pattern), "removed"))


def newest(category):
    return {ALL[m.start()] for m in regex.finditer(r"\p{%s}" % category, BIG)}


def ranges(values):
    """Sorted {code point: value} as [first, last, value] runs."""
    out = []
    for c in sorted(values):
        if out and out[-1][1] == c - 1 and out[-1][2] == values[c]:
            out[-1][1] = c
        else:
            out.append([c, c, values[c]])
    return out


def table(name, kind, values, show):
    print(f"const {kind} {name}[] = {{")
    line = "   "
    for first, last, value in ranges(values):
        item = " {" + f"0x{first:X}, 0x{last:X}" + show(value) + "},"
        if len(line) + len(item) > 98:
            print(line)
            line = "   "
        line += item
    print(line + "};")
    print(f"const size_t {name}Size = std::size({name});\n")


def main():
    by_category = {c: name for name in CATEGORIES for c in newest(name)}
    assigned = set(ALL) - onig(r"\p{Cn}")
    newer = {c: by_category[c] for c in assigned if unicodedata.category(chr(c)) == "Cn" and c in by_category}
    changed = {}
    for name in ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd", "Nl", "No", "Po", "So"):
        for c in onig(r"\p{%s}" % name):
            if unicodedata.category(chr(c)) not in (name, "Cn"):
                changed[c] = name
    older = {}
    punctuation = set(ALL) - left_over(pre_tokenizers.Punctuation("removed"))
    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    accents = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    marks = normalizers.StripAccents()
    for c, category in by_category.items():
        flags = []
        if c in punctuation and category[0] != "P" and c > 0x7F:
            flags.append("kBertPunct")
        if category[0] == "P" and c not in punctuation:
            flags.append("-kBertPunct")
        if category in ("Cc", "Cf", "Co") and clean.normalize_str("a" + chr(c)) != "a" and chr(c) not in "\t\n\r":
            flags.append("-kControl")
        if category != "Mn" and accents.normalize_str("a" + chr(c)) == "a":
            flags.append("kNonspacing")  # it was one in the version that this part has
        if category[0] != "M" and marks.normalize_str("a" + chr(c)) == "a":
            flags.append("kAccent")
        if category[0] == "M":
            if category == "Mn" and accents.normalize_str("a" + chr(c)) != unicodedata.normalize("NFD", "a") and len(accents.normalize_str("a" + chr(c))) > 1:
                flags.append("-kNonspacing")
            if len(marks.normalize_str("a" + chr(c))) > 1:
                flags.append("-kAccent")
        if flags:
            older[c] = ", " + " | ".join(f[1:] for f in flags if f[0] == "-") if any(f[0] == "-" for f in flags) else ", 0"
            older[c] += ", " + (" | ".join(f for f in flags if f[0] != "-") or "0")
    lower = {}
    down = normalizers.Lowercase()
    for c in ALL:
        if unicodedata.category(chr(c)) == "Cn" or by_category.get(c) == "Lu":
            got = down.normalize_str(chr(c))
            if got != chr(c).lower() and len(got) == 1:
                lower[c] = ord(got) - c
    for name in ("NFC", "NFD"):
        form = getattr(normalizers, name)()
        for c in ALL:
            text = "a\u0345" + chr(c)  # U+0345 has the highest class: any mark the library knows goes before it
            if unicodedata.combining(chr(c)) not in (0, 240) and form.normalize_str(text) == text:
                unordered.add(c)
    print("// SPDX-License-Identifier: Apache-2.0\n// Written by tests/tokenizer_peer/unicode_tables.py.\n#include \"unicode_tables.h\"\n\n#include <iterator>\n\n#include <utf8proc.h>\n\n#include \"unicode.h\"\n")
    print("namespace kamerton::text {\n")
    table("kNewer", "NewerRange", {**changed, **newer}, lambda v: f", UTF8PROC_CATEGORY_{v.upper()}")
    table("kOlder", "OlderRange", older, lambda v: v)
    table("kLowerCase", "LowerRange", lower, lambda v: f", {v}")
    table("kUnordered", "FormRange", {c: 0 for c in unordered}, lambda v: "")
    whole = normalizers.NFKD()
    undecomposed = {c: 0 for c in ALL if unicodedata.decomposition(chr(c)) and whole.normalize_str(chr(c)) == chr(c)}
    table("kUndecomposed", "FormRange", undecomposed, lambda v: "")
    print("}  // namespace kamerton::text")


unordered = set()
main()
