"""The detectors: what they find, however it is written, and what they leave alone."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.gateway.identifiers import ANY, cards, disguised, embedded, is_json, planted
from tests.unit.gateway.json_texts import string_texts
from tests.unit.gateway.scripts import Classifier, make_lookup

BUILTINS = ["Email", "Phone", "SSN", "IBAN", "PaymentCard", "Secrets", "PrivateKey"]
ONLY = {
    name: Classifier(make_lookup(detectors=[{"name": name, "class": "Restricted", "builtin": name}]))
    for name in BUILTINS
}
ALL = Classifier(make_lookup(detectors=[{"name": name, "class": "Restricted", "builtin": name} for name in BUILTINS]))


def message(text: str) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}]}


FOUND = [
    ("Email", "bob@example.com"),
    ("Email", "<Bob.O'Neil+x@mail.example.co.uk>"),
    ("Email", "write to bob＠example.com"),
    ("Email", "übung@exämple.de"),
    ("Phone", "+49 30 901820"),
    ("Phone", "+14155552671"),
    ("Phone", "tel:+44-20-7946-0958"),
    ("Phone", "(415) 555-2671"),
    ("Phone", "1-415-555-2671"),
    ("Phone", "415.555.2671"),
    ("SSN", "123-45-6789"),
    ("SSN", "123 45 6789."),
    ("SSN", "ssn=123456789"),
    ("SSN", "Social Security number 123456789"),
    ("IBAN", "DE89370400440532013000"),
    ("IBAN", "de89 3704 0044 0532 0130 00, thanks"),
    ("IBAN", "IBAN:GB82 WEST 1234 5698 7654 32"),
    ("IBAN", "NO9386011117947"),
    ("IBAN", "MT84MALT011000012345MTLCAST001S"),
    ("PaymentCard", "4111111111111111"),
    ("PaymentCard", "4111 1111 1111 1111"),
    ("PaymentCard", "4111-1111-1111-1111 exp 01/30"),
    ("PaymentCard", "order 12 4111 1111 1111 1111 3 items"),
    ("PaymentCard", "3782 822463 10005"),
    ("PaymentCard", "378282246310005"),
    ("PaymentCard", "5555555555554444"),
    ("PaymentCard", "2223003122003222"),
    ("PaymentCard", "6011111111111117"),
    ("PaymentCard", "30569309025904"),
    ("PaymentCard", "3530111333300000"),
    ("PaymentCard", "4222222222222"),
    ("PaymentCard", "card4111111111111111"),
    ("PaymentCard", "4111111111111111.0"),
    ("Secrets", "OPENAI_API_KEY=sk-proj-abcDEF1234567890abcd"),
    ("Secrets", "sk-" + "0123456789abcdef" * 2),
    ("Secrets", "AWS AKIAIOSFODNN7EXAMPLE."),
    ("Secrets", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk"),
    ("Secrets", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIiwibmFtZSI6IkoifQ.sflKxwRJSMeKKF2QT4fwpM"),
    ("PrivateKey", "-----BEGIN PGP PRIVATE KEY BLOCK-----"),
    ("PrivateKey", "PuTTY-User-Key-File-3: ssh-ed25519"),
]
LEFT = [
    ("Email", "@pytest.mark.parametrize"),
    ("Email", "npm i @types/node pkg@1.2.3"),
    ("Email", "user@localhost"),
    ("Email", "a @ b.com"),
    ("Phone", "2024-01-01 12:30:45"),
    ("Phone", "+2024-01-01 12:30:45"),
    ("Phone", "1 + 123456789"),
    ("Phone", "x+1234567890"),
    ("Phone", "1e+1234567890"),
    ("Phone", "+12345678901234567890"),
    ("Phone", "192.168.100.2000"),
    ("Phone", "1234567890"),
    ("Phone", "411-555-2671 and 211.555.2671"),
    ("Phone", "123-456-7890"),
    ("SSN", "000-12-3456"),
    ("SSN", "666-12-3456"),
    ("SSN", "900-12-3456"),
    ("SSN", "123-00-4567"),
    ("SSN", "123-45-0000"),
    ("SSN", "123-45-67890"),
    ("SSN", "1123-45-6789"),
    ("SSN", "123456789"),
    ("SSN", "class className 123456789"),
    ("SSN", "123-45.6789"),
    ("IBAN", "DE88370400440532013000"),
    ("IBAN", "DE8937040044053201300"),
    ("IBAN", "XX89370400440532013000"),
    ("IBAN", "DE893704004405320130001"),
    ("PaymentCard", "4111111111111112"),
    ("PaymentCard", "41111111111111111111"),
    ("PaymentCard", "1700000000008"),
    ("PaymentCard", "0.4111111111111111"),
    ("PaymentCard", "-12.4111111111111111"),
    ("PaymentCard", "5f2b4111111111111111aaaaaaaaaaaaaaaaaaaa"),
    ("PaymentCard", "aaaa4111-1111-1111-1111-aaaaaaaaaaaa"),
    ("PaymentCard", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
    ("Secrets", "risk-free scikit sk-learn sk-toggleable__label-arrow"),
    ("Secrets", "ASIA PACIFIC"),
    ("Secrets", "hf_model_name = 1; ghp_short; the eyJ prefix"),
    ("Secrets", "AKIAIOSFODNN7EXAMPLEX"),
    ("Secrets", "a PRIVATE KEY is private"),
    ("PrivateKey", "-----BEGIN PUBLIC KEY-----"),
    ("PrivateKey", "sk-proj-abcDEF1234567890abcd"),
]
KEYWORDS = {
    "password": (
        [
            "password",
            "PASSWORD",
            "my Password.",
            "DB_PASSWORD=x",
            "userPassword",
            "passwordHash",
            "password1",
            "passwords",
            "“password”",
            "p\u200bassword",
            "ｐａｓｓｗｏｒｄ",
            "pässwörd",
            "𝐩𝐚𝐬𝐬𝐰𝐨𝐫𝐝",
        ],
        ["passwordless", "mypassword", "pass word", "passphrase"],
    ),
    "credit_card": (
        [
            "credit card",
            "Credit  Card",
            "credit-card",
            "creditCard",
            "CREDIT_CARDS",
            "credit\u00a0\n card",
            "creditcard",
        ],
        ["credit a card", "accredit card", "credit cardiology"],
    ),
    "ssn": (["SSN", "the ssn: 1", "ssn2"], ["className", "classname", "lessness"]),
    "Übung": (["übung", "ÜBUNG", "U\u0308bung"], ["ub ung"]),
    "机密": (["这是机密文件"], ["机 密"]),
    "секрет": (["СЕКРЕТ", "секретно"], ["сек"]),
}


@pytest.mark.parametrize(("name", "text"), FOUND)
def test_found(name: str, text: str) -> None:
    assert ONLY[name].finds(message(text)) == name


@pytest.mark.parametrize(("name", "text"), LEFT)
def test_left_alone(name: str, text: str) -> None:
    assert ONLY[name].finds(message(text)) == ""


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_keywords_are_whole_words(keyword: str) -> None:
    classifier = Classifier(make_lookup(detectors=[{"name": "word", "class": "Confidential", "keywords": [keyword]}]))
    found, left = KEYWORDS[keyword]
    assert [text for text in found if classifier.finds(message(text)) != "word"] == []
    assert [text for text in left if classifier.finds(message(text)) == "word"] == []


def test_every_decimal_digit_of_unicode_is_folded() -> None:
    for code in range(0x80, 0x110000):
        if (value := unicodedata.decimal(chr(code), None)) is not None:
            card = "4111111111111111".replace(str(value), chr(code)) if value in (1, 4) else None
            text = card or f"{chr(code) * 4}".join(["+4930", "11"]) + chr(code)
            assert ALL.finds(message(text)) in ("PaymentCard", "Phone"), hex(code)


def test_the_highest_class_settles_it_whatever_the_order() -> None:
    detectors = [
        {"name": "low", "class": "Internal", "keywords": ["alpha"]},
        {"name": "high", "class": "Restricted", "keywords": ["gamma"]},
        {"name": "middle", "class": "Confidential", "keywords": ["beta"]},
    ]
    for order in (detectors, detectors[::-1]):
        classifier = Classifier(make_lookup(detectors=order))
        assert classifier.finds(message("alpha beta gamma")) == "high"
        assert classifier.finds(message("gamma beta alpha")) == "high"
        assert classifier.finds(message("alpha beta")) == "middle"
        assert classifier.run(message("alpha")).dynamic["fairlead:class"] == "Internal"


@pytest.mark.parametrize(
    "number",
    ["4111111111111111", "4111111111111111.0", "4.111111111111111e15", "-4111111111111111", "4.111111111111111E+15"],
)
def test_a_card_as_a_number(number: str) -> None:
    assert ALL.finds(f'{{"model":"chat","x":{{"card":[{number}]}}}}'.encode()) == "PaymentCard"


def test_a_nine_digit_number_under_a_key_that_names_it() -> None:
    assert ALL.finds(b'{"model":"chat","x":{"ssn":123456789}}') == "SSN"
    assert ALL.finds(b'{"model":"chat","x":{"size":123456789}}') == ""


def test_strings_are_never_joined() -> None:
    assert ALL.finds({"model": "chat", "x": ["4111 1111", "1111 1111"], "y": ["123-45", "-6789"]}) == ""
    assert ALL.finds(b'{"model":"chat","x":"4111 1111\\u001e1111 1111"}') == ""


@pytest.mark.parametrize("control", ["\\u0000", "\\b", "\\u001e", "\\u007f", "\\u0085", "\x7f"])
def test_control_characters_hide_nothing(control: str) -> None:
    classifier = Classifier(
        make_lookup(detectors=[{"name": "word", "class": "Confidential", "keywords": ["credit card"]}])
    )
    text = "credit" + control + ("card" if control == "\\u0085" else " card")
    assert classifier.finds(f'{{"model":"chat","x":"{text}"}}'.encode()) == "word"


@pytest.mark.parametrize("name", BUILTINS)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_an_identifier_is_found_wherever_and_however_it_is_written(name: str, data: st.DataObject) -> None:
    text = data.draw(disguised(data.draw(ANY[name])))
    body = data.draw(planted(data.draw(embedded(text))))
    assert is_json(body)
    assert ONLY[name].finds(body) == name


@given(cards().filter(str.isdigit), st.data())
@settings(max_examples=50, deadline=None)
def test_a_keyword_and_a_card_beside_long_text(card: str, data: st.DataObject) -> None:
    padding = "The quick brown fox. " * data.draw(st.integers(0, 400))
    literal = data.draw(string_texts(card))
    assert ALL.finds(f'{{"model":"chat","input":["{padding}",{literal},"{padding}"]}}'.encode()) == "PaymentCard"
