"""Identifiers made from nothing, with their check digits, and the ways in which people and programs write them.

Shares nothing with the Lua detectors: the sums are computed here in their textbook form.
"""

from __future__ import annotations

import json
import string
import unicodedata
from random import Random

from hypothesis import strategies as st
from tests.unit.gateway.json_texts import string_texts

WORDS = string.ascii_letters + string.digits
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\ufe0f\u034f\u0301"
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212\uff0d"
SPACES = " \u00a0\u2007\u202f\u3000\u2009"
#: All decimal digits that this Python knows.
DIGITS = {
    value: [chr(code) for code in range(0x30, 0x20000) if unicodedata.decimal(chr(code), None) == value]
    for value in range(10)
}
#: Prefix, total length, groups as printed.
CARDS = [
    ("4", 16, (4, 4, 4, 4)),
    ("4", 13, (4, 3, 3, 3)),
    ("4", 19, (4, 4, 4, 4, 3)),
    ("51", 16, (4, 4, 4, 4)),
    ("2221", 16, (4, 4, 4, 4)),
    ("34", 15, (4, 6, 5)),
    ("37", 15, (4, 6, 5)),
    ("36", 14, (4, 6, 4)),
    ("6011", 16, (4, 4, 4, 4)),
    ("3530", 16, (4, 4, 4, 4)),
    ("62", 19, (6, 13)),
    ("5018", 16, (4, 4, 4, 4)),
]
IBANS = {
    "DE": "n18",
    "GB": "a4n14",
    "FR": "n10c11n2",
    "NL": "a4n10",
    "NO": "n11",
    "MT": "a4n5c18",
    "CH": "n5c12",
    "BE": "n12",
}


def luhn_sum(number: str) -> int:
    total = 0
    for place, digit in enumerate(reversed(number)):
        total += sum(divmod(int(digit) * (1 + place % 2), 10))
    return total


def digits(size: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=size, max_size=size)


@st.composite
def cards(draw: st.DrawFn) -> str:
    """A payment card, in one run or in its groups."""
    prefix, length, groups = draw(st.sampled_from(CARDS))
    body = prefix + draw(digits(length - len(prefix) - 1))
    number = next(body + check for check in "0123456789" if luhn_sum(body + check) % 10 == 0)
    separator = draw(st.sampled_from(["", "-", " ", "."]))
    parts, at = [], 0
    for size in groups:
        parts.append(number[at : at + size])
        at += size
    return separator.join(parts)


@st.composite
def ibans(draw: st.DrawFn) -> str:
    """An IBAN, in one run or in groups of four."""
    country = draw(st.sampled_from(sorted(IBANS)))
    account, pattern = "", IBANS[country]
    while pattern:
        kind, rest = pattern[0], pattern[1:].lstrip(string.digits)
        size = int(pattern[1 : len(pattern) - len(rest)])
        alphabet = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}[kind]
        account += draw(st.text(alphabet, min_size=size, max_size=size))
        pattern = rest
    check = 98 - int("".join(str(int(char, 36)) for char in account + country + "00")) % 97
    iban = f"{country}{check:02d}{account}"
    if draw(st.booleans()):
        iban = " ".join(iban[k : k + 4] for k in range(0, len(iban), 4))
    return iban.lower() if draw(st.booleans()) else iban


@st.composite
def ssns(draw: st.DrawFn) -> str:
    area = draw(st.integers(1, 899).filter(lambda n: n != 666))
    separator = draw(st.sampled_from("- ."))
    return f"{area:03d}{separator}{draw(st.integers(1, 99)):02d}{separator}{draw(st.integers(1, 9999)):04d}"


def _area() -> st.SearchStrategy[int]:
    return st.integers(200, 999).filter(lambda n: n % 100 != 11)


@st.composite
def phones(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        form = draw(
            st.sampled_from(
                ["({}) {}-{}", "({}){}-{}", "{}-{}-{}", "{}.{}.{}", "{} {} {}", "1-{}-{}-{}", "+1 ({}) {}-{}"]
            )
        )
        return form.format(draw(_area()), draw(_area()), draw(digits(4)))
    form = draw(st.sampled_from(["+{}{}{}", "+{} {} {}", "+{}-{}-{}", "+{} ({}) {}", "+{}.{}{}"]))
    return form.format(
        draw(st.sampled_from(["49", "44", "33", "351", "7", "86", "1"])), draw(digits(3)), draw(digits(6))
    )


@st.composite
def emails(draw: st.DrawFn) -> str:
    local = draw(st.text(WORDS + "._+-", min_size=1, max_size=8)) + draw(st.sampled_from(WORDS))
    labels = draw(
        st.lists(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8), min_size=1, max_size=3)
    )
    return f"{local}@{'.'.join(labels)}.{draw(st.sampled_from(['com', 'de', 'co.uk', 'museum', 'xn--p1ai']))}"


@st.composite
def secrets(draw: st.DrawFn) -> str:
    prefix, alphabet, size = draw(
        st.sampled_from(
            [
                ("sk-", WORDS, 48),
                ("sk-proj-", WORDS + "_-", 60),
                ("sk-ant-api03-", WORDS + "_-", 90),
                ("ghp_", WORDS, 36),
                ("ghs_", WORDS, 36),
                ("github_pat_", WORDS + "_", 82),
                ("glpat-", WORDS + "_-", 20),
                ("xoxb-1234567890-", WORDS, 24),
                ("xapp-1-", WORDS, 40),
                ("AKIA", string.ascii_uppercase + "234567", 16),
                ("ASIA", string.ascii_uppercase + "234567", 16),
                ("AIza", WORDS + "_-", 35),
                ("hf_", WORDS, 34),
                ("nvapi-", WORDS + "_-", 64),
                ("sk_live_", WORDS, 24),
                ("rk_live_", WORDS, 24),
            ]
        )
    )
    body = draw(st.text(alphabet, min_size=size - 2, max_size=size - 2))
    return prefix + (body + "A7" if prefix not in ("AKIA", "ASIA") else body + "Q7")


@st.composite
def tokens(draw: st.DrawFn) -> str:
    part = st.text(WORDS + "_-", min_size=10, max_size=40)
    return f"eyJ{draw(part)}.{draw(part)}.{draw(part)}"


def private_keys() -> st.SearchStrategy[str]:
    return st.sampled_from(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]).map(
        lambda kind: f"-----BEGIN {kind}PRIVATE KEY-----"
    )


ANY = {
    "PaymentCard": cards(),
    "IBAN": ibans(),
    "SSN": ssns(),
    "Phone": phones(),
    "Email": emails(),
    "Secrets": st.one_of(secrets(), tokens(), private_keys()),
    "PrivateKey": private_keys(),
}


@st.composite
def disguised(draw: st.DrawFn, text: str) -> str:
    """The same to a reader: other digits, letters, spaces and dashes, and between them what nobody sees."""
    chance, out = Random(draw(st.integers(0, 2**32 - 1))), []
    for char in text:
        if chance.random() < 0.25:
            if char.isdigit():
                char = chance.choice(DIGITS[int(char)])
            elif "!" <= char <= "~":
                char = chance.choice([char, chr(ord(char) + 0xFEE0)])
            elif char == " ":
                char = chance.choice(SPACES)
            if char in "-\uff0d":
                char = chance.choice(DASHES)
        out.append(char)
        if chance.random() < 0.1:
            out.append(chance.choice(INVISIBLE))
    return "".join(out)


@st.composite
def embedded(draw: st.DrawFn, text: str) -> str:
    """With text around it that does not touch it."""
    before = draw(st.sampled_from(["", "", "see ", "x: ", "(", '"', "=", "\n", "日本", "value,", "12 apples; "]))
    after = draw(st.sampled_from(["", "", " and", ", then", ")", '"', "\n", "。", ";", "!"]))
    return before + text + after


@st.composite
def planted(draw: st.DrawFn, text: str) -> bytes:
    """A request that holds the text in some key or string, perhaps in JSON inside a string, up to three layers of it."""
    layers = draw(st.integers(0, 3))
    for _ in range(layers):
        inner = draw(string_texts(text))
        text = draw(st.sampled_from(["%s", '{"a":1,"b":%s}', "{%s:null}", "[[%s]]", "data: %s\n\n"])) % inner
    literal = draw(string_texts(text))
    body = draw(
        st.sampled_from(
            [
                '"messages":[{"role":"user","content":%s}]',
                '"messages":[{"role":"user","content":[{"type":"text","text":%s}]}]',
                '"input":%s',
                '"prompt":["a",%s]',
                '"user":%s',
                '"tools":[{"type":"function","function":{"name":"f","description":%s}}]',
                '"metadata":{%s:"x"}',
                '"x":[[[{"y":[null,%s]}]]]',
                '"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":%s}}]}]',
            ]
        )
    )
    return ('{"model":"chat","stream":true,' + body % literal + "}").encode()


def is_json(data: bytes) -> bool:
    """Guards the strategies against themselves."""
    return isinstance(json.loads(data), dict)
