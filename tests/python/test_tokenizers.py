"""test_tokenizers.py [TQ] [--strings N] [--seed N]: tokenizers of every kind that models have, trained here by the real
`tokenizers` package, against that package, on random strings.  TQ defaults to build/tq; text_oracle is looked for in its
build tree.  N random strings a tokenizer: a few hundred by default; a long run was done with many more (docs/testing.md).
"""
import argparse
import base64
import copy
import itertools
import json
import os
import pathlib
import random
import struct
import sys
import tempfile
import time

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tally import check, finish
from text_strings import WORDS, ask, is_assigned, pathological, random_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENGLISH = (ROOT / "models/evaluation.txt").read_text()
SPACE = "\u2581"
CONTROL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]

CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    "llama3": CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END,
    "qwen2": CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END,
    "qwen3.5": CASES + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + END,
    "gpt-4o": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CASES}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CASES}?|"
              r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END,
}


def corpus():
    """English prose, and the words of many languages in random order."""
    rng = random.Random(11)
    yield from ENGLISH[:120_000].split("\n")
    for _ in range(1500):
        yield " ".join(rng.choice(WORDS) for _ in range(12)).replace("\x00", "") # a NUL cannot be a key of a vocabulary


# ---- tokenizers, as JSON ----------------------------------------------------------------------------------------------


def trained(model, trainer, normalizer=None, pre=None, decoder=None, lines=None):
    tokenizer = tokenizers.Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    tokenizer.train_from_iterator(lines or corpus(), trainer)
    return json.loads(tokenizer.to_str())


def byte_level_tokenizers():
    trainer = trainers.BpeTrainer(vocab_size=3000, show_progress=False, special_tokens=CONTROL,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    yield "gpt2", trained(models.BPE(), trainer, None, pre_tokenizers.ByteLevel(add_prefix_space=False),
                          decoders.ByteLevel())
    for name, pattern in PATTERNS.items():
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        normal = normalizers.NFC() if name.startswith("qwen") else None
        j = trained(models.BPE(ignore_merges=name == "llama3"), trainer, normal, pre_tokenizers.Sequence([split, level]),
                    decoders.ByteLevel())
        yield name, j


def spm_decoder(strip):
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


FALLBACK = [f"<0x{b:02X}>" for b in range(256)]


def spm_tokenizers():
    trainer = trainers.BpeTrainer(vocab_size=2500, show_progress=False, special_tokens=["<unk>", *CONTROL, *FALLBACK])
    spaces = normalizers.Replace(" ", SPACE)
    # merges may not cross words while training; as in the models, nothing is cut afterwards
    cut = pre_tokenizers.Split(tokenizers.Regex(rf"{SPACE}+[^{SPACE}]*"), "isolated")
    j = trained(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), trainer,
                normalizers.Sequence([normalizers.Prepend(SPACE), spaces]), cut, spm_decoder(True))
    j["pre_tokenizer"] = None
    j["added_tokens"] = [t for t in j["added_tokens"] if t["content"] not in FALLBACK]
    yield "llama2", j
    gemma = copy.deepcopy(j)
    gemma["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    gemma["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                              "invert": False}
    yield "gemma", gemma
    mistral = copy.deepcopy(j)
    mistral["normalizer"] = None
    mistral["pre_tokenizer"] = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    yield "mistral", mistral
    bare = copy.deepcopy(j)
    bare["model"] |= {"byte_fallback": False, "fuse_unk": False}
    yield "no fallback", bare


def field(data, number):
    """The length-delimited fields of a number in a protocol buffer."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 2:
            n = varint()
            if key >> 3 == number:
                found.append(data[at:at + n])
            at += n
        elif key & 7 == 0:
            varint()
        else:
            at += 4 if key & 7 == 5 else 8
    return found


def charsmap(temporary, rule):
    """The table that SentencePiece itself compiles for a rule."""
    text = os.path.join(temporary, "text")
    pathlib.Path(text).write_text("\n".join(line for line in ENGLISH[:20_000].split("\n") if line))
    sentencepiece.SentencePieceTrainer.train(input=text, model_prefix=os.path.join(temporary, rule), vocab_size=200,
                                             normalization_rule_name=rule, minloglevel=2)
    model = pathlib.Path(os.path.join(temporary, rule + ".model")).read_bytes()
    return field(field(model, 3)[0], 2)[0] # normalizer_spec.precompiled_charsmap


def unigram_tokenizers(temporary):
    trainer = trainers.UnigramTrainer(vocab_size=900, show_progress=False, unk_token="<unk>",
                                      special_tokens=["<unk>", *CONTROL, *FALLBACK], max_piece_length=10)
    lines = ENGLISH[:30_000].split("\n") + [" ".join(WORDS).replace("\x00", "")] * 3
    meta = pre_tokenizers.Metaspace(SPACE, "always")
    j = trained(models.Unigram(), trainer, None, meta, decoders.Metaspace(SPACE, "always"), lines)
    j["added_tokens"] = [t for t in j["added_tokens"] if t["content"] not in FALLBACK]
    yield "unigram", j
    bytes_too = copy.deepcopy(j)
    bytes_too["model"]["byte_fallback"] = True
    bytes_too["pre_tokenizer"]["split"] = False
    yield "unigram bytes", bytes_too
    for rule in ["nmt_nfkc", "nfkc_cf"]:
        mapped = copy.deepcopy(j)
        mapped["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap(temporary, rule)).decode()},
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": SPACE}]}
        yield f"unigram {rule}", mapped
    # equal scores, tokens in tokens, unknown runs that spell a token
    tiny = copy.deepcopy(bytes_too)
    tiny["pre_tokenizer"] = None
    tiny["decoder"] = {"type": "Fuse"}
    tiny["added_tokens"] = []
    letters = ["".join(p) for n in (1, 2, 3) for p in itertools.product("ab1é", repeat=n)][1::3]
    tiny["model"] |= {"vocab": [["<unk>", 0.0]] + [[x, -float(1 + i % 3)] for i, x in enumerate(letters)], "unk_id": 0}
    yield "unigram tiny", tiny


def odd_tokenizers(gpt2, llama2):
    """Steps of older models, in front of a byte-level and of a character BPE."""
    level = gpt2["pre_tokenizer"] | {"use_regex": False}
    pres = [{"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"},
            {"type": "CharDelimiterSplit", "delimiter": "é"}, {"type": "Digits", "individual_digits": False}]
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        pres.append({"type": "Punctuation", "behavior": behavior})
    for pre in pres:
        j = copy.deepcopy(gpt2)
        j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pre, level]}
        yield "pre " + " ".join(map(str, pre.values())), j
    norms = [[{"type": "Lowercase"}], [{"type": "NFD"}, {"type": "StripAccents"}], [{"type": "StripAccents"}],
             [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "NFC"}],
             [{"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "Prepend", "prepend": "é "}],
             [{"type": "Strip", "strip_left": True, "strip_right": True}],
             [{"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "_é"}],
             [{"type": "Replace", "pattern": {"Regex": r"(?<=a)b|\p{N}+"}, "content": ""}]]
    for norm in norms:
        j = copy.deepcopy(gpt2)
        j["normalizer"] = {"type": "Sequence", "normalizers": norm}
        yield "norm " + "+".join(n["type"] for n in norm), j
    j = copy.deepcopy(llama2)
    j["normalizer"] = {"type": "Replace", "pattern": {"Regex": r"\s*"}, "content": "_é"}
    yield "empty matches", j
    j = copy.deepcopy(llama2)
    j["normalizer"] = {"type": "NFKC"}
    j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {
        "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}]}
    yield "words and marks", j


def with_added_tokens(rng, j):
    """The same with added tokens of every kind, some of which contain others."""
    j = copy.deepcopy(j)
    vocab = j["model"]["vocab"]
    first = max([t["id"] for t in j["added_tokens"]] + [len(vocab) - 1]) + 1
    pool = ["<think>", "</think>", "world", "café", "the", " the", "  ", "<|im", "<|im_start|>user", "é", "e\u0301",
            "日本", "1", ".", "\n", "<tool>", "[INST]", "don't", "HELLO"]
    known = {t["content"] for t in j["added_tokens"]} | set(vocab if isinstance(vocab, dict) else dict(vocab))
    # The package's Unigram has no such token where control tokens are hidden from it (without_control).
    pool = [x for x in pool if x not in known and not (j["model"]["type"] == "Unigram" and x.startswith("<|im"))]
    for i, content in enumerate(rng.sample(pool, min(8, len(pool)))):
        special = rng.random() < 0.4
        flags = {name: rng.random() < 0.3 for name in ["single_word", "lstrip", "rstrip", "normalized"]}
        flags["normalized"] &= bool(content.strip()) # an empty token cuts the package's texts everywhere
        j["added_tokens"].append({"id": first + i, "content": content, "special": special, **flags})
    return j


def without_control(j):
    """What the package reads where text is a person's: control tokens have names that nobody can write."""
    j = copy.deepcopy(j)
    special = {t["content"] for t in j["added_tokens"] if t["special"]}
    if j["model"]["type"] == "Unigram":
        hidden = {x: f"\U0010ffff{i}" for i, x in enumerate(special)}
        j["model"]["vocab"] = [[hidden.get(x, x), score] for x, score in j["model"]["vocab"]]
        for token in j["added_tokens"]:
            token["content"] = hidden.get(token["content"], token["content"])
    return tokenizers.Tokenizer.from_str(json.dumps(j))


# ---- comparisons ------------------------------------------------------------------------------------------------------


def ids_of(answer):
    status, body = answer
    return list(struct.unpack(f"={len(body) // 4}i", body)) if status == 0 else body


def sound(tokenizer, strings):
    """The strings that the package can encode: some orders of lstrip and rstrip tokens end it."""
    def encodes(s):
        try:
            tokenizer.encode(s, add_special_tokens=False)
            return True
        except BaseException as e: # a PanicException, which has no other name here
            if type(e).__name__ != "PanicException":
                raise
            return False
    return [s for s in strings if encodes(s)]


def compare(oracle, name, j, strings, controls=(True, False)):
    source = json.dumps(j).encode()
    theirs = {True: tokenizers.Tokenizer.from_str(source.decode()), False: without_control(j)}
    for control in controls:
        theirs[control].encode_special_tokens = not control
        if any(t["lstrip"] or t["rstrip"] for t in j["added_tokens"]):
            strings = sound(theirs[control], strings)
        wanted = [e.ids for e in theirs[control].encode_batch(strings, add_special_tokens=False)]
        answers = ask(oracle, [("L", source)] + [("E", bytes([control]) + s.encode()) for s in strings])
        check(answers[0][0] == 0, f"{name}: {answers[0][1]!r}")
        for s, ids, answer in zip(strings, wanted, answers[1:]):
            found = ids_of(answer)
            check(found == ids, f"{name} control={control} {s[:80]!r}: {str(found)[:160]} not {str(ids)[:160]}")
    control = {t["id"] for t in j["added_tokens"] if t["special"]} - {j["model"].get("unk_id")}
    if j["model"].get("unk_token"):
        control -= {theirs[True].token_to_id(j["model"]["unk_token"])}
    check(not any(control & set(ids_of(a)) for a in answers[1:] if a[0] == 0), f"{name}: control tokens from a person's text")
    return len(controls) * len(strings)


def compare_decoding(oracle, name, j, strings):
    """Ids back to text, where that text is UTF-8.  The package drops a space at the very beginning, which pieces cannot."""
    source = json.dumps(j).encode()
    theirs = tokenizers.Tokenizer.from_str(source.decode())
    ids = [e.ids for e in theirs.encode_batch(strings, add_special_tokens=False)]
    answers = ask(oracle, [("L", source)] + [("D", struct.pack(f"={len(i)}i", *i)) for i in ids])
    for i, (_, body) in zip(ids, answers[1:]):
        wanted = theirs.decode(i, skip_special_tokens=False)
        found = body.decode("utf-8", "replace")
        check(found in (wanted, " " + wanted), f"decode {name}: {found[:80]!r} not {wanted[:80]!r}")


def test_equality(oracle, temporary, rng, n):
    kinds = list(byte_level_tokenizers()) + list(spm_tokenizers()) + list(unigram_tokenizers(temporary))
    by_name = dict(kinds)
    kinds += odd_tokenizers(by_name["gpt2"], by_name["llama2"])
    compared = 0
    for name, j in kinds:
        main = not name.startswith(("pre ", "norm "))
        for variant in [j, with_added_tokens(rng, j)]:
            left = n if main else n // 4
            while left > 0: # in portions: a long run keeps nothing
                strings = [s for s in (random_text(rng) for _ in range(min(left, 50_000))) if is_assigned(s)]
                left -= 50_000
                if variant is j and name in ("gpt-4o", "llama2", "unigram bytes", "unigram nmt_nfkc"):
                    strings += [s[:20_000] for s in pathological(random.Random(5))] if left <= 0 else []
                compared += compare(oracle, name, variant, strings)
        if main and not name.startswith("unigram nmt"):
            compare_decoding(oracle, name, j, [s for s in (random_text(rng) for _ in range(300)) if is_assigned(s)])
    print(f"{compared} encodings by {2 * len(kinds)} tokenizers compared with tokenizers {tokenizers.__version__}")
    return by_name


def token(j, content):
    return next(t["id"] for t in j["added_tokens"] if t["content"] == content)


def test_prompts(oracle, by_name, rng):
    """Post-processors, as real files have them, against the package's encode() with special tokens."""
    def template(j, single):
        tokens = {t: token(j, t) for t in single.split() if not t.startswith("$")}
        made = processors.TemplateProcessing(single=single, pair="$A $B:1", special_tokens=list(tokens.items()))
        return json.loads(tokenizers.Tokenizer.from_str(json.dumps(j | {"post_processor": None})).to_str()) | {
            "post_processor": json.loads(made.__getstate__())}

    def sequence(j, *parts):
        return j | {"post_processor": {"type": "Sequence", "processors": list(parts)}}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    llama3 = template(by_name["llama3"], "<|im_start|> $A")
    gemma = template(by_name["gemma"], "<s> $A")
    ended = template(by_name["mistral"], "<s> $A </s>")
    several = copy.deepcopy(llama3)
    several["post_processor"]["special_tokens"]["<|im_start|>"] |= {"ids": [2, 0, 7], "tokens": ["a", "b", "c"]}
    gpt2 = by_name["gpt2"]
    pair = {"cls": ["<s>", token(gpt2, "<s>")], "sep": ["</s>", token(gpt2, "</s>")]}
    roberta = {"type": "RobertaProcessing", **pair, "trim_offsets": True, "add_prefix_space": False}
    cases = {
        "llama3": sequence(llama3, level, llama3["post_processor"]),
        "gemma": gemma, "both ends": ended, "several ids": several,
        "nothing around": template(by_name["unigram"], "$A"),
        "roberta": gpt2 | {"post_processor": roberta},
        "bert": gpt2 | {"post_processor": {"type": "BertProcessing", **pair}},
        "one around the other": sequence(gpt2, roberta, template(gpt2, "<|im_start|> <|im_start|> $A <|im_end|>")["post_processor"]),
        "none": gpt2 | {"post_processor": None},
    }
    strings = [""] + [s for s in (random_text(rng) for _ in range(60))
                      if is_assigned(s) and not s.startswith(("<s>", "<|im_start|>"))] # those are below
    for name, j in cases.items():
        source = json.dumps(j).encode()
        theirs = tokenizers.Tokenizer.from_str(source.decode())
        first = theirs.encode("").ids
        wanted = [e.ids for e in theirs.encode_batch(strings, add_special_tokens=True)]
        answers = ask(oracle, [("L", source)] + [("E", bytes([3]) + s.encode()) for s in strings])
        check(answers[0][0] == 0, f"prompt {name}: {answers[0][1]!r}")
        check(first == ids_of(answers[1]), f"prompt {name}: an empty text is {ids_of(answers[1])}, not {first}")
        for s, ids, answer in zip(strings, wanted, answers[1:]):
            found = ids_of(answer)
            check(found == ids, f"prompt {name} {s[:80]!r}: {str(found)[:160]} not {str(ids)[:160]}")
    # Ours alone: what the text has itself is not put there again.
    source = json.dumps(ended).encode()
    once, typed, twice = [ids_of(a) for a in ask(oracle, [("L", source), ("E", b"\3<s>a b"), ("E", b"\2<s>a b"),
                                                          ("E", b"\3<s><s>a b")])[1:]]
    bos = token(ended, "<s>")
    check(once.count(bos) == 1 and once[0] == bos and once[-1] == token(ended, "</s>"), f"prompt with its own <s>: {once}")
    check(typed.count(bos) == 1 and len(typed) > len(once), f"prompt with <s> as a person's text: {typed}")
    check(twice[:2] == [bos, bos] and twice.count(bos) == 2, f"prompt with two <s>: {twice}")


def test_every_character(oracle, by_name):
    """Normalizers that look at single characters, on all that Python's Unicode knows."""
    strings = [f"a{chr(c)}b{chr(c)}" for c in range(0x80, 0x110000) if not 0xd800 <= c < 0xe000 and is_assigned(chr(c))]
    strings = ["".join(strings[i:i + 40]) for i in range(0, len(strings), 40)]
    for steps in [[{"type": "Lowercase"}], [{"type": "StripAccents"}]]:
        j = copy.deepcopy(by_name["gpt2"])
        j["normalizer"] = {"type": "Sequence", "normalizers": steps}
        compare(oracle, f"every character {steps}", j, strings, [False])
    for pre in ["BertPreTokenizer", "Whitespace", "Digits"]: # a space before every piece makes the cuts seen
        j = copy.deepcopy(by_name["gpt2"])
        j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": pre, "individual_digits": False}, j["pre_tokenizer"] | {"add_prefix_space": True, "use_regex": False}]}
        compare(oracle, f"every character {pre}", j, strings, [False])
    compare(oracle, "every character nmt_nfkc", by_name["unigram nmt_nfkc"], strings, [False])


def test_speed(oracle, by_name):
    """Processor seconds beside the package's, in one run; and that time grows with the text, not with its square."""
    prose = (ENGLISH * 8)[:1_000_000]
    rng = random.Random(3)
    letters = "".join(rng.choice("abcdefghij") for _ in range(1_000_000))
    for name, what, text in [("gpt-4o", "prose", prose), ("llama2", "prose", prose), ("unigram", "prose", prose),
                             ("gpt-4o", "letters", letters), ("llama2", "letters", letters), ("unigram", "letters", letters),
                             ("gpt-4o", "spaces", " " * 1_000_000)]:
        source = json.dumps(by_name[name]).encode()
        request = [("B", struct.pack("=I", 3) + part.encode()) for part in (text, text[:250_000])]
        answers = ask(oracle, [("L", source)] + request)
        check(all(status == 0 for status, _ in answers), f"speed {name} {what}: {answers}")
        whole, quarter = (struct.unpack("=d", body)[0] for _, body in answers[1:])
        theirs = tokenizers.Tokenizer.from_str(source.decode())
        start = time.process_time()
        theirs.encode(text, add_special_tokens=False)
        best = time.process_time() - start
        print(f"{name:8} 1 MB of {what:8} {whole:7.3f} s, tokenizers {best:7.3f} s, 250 KB {quarter:6.3f} s")
        check(whole < best, f"{name}: 1 MB of {what} takes {whole:.3f} s, tokenizers {best:.3f} s")
        check(whole < 4 * 3 * quarter + 0.01, f"{name}: 1 MB of {what} takes {whole:.3f} s, 250 KB {quarter:.3f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tq", nargs="?", default=str(ROOT / "build" / "tq"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strings", type=int, default=100)
    args = parser.parse_args()
    oracle = os.path.join(os.path.dirname(os.path.abspath(args.tq)), "tests", "tools", "text_oracle")
    with tempfile.TemporaryDirectory() as temporary:
        by_name = test_equality(oracle, temporary, random.Random(args.seed), args.strings)
    test_prompts(oracle, by_name, random.Random(args.seed))
    test_every_character(oracle, by_name)
    test_speed(oracle, by_name)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
