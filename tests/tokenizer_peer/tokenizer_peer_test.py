# SPDX-License-Identifier: Apache-2.0
"""Ids, offsets and decoded text equal to the Hugging Face `tokenizers` library, tiktoken, sentencepiece and transformers on random
Unicode strings and on mixed text. Runs itself again under KAMERTON_PEER_PYTHON, which has these libraries; skips without it."""
import base64
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

PEER = os.environ.get("KAMERTON_PEER_PYTHON", "")
SHARED = pathlib.Path(os.environ.get("KAMERTON_SHARED", "/nonexistent"))
DRIVER = os.environ.get("KAMERTON_TOKENIZER_DRIVER", "")
CASES = int(os.environ.get("KAMERTON_FUZZ_CASES", "2000"))
SEED = int(os.environ.get("KAMERTON_FUZZ_SEED", "1"))
FIXTURES = SHARED / "fixtures" / "tokenizers"
NAMES = ["gpt2_style", "gpt2_prefix_space", "llama3_style", "qwen2_style", "o200k_style", "sentencepiece_legacy", "sentencepiece_metaspace",
         "gemma_style", "wordpiece", "unigram", "unigram_byte_fallback", "added_tokens", "stories260K", "stories260K_chatml"]

if PEER and not os.environ.get("KAMERTON_PEER_INSIDE"):  # its interpreter may be a link to this one: a virtual environment
    sys.exit(subprocess.run([PEER, "-B", *sys.argv], env={**os.environ, "KAMERTON_PEER_INSIDE": "1"}).returncode)
if not PEER or not FIXTURES.exists() or not DRIVER:
    print("skipped: KAMERTON_PEER_PYTHON, KAMERTON_SHARED and KAMERTON_TOKENIZER_DRIVER are needed")
    sys.exit(77)

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402

POOL = ("abcdefgh ABCDE 0123456789 .,!?'\"\n\t\r -_/\\<>|@#&()[]{}" "\u00e9\u00df\u0130\u017f\u0301\u0323\u00a0\u2003\u3000\u200b\u200d\ufeff\u2028\u0085"
        "\u4f60\u597d\u304b\u3099\u30ac\uff21\uff76\uac00\u1100\u1161\u11a8\u0915\u094d\u0937\u0e2a\u0e31\u05d0\u05b8\u0627\u064e\u0391\u03c2\u0416"
        "\u2581\u0120\ufb01\u00bd\u2167\u0663\u2126\u212b\u01c5\u1e9e\u24b6\u2460\u3220\U0001F600\U0001F3FD\u2764\ufe0f\U0001F1F5\U00020000\U0001D400\x00\x1b\xad")
WORDS = ["<s>", "</s>", "<unk>", "<mask>", "<sep>", "<word>", "words", "<NORM>", "<norm>", "<|im_start|>", "<|endoftext|>", "<|begin_of_text|>", "[CLS]", "[UNK]",
         "<0x41>", "the", " the", "'s", "'LL", "n't", "ing", "##ing", "   ", "\n\n", "\r\n", "1234", "don't", "Hello", "\u2581\u2581", "e\u0301\u0323"]


def random_string(rnd):
    out = []
    for _ in range(rnd.randint(0, 30)):
        kind = rnd.random()
        if kind < 0.6:
            out.append(rnd.choice(POOL))
        elif kind < 0.75:
            out.append(rnd.choice(WORDS))
        elif kind < 0.8:
            out.append(rnd.choice(POOL) * rnd.randint(1, 12))
        else:
            top = rnd.choice([0x80, 0x250, 0x3000, 0xFFFF, 0x10FFFF, 0x20000])
            c = rnd.randrange(top + 1)
            out.append(chr(c) if not 0xD800 <= c < 0xE000 else "x")
    return "".join(out)


def mixed_text(size):
    """Documents of `size` bytes together, English and other scripts, from the shared corpora."""
    strings = json.loads((FIXTURES / "strings.json").read_text())
    documents = []
    for name in ("wiki_demo.txt", "tinyshakespeare.txt", "c4_demo.jsonl"):
        documents += (SHARED / "data" / "corpus" / name).read_text(encoding="utf-8").split("\n\n")
    rnd = random.Random(SEED)
    out, total = [], 0
    while total < size:
        text = "\n".join(rnd.choice(documents) if rnd.random() < 0.8 else rnd.choice(strings) for _ in range(rnd.randint(1, 8)))
        out.append(text)
        total += len(text.encode("utf-8"))
    return out


def ours(path, texts, *flags):
    given = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode("utf-8") for t in texts))
    done = subprocess.run([DRIVER, str(path), *flags], input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise AssertionError(done.stderr.decode("utf-8", "replace")[-2000:])
    out, at, data = [], 0, done.stdout
    for _ in texts:
        n, = struct.unpack_from("<I", data, at)
        ids = struct.unpack_from(f"<{n}i", data, at + 4)
        flat = struct.unpack_from(f"<{2 * n}i", data, at + 4 + 4 * n)
        at += 4 + 12 * n
        size, = struct.unpack_from("<I", data, at)
        out.append((list(ids), list(zip(flat[::2], flat[1::2])), data[at + 4:at + 4 + size].decode("utf-8")))
        at += 4 + size
    return out


class Case(unittest.TestCase):
    def compare(self, path, texts, encode, decode, what, flags=(), offsets=True):
        """encode(text) -> (ids, offsets); shows the first differences, fails when there is any."""
        wrong = []
        for text, (ids, spans, decoded) in zip(texts, ours(path, texts, *flags)):
            want_ids, want_spans = encode(text)
            if ids != want_ids:
                wrong.append(("ids", text, ids, want_ids))
            elif offsets and spans != want_spans:
                wrong.append(("offsets", text, spans, want_spans))
            elif decode is not None and decoded != decode(ids):
                wrong.append(("decoded", text, decoded, decode(ids)))
        shown = "\n".join(f"{kind} of {text[:200]!a}\n  ours   {a!a:.400}\n  theirs {b!a:.400}" for kind, text, a, b in wrong[:6])
        self.assertFalse(wrong, f"{what}: {len(wrong)} of {len(texts)} differ\n{shown}")

    def compare_hf(self, path, texts, what, peer=None, special=False):
        peer = peer or tokenizers.Tokenizer.from_file(str(path))

        def encode(text):
            e = peer.encode(text, add_special_tokens=special)
            return e.ids, e.offsets

        self.compare(path, texts, encode, lambda ids: peer.decode(ids, skip_special_tokens=False), what, ["--special"] if special else [])


def fixture_path(name):
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    return SHARED / expected["tokenizer"] if "tokenizer" in expected else FIXTURES / name / "tokenizer.json"


class Fixtures(Case):
    def test_random_strings(self):
        for number, name in enumerate(NAMES):
            with self.subTest(name):
                rnd = random.Random(1000 * SEED + number)
                self.compare_hf(fixture_path(name), [random_string(rnd) for _ in range(CASES)], name)

    def test_mixed_text(self):
        texts = mixed_text(10_000_000 if CASES >= 100_000 else 300_000)
        for name in NAMES:
            with self.subTest(name):
                self.compare_hf(fixture_path(name), texts, name, special=True)


class Components(Case):
    """Parts of tokenizer.json that the fixtures leave out, one small file each."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kamerton-tokenizer-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        rnd = random.Random(77 + SEED)
        self.texts = [random_string(rnd) for _ in range(max(CASES // 10, 300))] + json.loads((FIXTURES / "strings.json").read_text())

    def character_bpe(self):
        """A vocabulary of single characters: ids show exactly what normalizers and pre-tokenizers leave."""
        characters = sorted(set("".join(self.texts)) | set(POOL) | {"\u2581"})
        return {"type": "BPE", "unk_token": "<unk>", "fuse_unk": False, "vocab": {"<unk>": 0, **{c: i + 1 for i, c in enumerate(characters)}}, "merges": []}

    def check(self, what, model=None, **parts):
        path = self.folder / "tokenizer.json"
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                 "post_processor": None, "decoder": None, "model": model or self.character_bpe(), **parts}
        path.write_text(json.dumps(whole))
        with self.subTest(what):
            self.compare_hf(path, self.texts, what, special=True)

    def test_normalizers(self):
        for normalizer in [{"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"},
                           {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Strip", "strip_left": False, "strip_right": True},
                           {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                           {"type": "Replace", "pattern": {"Regex": "\\s{2,}|\\d"}, "content": " x"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": ""},
                           {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
                           {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False},
                           {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "NFC"}]}]:
            self.check(json.dumps(normalizer), normalizer=normalizer)

    def test_pre_tokenizers(self):
        split = lambda pattern, behavior, invert=False: {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}  # noqa: E731
        pieces = [split({"Regex": "\\s+"}, b, i) for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)]
        pieces += [split({"String": "a"}, b) for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")]
        pieces += [split({"Regex": r}, "Isolated") for r in
                   (r"\w+", r"\W", r"[^\w\s]+", r"\d+", r"\p{Lu}\p{Ll}*", r"\p{P}", r"\p{S}+", r"[\p{L}\p{M}]+", r"\b", r"\p{Han}+|\p{Hiragana}+", r"(?=\d)", r"\h+",
                    r"(?i:abc|e)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)", r".", r"\R")]
        pieces += [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
                   {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Punctuation", "behavior": "Removed"},
                   {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False}, {"type": "CharDelimiterSplit", "delimiter": "-"},
                   {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True},
                   {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": False},
                   {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}]}]
        model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "vocab": {"<unk>": 0}, "merges": []}  # one id a word
        for pre in pieces:
            self.check(json.dumps(pre), model=model, pre_tokenizer=pre)

    def test_decoders(self):
        replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
        for decoder in [replace, {"type": "Fuse"}, {"type": "ByteFallback"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                        {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "WordPiece", "prefix": "##", "cleanup": False}, {"type": "BPEDecoder", "suffix": "e"},
                        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                        {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, None]:
            self.check(json.dumps(decoder), decoder=decoder)

    def test_post_processors(self):
        model = self.character_bpe()
        for post in [{"type": "RobertaProcessing", "sep": ["b", model["vocab"]["b"]], "cls": ["a", model["vocab"]["a"]], "trim_offsets": True, "add_prefix_space": True},
                     {"type": "BertProcessing", "sep": ["b", model["vocab"]["b"]], "cls": ["a", model["vocab"]["a"]]},
                     {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                     {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                                                         {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "b", "type_id": 0}}],
                                                          "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                                                          "special_tokens": {"a": {"id": "a", "ids": [model["vocab"]["a"], 3], "tokens": ["a", "x"]}, "b": {"id": "b", "ids": [2], "tokens": ["b"]}}}]}]:
            self.check(json.dumps(post)[:60], model=model, post_processor=post)

    def test_models(self):
        affixed = {"type": "BPE", "unk_token": "<unk>", "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
                   "vocab": {"<unk>": 0, **{c + e: 1 + 4 * i + k for i, c in enumerate("abcdeABC0123") for k, e in enumerate(("", "</w>"))},
                             **{"##" + c + e: 3 + 4 * i + k for i, c in enumerate("abcdeABC0123") for k, e in enumerate(("", "</w>"))}, "ab": 200, "abc</w>": 201},
                   "merges": [["a", "##b"], ["ab", "##c</w>"]]}
        self.check("affixes", model=affixed, pre_tokenizer={"type": "Whitespace"})
        self.check("WordLevel", model={"type": "WordLevel", "vocab": {"<unk>": 0, "the": 1, "Hello": 2, "'": 3, "1234": 4}, "unk_token": "<unk>"}, pre_tokenizer={"type": "Whitespace"})
        self.check("WordPiece", model={"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 5,
                                       "vocab": {"<unk>": 0, "the": 1, "t": 2, "##h": 3, "##e": 4, "H": 5, "##l": 6, "##lo": 7, "1": 8, "##2": 9}}, pre_tokenizer={"type": "Whitespace"})


class Tiktoken(Case):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kamerton-tiktoken-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        rnd = random.Random(55 + SEED)
        self.texts = [random_string(rnd) for _ in range(max(CASES // 4, 1000))] + json.loads((FIXTURES / "strings.json").read_text()) + mixed_text(100_000)

    def ranks(self):
        """A byte-level vocabulary of the fixtures as a rank file."""
        vocab = json.loads((FIXTURES / "gpt2_style" / "tokenizer.json").read_text())["model"]["vocab"]
        table = {ord(c): b for b, c in tokenizers_alphabet().items()}
        tokens = [bytes(table[ord(c)] for c in token) for token, _ in sorted(vocab.items(), key=lambda kv: kv[1]) if token != "<|endoftext|>"]
        singles = [t for t in tokens if len(t) == 1]
        return {token: rank for rank, token in enumerate(singles + [t for t in tokens if len(t) > 1])}

    def test_encodings_by_name(self):
        import tiktoken
        from tiktoken_ext import openai_public
        patterns = {"cl100k_base": None, "o200k_base": None, "p50k_base": None, "r50k_base": None}
        loader, openai_public.load_tiktoken_bpe = openai_public.load_tiktoken_bpe, lambda *a, **k: {}
        try:
            for name in patterns:
                patterns[name] = getattr(openai_public, name)()["pat_str"]
        finally:
            openai_public.load_tiktoken_bpe = loader
        ranks = self.ranks()
        for name, pattern in patterns.items():
            path = self.folder / f"{name}.tiktoken"
            path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
            peer = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 100257})
            with self.subTest(name):
                texts = [t for t in self.texts if "<|" not in t]
                self.compare(path, texts, lambda t: (peer.encode(t, allowed_special=set(), disallowed_special=()), None),
                             lambda ids: peer.decode(ids), name, offsets=False)

    def test_llama3_folder_as_transformers(self):
        from transformers.convert_slow_tokenizer import TikTokenConverter
        ranks = self.ranks()
        (self.folder / "tokenizer.model").write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
        special = ["<|begin_of_text|>", "<|end_of_text|>"]
        peer = TikTokenConverter(vocab_file=str(self.folder / "tokenizer.model"), extra_special_tokens=special).converted()

        def encode(text):
            e = peer.encode(text, add_special_tokens=False)
            return e.ids, e.offsets

        texts = [t for t in self.texts if "<|e" not in t and "<|i" not in t]
        self.compare(self.folder, texts, encode, lambda ids: peer.decode(ids, skip_special_tokens=False), "llama3")


def tokenizers_alphabet():
    """byte -> character of the GPT-2 alphabet"""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in plain}, 256
    for b in range(256):
        if b not in table:
            table[b] = chr(extra)
            extra += 1
    return table


class SentencePiece(Case):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kamerton-spm-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        rnd = random.Random(66 + SEED)
        self.texts = [random_string(rnd) for _ in range(max(CASES // 2, 1000))] + json.loads((FIXTURES / "strings.json").read_text()) + mixed_text(100_000)

    def test_the_library_itself(self):
        import sentencepiece
        for name in ("spm_bpe", "spm_unigram_nfkc"):
            path = FIXTURES / name / "tokenizer.model"
            peer = sentencepiece.SentencePieceProcessor(model_file=str(path))
            with self.subTest(name):
                texts = [t for t in self.texts if "\0" not in t]
                self.compare(path, texts, lambda t: (peer.encode(t), None), lambda ids: peer.decode(ids), name, offsets=False)

    def folder_of(self, name, config):
        shutil.copy(FIXTURES / name / "tokenizer.model", self.folder / "tokenizer.model")
        (self.folder / "tokenizer_config.json").write_text(json.dumps(config))

    def test_folders_as_transformers(self):
        import transformers
        added = {"1": {"content": "<s>", "special": True, "normalized": False}, "800": {"content": "<extra>", "special": False, "normalized": False, "lstrip": True},
                 "801": {"content": "<|end|>", "special": True, "normalized": False, "rstrip": True}}
        for cls, config in (("LlamaTokenizer", {}), ("LlamaTokenizer", {"legacy": True, "add_bos_token": True, "add_eos_token": True}),
                            ("LlamaTokenizer", {"add_prefix_space": False, "added_tokens_decoder": added, "add_bos_token": True}), ("GemmaTokenizer", {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<sep>", "mask_token": "<unk>"})):
            config = {"tokenizer_class": cls, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config}
            self.folder_of("spm_bpe", config)
            peer = getattr(transformers, cls).from_pretrained(str(self.folder)).backend_tokenizer
            with self.subTest(f"{cls} {config}"):
                self.compare_hf(self.folder, self.texts, cls, peer=peer, special=True)

    def test_vocab_and_merges_as_transformers(self):
        import transformers
        model = json.loads((FIXTURES / "gpt2_style" / "tokenizer.json").read_text())["model"]
        (self.folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        (self.folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        for cls, config in (("GPT2Tokenizer", {}), ("GPT2Tokenizer", {"add_prefix_space": True, "add_bos_token": True}), ("Qwen2Tokenizer", {"additional_special_tokens": ["<|im_start|>"]})):
            (self.folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", **config}))
            peer = getattr(transformers, cls).from_pretrained(str(self.folder)).backend_tokenizer
            with self.subTest(f"{cls} {config}"):
                self.compare_hf(self.folder, self.texts, cls, peer=peer, special=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
