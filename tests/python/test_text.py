"""Compare the tokenizer with `tokenizers` and the template engine with `jinja2`.

usage: test_text.py PATH_TO_text_oracle
Prints 'N passed, N failed' last; exits 1 if anything failed.  Strings are random but seeded: --seed N for others.
"""
import argparse
import copy
import datetime
import itertools
import json
import pathlib
import random
import struct
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import tokenizers

from tally import check, finish
from text_strings import SPECIAL, ask, is_assigned, pathological, random_text

ROOT = pathlib.Path(__file__).resolve().parents[2]


# ---- tokenizers -----------------------------------------------------------------------------------------------------

def grown_vocab(first, pairs):
    """A vocabulary of single symbols and the merges of `pairs`."""
    vocab = {symbol: i for i, symbol in enumerate(first)}
    merges = []
    for a, b in pairs:
        if a in vocab and b in vocab and a + b not in vocab:
            vocab[a + b] = len(vocab)
            merges.append([a, b])
    return vocab, merges


def added(vocab, content, **options):
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": len(vocab), "content": content, **base, **options}


def tokenizer_variants(bookworm):
    yield "bookworm", bookworm
    for style in ["strings", "ignore_merges", "added"]:
        j = copy.deepcopy(bookworm)
        if style == "strings":
            j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]
        if style == "ignore_merges":
            j["model"]["ignore_merges"] = True
            j["model"]["merges"] = j["model"]["merges"][::3]
        if style == "added":
            n = len(j["model"]["vocab"])
            for content, options in [("<think>", {}), ("</think>", {"lstrip": True, "rstrip": True}),
                                     ("world", {"single_word": True}), ("café", {"normalized": True}),
                                     ("<tool>", {"special": True, "normalized": True, "lstrip": True}),
                                     ("  ", {"rstrip": True}), ("<|im_start|>user", {})]:
                j["added_tokens"].append({**added({}, content, **options), "id": n})
                n += 1
        yield style, j
    llama3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
              r"\s*[\r\n]+|\s+(?!\S)|\s+")
    han = r"[\p{Han}\p{Hiragana}]+|[^\p{Han}\s]+(?=\s)|\P{Han}{2,4}+|[\u0041-\x{5a}]++|$|^a"
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

    def split(pattern, behavior, invert=False):
        kind = "Regex" if isinstance(pattern, str) else "String"
        return {"type": "Split", "pattern": {kind: pattern if kind == "Regex" else pattern[0]}, "behavior": behavior,
                "invert": invert}

    pres = {"llama3": [split(llama3, "Isolated")], "han": [split(han, "Isolated")], "none": [],
            "digits": [{"type": "Digits", "individual_digits": True}, split(r"\s+", "Removed")],
            "digits2": [{"type": "Digits", "individual_digits": False}],
            "lookahead": [split(r"\S+", "Isolated"), split(r"\s+(?!\S)|b(?=$)", "Isolated")],
            "space": [{"type": "WhitespaceSplit"}]}
    for behavior, invert in itertools.product(["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                               "Contiguous"], [False, True]):
        pres[f"{behavior}{invert}"] = [split(r"[^\s\p{L}]|\d", behavior, invert)]
        pres[f"{behavior}{invert}String"] = [split([" "], behavior, invert)]
        pres[f"{behavior}{invert}Empty"] = [split(r"a*", behavior, invert)]
    for name, steps in pres.items():
        j = copy.deepcopy(bookworm)
        j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps + [level]}
        yield "pre " + name, j
    j = copy.deepcopy(bookworm)
    j["normalizer"] = None
    j["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    yield "gpt2", j
    for form in ["NFD", "NFKC", "NFKD"]:
        j = copy.deepcopy(bookworm)
        j["normalizer"] = {"type": "Sequence", "normalizers": [{"type": form}]}
        yield form, j

    # characters with byte fallback, as SentencePiece files are converted
    rng = random.Random(7)
    letters = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + list("▁abcdefghijklmnopqrstuvwxyzéñ日本語1230.,!'\n")
    pool = list("▁abcdefghijklmnopqrstuvwxyzé日")
    pairs = []
    for _ in range(1500):
        a, b = rng.choice(pool), rng.choice(pool)
        if len(a + b) < 7:
            pairs.append((a, b))
            pool.append(a + b)
    vocab, merges = grown_vocab(letters, pairs)
    for fallback, fuse in itertools.product([True, False], [True, False]):
        model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                 "end_of_word_suffix": None, "fuse_unk": fuse, "byte_fallback": fallback, "vocab": vocab,
                 "merges": merges}
        spm = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
               "normalizer": {"type": "Sequence", "normalizers": [
                   {"type": "Prepend", "prepend": "▁"},
                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
               "pre_tokenizer": None, "post_processor": None,
               "decoder": {"type": "Sequence", "decoders": [
                   {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                   {"type": "Fuse"}]}, "model": model}
        spm["added_tokens"].append({**added({}, "<|im_end|>", special=True), "id": len(vocab)})
        yield f"spm {fallback} {fuse}", spm
        for scheme, whole in itertools.product(["always", "first", "never"], [True, False]):
            meta = copy.deepcopy(spm)
            meta["normalizer"] = None
            meta["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": whole}
            yield f"metaspace {fallback} {fuse} {scheme} {whole}", meta


def test_tokenizers(oracle, path, rng, n_main):
    bookworm = json.loads(path.read_text())
    compared = 0
    for name, j in tokenizer_variants(bookworm):
        text = json.dumps(j)
        theirs = tokenizers.Tokenizer.from_str(text)
        n = n_main if name == "bookworm" else n_main // 60
        strings = [s for s in (random_text(rng) for _ in range(n)) if is_assigned(s)]
        if name in ("bookworm", "spm True True", "NFD", "NFKC", "NFKD"):
            strings += list(pathological(rng))
        for parse_control in [True, False]:
            theirs.encode_special_tokens = not parse_control
            wanted = [e.ids for e in theirs.encode_batch(strings, add_special_tokens=False)]
            answers = ask(oracle, [("L", text.encode())] +
                          [("E", bytes([parse_control]) + s.encode()) for s in strings])
            check(answers[0][0] == 0, f"{name}: {answers[0][1]!r}")
            if answers[0][0]:
                break
            for s, ids, (status, body) in zip(strings, wanted, answers[1:]):
                found = list(struct.unpack(f"={len(body) // 4}i", body)) if status == 0 else body
                check(found == ids, f"{name} control={parse_control} {s[:80]!r}: "
                                    f"{str(found)[:200]} not {str(ids)[:200]}")
                compared += 1
        if name == "bookworm":
            decoded = ask(oracle, [("L", text.encode())] + [("D", struct.pack(f"={len(i)}i", *i)) for i in wanted])
            for ids, (_, body) in zip(wanted, decoded[1:]):
                found = body.decode("utf-8", "replace")
                check(found == theirs.decode(ids, skip_special_tokens=False), f"decode {found[:80]!r}")
    print(f"{compared} encodings compared with tokenizers {tokenizers.__version__}")


def test_ranges(oracle, path, rng):
    """Ids of a text of mixed origin: a control token counts only where the template wrote it."""
    text = path.read_text()
    theirs = tokenizers.Tokenizer.from_str(text)
    theirs.encode_special_tokens = False
    requests, wanted = [("L", text.encode())], []
    for _ in range(2000):
        parts, ranges, at = [], [], 0
        for i in range(rng.randrange(1, 7)):
            body = rng.choice(["<|im_start|>user\n", "<|im_end|>\n", "\n", "x"]) if i % 2 == 0 else random_text(rng)
            n = len(body.encode())
            if i % 2 == 0:
                ranges.append((at, n))
            parts.append((body, i % 2 == 0))
            at += n
        joined = "".join(p for p, _ in parts)
        requests.append(("S", struct.pack("=I", len(ranges)) + b"".join(struct.pack("=II", *r) for r in ranges) +
                         joined.encode()))
        # expectation: split at the control tokens of the template, encode what is between as plain text
        ids, plain = [], ""
        for body, trusted in parts:
            while trusted and (hits := [(body.find(s), s) for s in SPECIAL[:3] if s in body]):
                start, token = min(hits)
                plain += body[:start]
                ids += encode_plain(theirs, plain) + [theirs.token_to_id(token)]
                plain, body = "", body[start + len(token):]
            plain += body
        wanted.append((joined, ids + encode_plain(theirs, plain)))
    for (joined, ids), (status, body) in zip(wanted, ask(oracle, requests)[1:]):
        found = list(struct.unpack(f"={len(body) // 4}i", body)) if status == 0 else body
        check(found == ids, f"ranges {joined[:80]!r}: {found} not {ids}")


def encode_plain(tokenizer, text):
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text, add_special_tokens=False).ids


# ---- templates ------------------------------------------------------------------------------------------------------


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def jinja_environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.now().strftime(f)
    return env


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Ask <it> & \"see\"", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "naïve ☃"}, "days": {
        "type": ["integer", "null"], "default": 1.5}}, "required": ["city"]}}}, {"name": "clock", "x": {}, "y": []}]
CONTEXTS = [
    {"messages": [{"role": "user", "content": "Hello"}], "add_generation_prompt": True},
    {"messages": [{"role": "system", "content": "  Be brief.\n"}, {"role": "user", "content": "Hi <|im_end|> é"},
                  {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.\n"},
                  {"role": "user", "content": "1\n\n2"}],
     "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", "tools": TOOLS},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]},
                  {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "id": "c1", "function": {
                      "name": "weather", "arguments": {"city": "Paris", "n": 1, "f": 0.1, "e": 1e100, "b": True,
                                                       "z": None, "l": [1, [2.0, "x'y\"z"]]}}}]},
                  {"role": "tool", "content": "{\"t\": 21}", "name": "weather"}],
     "add_generation_prompt": False, "tools": TOOLS, "enable_thinking": False},
    {"messages": [], "tools": None, "documents": [{"title": "T", "text": "line one\n\nline three\n"}], "n": 7,
     "x": -3.5,
     "items": {"b": 2, "A": 1, "c": [3]}, "s": "The quick-brown (fox) jumps\tover", "words": ["b", "A", "c", "b", "É"]},
]

# One template per group of features; every one is rendered with every context.
TEMPLATES = {
    "chatml": "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
              "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "llama3": "{{- bos_token }}\n{%- if messages and messages[0]['role'] == 'system' %}\n    {%- set system = "
              "messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set "
              "system = "
              "\"\" %}\n{%- endif %}\n\n{#- the system text #}\n{{- "
              "\"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}"
              "\n{%- if tools is not none and tools is defined %}\n    {%- for t in tools %}\n        {{- t | "
              "tojson(indent=4) }}\n        {{- \"\\n\\n\" }}\n    {%- endfor %}\n{%- endif %}\n{{- system }}{{- "
              "\"<|eot_id|>\" }}\n{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or "
              "message.role == 'tool' or 'tool_calls' in message) %}\n        {{- '<|start_header_id|>' + "
              "message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n    {%- elif "
              "'tool_calls' in message %}\n        {%- if not message.tool_calls|length == 1 %}\n            {{- "
              "raise_exception(\"one call only\") }}\n        {%- endif %}\n        {%- set call = "
              "message.tool_calls[0].function %}\n        {{- '{\"name\": \"' + call.name + '\", ' }}\n        {{- "
              "'\"parameters\": ' }}\n        {{- call.arguments | tojson }}\n        {{- \"}\" }}\n    {%- elif "
              "message.role == \"tool\" or message.role == \"ipython\" %}\n        {%- if message.content is "
              "mapping or "
              "message.content is iterable %}\n            {{- message.content | tojson }}\n        {%- else %}\n     "
              "       {{- message.content }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}\n",
    "qwen": "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- if messages[0].role == 'system' %}\n    "
            "    {{- "
            "messages[0].content + '\\n\\n' }}\n    {%- endif %}\n    {{- \"# Tools\\n<tools>\" }}\n    {%- for "
            "tool in "
            "tools %}\n        {{- \"\\n\" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n    {{- \"\\n</tools>"
            "<|im_end|>\\n\" }}\n{%- endif %}\n{%- set ns = namespace(multi_step_tool=true, last=messages|length - 1) "
            "%}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n   "
            " {%- if ns.multi_step_tool and message.role == \"user\" and message.content is string and not("
            "message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n  "
            "      {%- set ns.multi_step_tool = false %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- "
            "endfor %}\n{%- for message in messages %}\n    {%- if message.content is string %}\n        {%- set "
            "content = message.content %}\n    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n    {%- "
            "if message.role == \"assistant\" %}\n        {%- set reasoning = '' %}\n        {%- if '</think>' in "
            "content %}\n            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')"
            "[-1].lstrip('\\n') %}\n            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n     "
            "   {%- endif %}\n        {{- '<|im_start|>' + message.role + '\\n' + reasoning.strip('\\n') + "
            "content }}\n "
            "       {%- for tool_call in message.tool_calls %}\n            {%- if (loop.first and content) or (not "
            "loop.first) %}{{- '\\n' }}{%- endif %}\n            {{- tool_call.function.name }}{{- "
            "tool_call.function.arguments | tojson }}\n        {%- endfor %}\n    {%- elif message.role == \"tool\" "
            "%}\n        {%- if loop.first or (messages[loop.index0 - 1].role != \"tool\") %}{{- '<|im_start|>user' }}"
            "{%- endif %}\n        {{- '\\n<tool_response>\\n' }}{{- content }}\n        {%- if loop.last or "
            "(messages[loop.index0 + 1].role != \"tool\") %}{{- '<|im_end|>\\n' }}{%- endif %}\n    {%- else %}\n    "
            "    {{- message.role + content }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    "
            "{{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false "
            "%}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    "loop": "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} "
            "{{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem.role }}|"
            "{% if not loop.last %}{{ loop.nextitem.role }}{% endif %}\n{% else %}none\n{% endfor %}",
    "loop prev": "{% for m in [1, 2, 2, 3] %}{{ loop.previtem is defined }}{{ loop.nextitem }},{{ loop.cycle('a', 'b') "
                 "}}{{ loop.changed(m) }}{% endfor %}",
    "unpack": "{% for k, v in {'a': 1, 'b': [2, 3]}.items() %}{{ k }}={{ v }};{% endfor %}{% for a, (b, c) in "
              "[(1, (2, 3)), [4, 'xy']] %}{{ a }}{{ b }}{{ c }} {% endfor %}",
    "unpack error": "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "for if": "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.role }}{% else %}nobody{% endfor %}"
              "{% for m in messages if m.role != 'user' %}{{ m.role }}{% endfor %}",
    "for if state": "{% set ns = namespace(n=0) %}{% for i in [1, 2, 3, 4] if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ i "
                    "}}{% endfor %}",
    "break": "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i "
             "}}{% endfor %}",
    "nested loops": "{% for i in range(3) %}{% for j in range(i) %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ "
                    "loop.index }}\n{% endfor %}",
    "recursive": "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}, {'v': 3, 'c': []}]}] recursive %}{{ loop.depth }}:{{ "
                 "n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}",
    "scope": "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}{% if true %}{% "
             "set x = 9 %}{% endif %}{{ x }}",
    "macro": "{% macro m(a, b='B', c=none) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(a=1, "
             "c=3) }}{{ m() }}{{ m(b=a|default(5)) }}",
    "macro closure": "{% set y = 1 %}{% macro m() %}{{ y }}{{ z }}{% endmacro %}{{ m() }}{% set y = 2 %}{% set z = 3 "
                     "%}{{ m() }}",
    "macro default": "{% macro m(a, b=a ~ 'x') %}{{ b }}{% endmacro %}{{ m('q') }}{{ m('q', 'r') }}",
    "macro too many": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "macro unknown": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "macro varargs": "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k='v') }}",
    "macro recursion": "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "macro no end": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(5) }}",
    "call": "{% macro m(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call m('b') %}x{{ n }}{% endcall %}",
    "call args": "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a + b }}{% endcall %}",
    "set block": "{% set t %}  a {{ messages|length }}\n{% endset %}[{{ t }}]{% set u | upper | trim %} abc {% endset "
                 "%}[{{ u }}]",
    "set tuple": "{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set d = () %}{{ d }}{{ (1,) }}",
    "namespace": "{% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% set ns.c = i "
                 "%}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.d }}{% set ns2 = namespace({'q': 1}) %}{{ ns2.q }}",
    "namespace error": "{% set ns = {} %}{% set ns.a = 1 %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}{% set q = 1 %}{% endgeneration %}{{ q }}\n{% "
                  "endfor %}",
    "white space": "a  \n  {% if true %}\n   b\n  {%- endif %}\n\n  c {{- ' d ' -}}  \n e\n  {# x #}\n f {#- y -#}  g\n"
                   "\t{%+ if true %} h {% endif +%}\n i {% raw %}\n {{ j }} {% endraw %}\n k\n\n",
    "white space 2": "{% if true %}\n\n{% endif %}  {% set x = 1 %}  \n  {% set y = 2 %}  z\n{{ x }}\n{{ y }}\n  {{ 1 "
                     "}}\n{{- 2 }}\n{{ 3 -}}\n 4 {%- raw -%}  {% x %}  {%- endraw -%} 5 \r\n 6\r7\n",
    "comment": "a{# {{ b }} {% c %} #}d{#- e -#} f {#+ g +#}\nh\n  {# i #}\nj",
    "arithmetic": "{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7.5 % -2 }} {{ "
                  "2 ** 10 "
                  "}} {{ 2 ** -1 }} {{ -3 ** 2 }} {{ 1_000 }} {{ 1e3 }} {{ 1.5e-7 }} {{ (1 + 2) * 3 }} {{ +5 }} {{ --5 "
                  "}} {{ 7.0 // 2 }} {{ true + 1 }} {{ 10 / 4 }} {{ 1e16 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }}",
    "divide": "{{ 1 / 0 }}",
    "modulo": "{{ 1 % 0 }}",
    "comparison": "{{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 < 2 < 3 }} {{ 1 < 3 "
                  "< 2 }} "
                  "{{ none == none }} {{ none == false }} {{ (1, 2) == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ "
                  "'x' != "
                  "'y' }} {{ undefined_1 == undefined_2 }} {{ 2 >= 2 }} {{ [] == [] }} {{ 'É' > 'Z' }}",
    "order error": "{{ 1 < 'a' }}",
    "order none": "{{ none < 1 }}",
    "in": "{{ 'a' in 'cat' }} {{ 'x' not in ['x'] }} {{ 1 in {1: 2} }} {{ 'role' in messages[0] }} {{ '' in '' }} "
          "{{ 2 in "
          "(1, 2.0) }} {{ 'a' in undefined_1 }} {{ none in [none] }}",
    "in error": "{{ 1 in 'abc' }}",
    "in none": "{{ 'a' in none }}",
    "logic": "{{ 1 and 0 }} {{ '' or 'x' }} {{ not '' }} {{ none or 0 }} {{ not none and true }} {{ [] or {} }} "
             "{{ 1 if "
             "false }} {{ 'a' if 1 else 'b' }} {{ 'a' if 0 else 'b' if 0 else 'c' }} {{ not 1 == 2 }}",
    "concat": "{{ 1 ~ 'a' ~ none ~ true ~ 1.5 ~ [1, 'x'] ~ undefined_1 }} {{ 'a' ~ 1 * 2 }} {{ 'a' * 3 }} {{ [1] * 2 + "
              "[3] }} {{ 2 * 'ab' }}",
    "concat error": "{{ 'a' + 1 }}",
    "concat none": "{{ 'a' + none }}",
    "slices": "{% set s = 'añ日本語xyz' %}{{ s[1:3] }} {{ s[:-2] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }} {{ "
              "s[5:2] }} {{ "
              "s[10:] }} {{ s[-1] }} {{ s[2] }} {% set l = [1, 2, 3, 4] %}{{ l[1:] }} {{ l[::-1] }} {{ l[-2:] }} {{ "
              "l[3:0:-1] }} {{ (1, 2, 3)[1:] }} {{ l[100] }} {{ range(5)[2] }} {{ l['a'] }} {{ s[true] }} {{ "
              "l[::-2] }}",
    "literals": "{{ [1, 'a', none, true, 1.0, [], {}, ()] }} {{ {'a': 1, 2: 'b', none: [1], true: 2} }} {{ (1, "
                "'x') }} {{ "
                "\"it's\" }} {{ ['it\\'s', \"q\\\"\", 'b\\'\\\"', '\\n\\t\\\\', 'é\\u200b\\x07☃'] }} {{ 'a' 'b' }} "
                "{{ '\\x41\\u00e9\\z\\101' }}",
    "attributes": "{{ messages[0].role }}{{ messages[0]['role'] }}{{ messages.0.role }}{{ messages[0].nothing }}{{ "
                  "none.x }}{{ 'a'.x }}{{ (1).y }}{{ messages[0].get('x') }}{{ messages[0].get('x', 'd') }}",
    "undefined attribute": "{{ nothing.x }}",
    "undefined item": "{{ nothing['x'] }}",
    "undefined call": "{{ nothing() }}",
    "undefined add": "{{ nothing + 1 }}",
    "undefined uses": "[{{ nothing }}]{% for x in nothing %}x{% endfor %}{{ nothing|length }}{{ nothing|list }}{{ "
                      "nothing "
                      "is defined }}{{ nothing|default('d') }}{{ nothing|upper }}{{ nothing|join(',') }}{% if nothing "
                      "%}y{% endif %}{{ nothing|trim }}{{ [nothing] }}{{ nothing|items|list }}{{ "
                      "nothing|string|length }}",
    "undefined json": "{{ nothing|tojson }}",
    "undefined int": "{{ nothing|int }}",
    "undefined sum": "{{ [1]|sum(attribute='x') }}",
    "not callable": "{{ messages() }}",
    "iterate int": "{% for x in 5 %}{% endfor %}",
    "iterate none": "{% for x in none %}{% endfor %}",
    "iterate dict": "{% for x in {'a': 1, 'b': 2} %}{{ x }}{% endfor %}{% for c in 'añb' %}{{ c }},{% endfor %}",
    "append": "{% set l = [] %}{{ l.append(1) }}",
    "methods": "{% set s = '  Hello, World  ' %}{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ s.strip(' "
               "Hd') }}|{{ "
               "s.upper() }}|{{ s.lower() }}|{{ s.title() }}|{{ 'hELLO wORLD'.capitalize() }}|{{ s.replace('l', "
               "'L') }}|{{ "
               "s.replace('l', 'L', 2) }}|{{ s.find('World') }}|{{ s.find('x') }}|{{ s.rfind('o') }}|{{ "
               "s.count('l') }}|{{ "
               "s.startswith('  H') }}|{{ s.endswith(('x', 'd  ')) }}|{{ 'ab'.replace('', '-') }}|{{ "
               "'abc'.removeprefix("
               "'a') }}|{{ 'abc'.removesuffix('bc') }}|{{ ', '.join(['a', 'b']) }}|{{ '12'.isdigit() }}|{{ "
               "'ab'.isalpha("
               ") }}|{{ ''.isdigit() }}|{{ 'aB1'.isalnum() }}|{{ ' \\n'.isspace() }}|{{ 'AB'.isupper() }}|{{ "
               "'ß'.upper() }}",
    "split": "{{ 'a,b,,c'.split(',') }}{{ ' a  b c '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', "
             "1) }}{{ "
             "'a b  c d '.split(none, 1) }}{{ ' a b c'.rsplit(none, 1) }}{{ ''.split() }}{{ ''.split(',') }}{{ "
             "'a\\nb\\r\\nc\\n'.splitlines() }}{{ 'a\\nb'.splitlines(true) }}{{ 'aXXbXXc'.split('XX')[-1] }}",
    "split empty": "{{ 'abc'.split('') }}",
    "join error": "{{ ','.join([1, 2]) }}",
    "dict methods": "{% set d = {'b': 1, 'a': 2} %}{{ d.items() }}{{ d.keys() }}{{ d.values() }}{{ d.keys()|list }}{{ "
                    "d|items|list }}{{ d|dictsort }}{{ d|dictsort(by='value', reverse=true) }}{{ d|length }}{{ "
                    "d|list }}{{ "
                    "d.get('b') }}{% for k in d %}{{ k }}{% endfor %}{{ dict(x=1, y='z') }}{{ dict(d, b=9) }}",
    "tojson": "{{ messages|tojson }}\n{{ messages|tojson(indent=2) "
              "}}\n{{ messages|tojson(ensure_ascii=true) }}\n{{ messages|tojson(separators=(',', ':')) }}\n{{ "
              "messages|tojson(sort_keys=true) }}\n{{ {'a': [], 'b': {}}|tojson(indent=4) }}{{ [1.0, 1e22, 1e-5, 0.1, "
              "100000.0, -0.0, 123456789012, 1.5e300]|tojson }}{{ '</s>&\\u2028\\x7f\\x01\"\\\\/'|tojson }}{{ {1: 2, "
              "none: 3, true: 4}|tojson }}{{ (1, 2)|tojson }}{{ none|tojson }}{{ 'é'|tojson(ensure_ascii=true) }}{{ "
              "'😀'|tojson(ensure_ascii=true) }}",
    "tojson tools": "{% if tools %}{{ tools|tojson }}{{ tools|tojson(indent=2) }}{{ tools }}{{ tools|string }}{% "
                    "endif %}",
    "tojson generator": "{{ [1]|map('string')|tojson }}",
    "select": "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ messages|rejectattr('role', 'in', "
              "['user', 'tool'])|map(attribute='role')|list }}{{ [1, 2, 3, 4]|select('odd')|list }}{{ [0, 1, '', 'a']|"
              "select|list }}{{ [1, 2, none]|reject('none')|list }}{{ [1, 2, 3]|select('>', 1)|list }}{{ messages|"
              "selectattr('tool_calls')|list|length }}{{ messages|selectattr('tool_calls', 'defined')|list|length }}",
    "map": "{{ messages|map(attribute='role')|join(',') }}{{ ['a', 'b']|map('upper')|list }}{{ [[1, 2], "
           "[3]]|map('sum')|"
           "list }}{{ messages|map(attribute='x', default='-')|join }}{{ [' a ']|map('replace', 'a', 'b')|list }}{{ "
           "[{'a': {'b': 1}}]|map(attribute='a.b')|list }}{{ [[1, 2]]|map(attribute=0)|list }}",
    "sort": "{{ words|default(['b', 'A', 'c'])|sort }}{{ words|default([])|sort(case_sensitive=true) }}{{ [3, 1, "
            "2]|sort("
            "reverse=true) }}{{ messages|sort(attribute='role')|map(attribute='role')|list }}{{ "
            "words|default([])|unique|"
            "list }}{{ ['a', 'A', 'b']|unique(case_sensitive=true)|list }}{{ [3, 1]|min }}{{ ['b', 'A']|max }}{{ "
            "[]|min }}",
    "sort error": "{{ [1, 'a']|sort }}",
    "numbers": "{{ '42'|int }}{{ ' 4_2 '|int }}{{ 'x'|int }}{{ 'x'|int(7) }}{{ '3.9'|int }}{{ 3.9|int }}{{ "
               "-3.9|int }}{{ "
               "none|int }}{{ '1.5'|float }}{{ 'x'|float }}{{ 3|float }}{{ -3|abs }}{{ 2.5|round }}{{ "
               "2.675|round(2) }}{{ "
               "42|round }}{{ 2.1|round(method='ceil') }}{{ 2.19|round(1, 'floor') }}{{ 1234|round(-2) }}{{ [1, "
               "2.5]|sum "
               "}}{{ [1, 2]|sum(start=10) }}{{ true|int }}{{ '1e3'|float }}{{ 3.5|round }}{{ 'inf'|float }}",
    "text filters": "{% set s = s|default('a b') %}{{ s|title }}|{{ s|capitalize }}|{{ s|upper }}|{{ "
                    "s|replace('o', '0') "
                    "}}|{{ s|trim }}|{{ 'xxaxx'|trim('x') }}|{{ s|length }}|{{ s|list }}|{{ s|first }}|{{ s|last "
                    "}}|{{ s|"
                    "reverse }}|{{ s|string }}|{{ 5|string ~ '5' }}|{{ s|safe }}|{{ [1, 2]|first }}|{{ [1, "
                    "2]|last }}|{{ "
                    "[]|first }}|{{ [3, 2]|reverse|list }}|{{ s|wordcount }}|{{ s|truncate(9) }}|{{ s|center(40) }}|{{ "
                    "'<&>'|e }}|{{ [1, none, 'a']|join('-') }}|{{ 'abc'|join(',') }}|{{ s|truncate(9, true, '!') }}",
    "indent": "{% set t = 'a\\nb\\n\\nc' %}{{ t|indent }}|{{ t|indent(2, true) }}|{{ t|indent(2, blank=true) }}|{{ "
              "(t ~ '\\n')|indent('> ') }}|{{ ''|indent }}|{{ 'x'|indent(first=true) }}|{{ documents[0].text|indent if "
              "documents }}",
    "default": "{{ x|default('d') }}{{ ''|default('d', true) }}{{ none|default('d') }}{{ none|d('e', "
               "boolean=true) }}{{ "
               "nothing|default }}{{ nothing|default(default_value=3) }}{{ messages.x|default([])|length }}",
    "tests": "{% for v in [none, true, 1, 1.5, 'a', [], {}, (), nothing, range(2)] %}{{ v is none }}{{ v is "
             "string }}{{ v "
             "is mapping }}{{ v is iterable }}{{ v is sequence }}{{ v is true }}{{ v is false }}{{ v is boolean "
             "}}{{ v is "
             "number }}{{ v is integer }}{{ v is float }}{{ v is defined }}{{ v is undefined }}{{ v is not none "
             "}}{{ v is "
             "callable }} {% endfor %}",
    "tests 2": "{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 1 is in [1, 2] "
               "}}{{ 1 is "
               "not in [1] }}{{ 1 is eq 1 }}{{ 1 is ne 2 }}{{ 2 is gt 1 }}{{ 2 is lt(3) }}{{ 2 is ge 2 }}{{ 2 is "
               "le 1 }}{{ "
               "'a' is equalto 'a' }}{{ namespace is callable }}{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ none "
               "is sameas "
               "none }}{{ 'x' is string and 1 is number }}{{ 1 is defined or nothing }}{{ 'tojson' is filter }}{{ "
               "'a' if x "
               "is defined else 'b' }}{{ 'odd' is test }}",
    "odd string": "{{ 'a' is odd }}",
    "unknown filter": "{{ 1|from_json }}",
    "unknown test": "{{ 1 is fancy }}",
    "range": "{{ range(3)|list }}{{ range(1, 7, 2)|list }}{{ range(5, 0, -2)|list }}{{ range(3) }}{{ range(1, 9, "
             "2) }}{{ "
             "range(4)|length }}{{ range(0)|list }}{% for i in range(2) %}{{ i }}{% endfor %}",
    "range limit": "{{ range(1000000)|length }}",
    "raise": "{% if messages|length != 1 %}{{ raise_exception('one message only: ' ~ messages|length) }}{% endif %}ok",
    "strftime": "{{ strftime_now('%Y-%m-%d') }}{{ strftime_now('%d %b %Y') }}{{ strftime_now('%B %d, %Y') }}",
    "filter block": "{% filter upper %}abc{{ messages|length }}{% endfilter %}{% filter replace('a', 'b')|trim %} "
                    "aaa {% "
                    "endfilter %}",
    "with": "{% with a=1, b='x' %}{{ a }}{{ b }}{% set c = 2 %}{% endwith %}{{ a }}{{ c }}",
    "generators": "{% set g = [1, 2]|map('string') %}{{ g|join }}{{ g|join }}{{ ([1, 2]|select|list)[0] }}",
    "generator length": "{{ [1]|map('string')|length }}",
    "dict views": "{{ {'a': 1}.items()|length }}{{ {'a': 1}.keys()|first }}{% for k, v in {'a': 1}|dictsort %}{{ "
                  "k }}{{ v "
                  "}}{% endfor %}{{ 'a' in {'a': 1}.keys() }}{{ {'a': 1}.values()|list }}",
    "items of context": "{% for k, v in (items|default({})).items() %}{{ k }}{{ v }}{% endfor %}{{ items|default({})|"
                        "dictsort }}{% for k, v in items|default({})|items %}{{ k }}{{ v }}{% endfor %}",
    "items error": "{{ 1|items|list }}",
    "content parts": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is "
                     "iterable and "
                     "m.content is not mapping %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% elif "
                     "'image' in p or p['type'] == 'image' %}<img>{% endif %}{% endfor %}{% else %}{{ m.content "
                     "}}{% endif "
                     "%}{% endfor %}",
    "batch": "{{ [1, 2, 3, 4, 5]|batch(2)|list }}{{ [1, 2, 3]|batch(2, 0)|list }}",
    "set shadows": "{% set messages = messages[:1] %}{{ messages|length }}{% set true_value = true %}{{ true_value }}",
    "syntax 1": "{% if %}{% endif %}", "syntax 2": "{{ 1 + }}", "syntax 3": "{% for x in [1] %}",
    "syntax 4": "{{ 'a }}",
    "syntax 5": "{% endif %}", "syntax 6": "{{ (1 }}", "syntax 7": "{% set = 1 %}", "syntax 8": "{{ a b }}",
    "syntax 9": "{% break %}", "syntax 10": "{# open", "syntax 11": "{{ }}", "syntax 12": "{% unknown %}",
    "syntax 13": "{{ {'a' 1} }}", "syntax 14": "{{ [1, 2 }}", "syntax 15": "{% macro f(a=1, b) %}{% endmacro %}",
    "syntax 16": "{{ f(a=1, 2) }}", "syntax 17": "{{ a..b }}", "syntax 18": "{% set none = 1 %}",
    "syntax 19": "{{ 1 is }}",
    "slice odd": "{{ messages['a':] }}", "slice odd 2": "{{ messages[nothing:] }}", "slice odd 3": "{{ (n or 5)[1:] }}",
    "slice odd 4": "{{ nothing[1:] }}",
    "slice step": "{{ 'abc'[::0] }}",
    "dict trailing": "{{ {'a': 1,} }}{{ [1,] }}{{ (1,) }}{{ [] }}{{ {} }}",
    "unhashable": "{{ {[1]: 2} }}",
    "lstrip chars": "{{ '<think>abc</think>'.lstrip('<think>') }}{{ 'xyabcyx'.rstrip('xy') }}",
    "loop in macro": "{% macro m(l) %}{% for x in l %}{{ x }}{{ ',' if not loop.last }}{% endfor %}{% endmacro "
                     "%}{% for "
                     "l in [[1, 2], [3]] %}{{ m(l) }};{{ loop.index }}{% endfor %}",
    "if in expression": "{{ 'a' if messages|length > 1 else 'b' ~ 'c' }}{{ ('x' if true) ~ 'y' }}{{ [1 if false "
                        "else 2] }}",
    "negatives": "{{ messages[-1].role if messages }}{{ [1, 2, 3][-2] }}{{ -1 * -1 }}{{ 3 - -3 }}{{ -(2) }}{{ "
                 "-2|abs }}",
    "precedence": "{{ 'x' + 3 ~ 4 * 5 }}{{ not true or true }}{{ 1 if true and false else 2 }}{{ 'a' ~ 'b'|upper "
                  "}}{{ -1|abs "
                  "+ 1 }}{{ 1 + 1 == 2 and 'y' }}{{ 2 ** 3 ** 2 }}{{ 10 - 3 - 2 }}{{ 2 * 3 % 4 }}",
}


def test_templates(oracle):
    env = jinja_environment()
    requests, wanted = [], []
    for (name, source), context in itertools.product(TEMPLATES.items(), CONTEXTS):
        try:
            expected = env.from_string(source).render(**context)
        except RecursionError:
            expected = None
        except Exception:
            expected = None
        raw = source.encode()
        requests.append(("T", struct.pack("=I", len(raw)) + raw + json.dumps(context).encode()))
        wanted.append((name, context, expected))
    errors = renders = 0
    for (name, context, expected), (status, body) in zip(wanted, ask(oracle, requests)):
        where = f"template {name!r} context {CONTEXTS.index(context)}"
        if expected is None:
            errors += 1
            check(status != 0, f"{where}: rendered, jinja2 fails: {body[:200]!r}")
            continue
        renders += 1
        if status:
            check(False, f"{where}: {body.decode()}")
            continue
        (n,) = struct.unpack_from("=I", body)
        spans = struct.unpack_from(f"={2 * n}I", body, 4)
        text = body[4 + 8 * n :]
        check(text.decode() == expected, f"{where}:\n  ours  {text.decode()!r}\n  wants {expected!r}")
        check(sum(spans[::2]) == len(text), f"{where}: spans do not cover the text")
    print(f"{len(TEMPLATES)} templates x {len(CONTEXTS)} contexts compared with jinja2 {jinja2.__version__}: "
          f"{renders} texts, {errors} errors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("oracle")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strings", type=int, default=60000, help="random strings for the main tokenizer")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    path = ROOT / "models/bookworm/tokenizer.json"
    test_templates(args.oracle)
    test_ranges(args.oracle, path, rng)
    test_tokenizers(args.oracle, path, rng, args.strings)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
