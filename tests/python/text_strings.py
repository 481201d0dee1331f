"""text_strings.py: random multilingual strings, pathological ones, and asking text_oracle."""
import struct
import subprocess
import sys
import unicodedata


def ask(oracle, requests):
    """[(letter, bytes)] -> [(status, bytes)]"""
    data = b"".join(letter.encode() + struct.pack("=I", len(body)) + body for letter, body in requests)
    out = subprocess.run([oracle], input=data, stdout=subprocess.PIPE).stdout
    answers, at = [], 0
    while at < len(out):
        status, n = struct.unpack_from("=II", out, at)
        answers.append((status, out[at + 8 : at + 8 + n]))
        at += 8 + n
    if len(answers) != len(requests):
        if requests[0][0] == "L" and answers[0][0]:
            print(answers[0][1].decode())
        sys.exit(f"the oracle stopped after {len(answers)} of {len(requests)} requests")
    return answers


WORDS = ("the and of it's don't I'LL we've 'S isn't HELLO world Sherlock café naïve Straße ſ 'ſ Москва привет "
         "δοκιμή 日本語 你好世界 한국어 สวัสดี नमस्ते שלום مرحبا 😀 👨‍👩‍👧 🇩🇪 e\u0301 a\u0308\u0323 ﬁ Å \u212b \uac00 "
         "\u1100\u1161 1 12 123456 3.14 ١٢٣ Ⅷ ½ _ __init__ == -> https://a.b/c?d=e&f [x] {y} (z) ... --- \t \n \n\n "
         "\r\n \r \x0b \x0c \x85 \xa0 \u180e \u2028 \u200b \ufeff \u3000 \x00 \x7f ▁ Ġ").split(" ")
WORDS += [" ", "  ", "    "]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start", "|>", "<|", "<think>", "</think>", "<tool>"]
RANGES = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x5ff), (0x900, 0xdff), (0xe00, 0xeff), (0x1e00, 0x1fff),
          (0x2000, 0x206f), (0x20d0, 0x20ff), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0x1f300, 0x1faff),
          (0xe0000, 0xe007f), (0x1, 0x10ffff)]


def random_text(rng):
    parts = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.random()
        if kind < 0.55:
            parts.append(rng.choice(WORDS))
        elif kind < 0.62:
            parts.append(rng.choice(SPECIAL))
        elif kind < 0.7:
            parts.append(rng.choice(["a", " ", "\n", "1", "'", "é", "字"]) * rng.randrange(1, 9))
        else:
            low, high = rng.choice(RANGES)
            for _ in range(rng.randrange(1, 5)):
                c = rng.randint(low, high)
                parts.append(chr(c) if not 0xd800 <= c < 0xe000 else "?")
        if rng.random() < 0.5:
            parts.append(" ")
    return "".join(parts)


def is_assigned(text):
    """PCRE2 and Oniguruma know Unicode 14, utf8proc others: what Python's tables do not know is left out."""
    return all(unicodedata.category(c) != "Cn" or ord(c) > 0xe0fff or 0xfdd0 <= ord(c) < 0xfdf0 for c in text)


def pathological(rng):
    yield from ["", "a" * 100_000, " " * 100_000, "\n" * 5000, "字" * 50_000, "1" * 20_000, "😀" * 5000, "é" * 20_000,
                "e\u0301" * 20_000, "\u180e" * 999, "\u0301" * 3000, "ab" * 50_000, "<|im_start|>" * 3000, "<" * 5000]
    yield "".join(rng.choice("abcdefgh") for _ in range(50_000))
    yield "".join(chr(rng.randint(0xf0000, 0xffffd)) for _ in range(500))
    # combining marks of every age, in an order that normalising may change
    for c in range(0x300, 0x20000):
        if unicodedata.combining(chr(c)):
            yield f"a{chr(c)}\u0334{chr(c)}\u0315\u0301{chr(c)}"
