"""The scripts are linear: work is counted, not time. A worker of Envoy does nothing else while Lua runs.

Work is the instructions of the virtual machine plus the bytes that string functions look at. So that those can be told from outside,
patterns may only be of four kinds, and this watches over it: plain text, a class of one byte to search for, an anchored run
`^class*`, a fixed length (`?` allowed). In gsub, a fixed length that ends in one run. None of them can backtrack.
"""

from __future__ import annotations

import json
from typing import Final

import pytest
from tests.unit.gateway.scripts import POST, Script, make_lookup

from fairlead.gateway.lua import load_classifier, load_egress, pack_lookup

COUNTING: Final = r"""
jit.off()
WORK, STEPS, BAD = 0, 0, {} -- two counters: the hook may strike between a read and a write of one
local find, gsub, sub, lower, upper = string.find, string.gsub, string.sub, string.lower, string.upper
local concat = table.concat
local kinds = {}
local function kind_of(pattern)
  local kind = kinds[pattern]
  if kind then return kind end
  local i, items, runs, last = 1, 0, 0, false
  local anchored = sub(pattern, 1, 1) == "^"
  if anchored then i = 2 end
  while i <= #pattern do
    local c = sub(pattern, i, i)
    if c == "(" or c == ")" then i = i + 1
    else
      if c == "%" then i = i + 2
      elseif c == "[" then i = select(2, find(pattern, "^%[%^?.[^%]]*%]", i)); while sub(pattern, i - 1, i - 1) == "%" do
        i = find(pattern, "]", i + 1, true) end i = i + 1
      else i = i + 1 end
      items, last = items + 1, false
      local q = sub(pattern, i, i)
      if q == "?" then i = i + 1 elseif q == "*" or q == "+" or q == "-" then runs, last, i = runs + 1, true, i + 1 end
    end
  end
  if runs == 0 then kind = anchored and "fixed" or "search"
  elseif anchored and runs == 1 and items == 1 then kind = "run"
  elseif not anchored and runs == 1 and last then kind = "substitution"
  else kind = "forbidden" end
  kinds[pattern] = kind
  return kind
end
string.find = function(s, p, i, plain)
  i = i or 1
  local a, b, c, d = find(s, p, i, plain)
  local kind = (plain or not find(p, "[%^%$%*%+%?%.%(%[%%%-]")) and "search" or kind_of(p)
  if kind == "search" then WORK = WORK + (a and b or #s) - i + 2
  elseif kind == "run" then WORK = WORK + b - i + 2
  elseif kind == "fixed" then WORK = WORK + #p
  else BAD[#BAD + 1] = p end
  return a, b, c, d
end
string.gsub = function(s, p, r)
  local kind = kind_of(p)
  if kind == "forbidden" or kind == "run" then BAD[#BAD + 1] = p end
  local t, n = gsub(s, p, r)
  WORK = WORK + #s + #t
  return t, n
end
string.sub = function(s, i, j) local r = sub(s, i, j); WORK = WORK + #r; return r end
string.lower = function(s) WORK = WORK + #s; return lower(s) end
string.upper = function(s) WORK = WORK + #s; return upper(s) end
table.concat = function(t, s) local r = concat(t, s); WORK = WORK + #r; return r end
string.match, string.gmatch, string.rep = nil, nil, nil -- not counted, so not there
debug.sethook(function() STEPS = STEPS + 100 end, "", 100)
"""
BUILTINS = ["Email", "Phone", "SSN", "IBAN", "PaymentCard", "Secrets"]
DETECTORS = [{"name": name, "class": "Restricted", "builtin": name} for name in BUILTINS]
DETECTORS.append(
    {"name": "words", "class": "Confidential", "keywords": ["password", "credit card number", "aa", "social"]}
)
CONTEXT = pack_lookup(make_lookup(detectors=DETECTORS, patterns="Restricted"))
SIZE = 1 << 14

#: What stands in a string, over and over, as its JSON source.
UNITS = [
    "x",
    "lorem ipsum ",
    "1",
    "9",
    "0",
    "1 ",
    "10 ",
    "100 ",
    "4111 ",
    "4111-",
    "41111111111111111111 ",
    "123-45-",
    "123-45-6780",
    "@",
]
UNITS += [
    "a@",
    "a@b.",
    "a@b-",
    "@a.b@",
    "+",
    "+1",
    "+1 ",
    "+1(2)",
    "+123456789012345678",
    "(555)",
    "555-555-",
    "DE",
    "DE89",
    "DE89 ",
]
UNITS += [
    "GB82 WEST ",
    "sk-",
    "sk-A1-",
    "ghp_",
    "ghp_a",
    "xoxb-",
    "AKIA",
    "ASIAX",
    "AIza",
    "hf_",
    "nvapi-",
    "eyJ",
    "eyJa.",
    "eyJaaaaaaaaaa.",
]
UNITS += [
    "PRIVATE KEY",
    "BEGIN ",
    "password",
    "xpassword",
    "credit ",
    "credit      card ",
    "credit card ",
    "credit_",
    "aa",
    "a",
    "ssn ",
    "ssn123456789",
]
UNITS += [
    "social 123456789 ",
    r"\\",
    r"\\\\",
    r"\"",
    r"\n",
    r"\\n",
    r"\\u",
    r"\\\\u0041",
    r"\u0041",
    r"\u005c",
    r"\u005cu005c",
    r"\ud83d\ude00",
]
UNITS += [
    r"\u0000",
    r"\u001e",
    r"\b",
    "[",
    "{",
    "]",
    "\u200b",
    "\u00ad",
    "４",
    "é",
    "文",
    "я",
    "😀",
    "\x7f",
    r"{\"a\":1}",
    r"{\\\"a\\\":1}",
    "a.b-c_d/e ",
]
#: What stands in an array, over and over.
ITEMS = [
    "1",
    "1.5",
    "-0.12345678901",
    "1e300",
    "123456789",
    '""',
    '"a"',
    '"\\\\"',
    "[]",
    "{}",
    "null",
    '{"a":1}',
    "[[[[1]]]]",
    '{"type":"text"}',
    " 1 ",
    '"é"',
]


def with_string(unit: str, size: int) -> bytes:
    return f'{{"model":"chat","stream":true,"input":"{unit * (size // len(unit))}"}}'.encode()


def with_array(item: str, size: int) -> bytes:
    return f'{{"model":"chat","stream":true,"messages":[{",".join([item] * (size // len(item)))}]}}'.encode()


def with_keys(size: int) -> bytes:
    return json.dumps({"model": "chat", **{f"{'k' * 20}{n:06d}{'k' * 20}": n for n in range(size // 50)}}).encode()


def with_nested_json(size: int) -> bytes:
    text = "4111 \u0441 a@b \\" * (size // 100)
    for _ in range(4):
        text = json.dumps(text)
    return json.dumps({"model": "chat", "x": text}).encode()


def with_white_space(size: int) -> bytes:
    return b'{"model":"chat",' + b" \n" * (size // 2) + b'"x":1}'


def with_lines(size: int) -> bytes:
    return json.dumps({"model": "chat", "x": [{"a": "b"}] * (size // 40)}, indent=2).encode()


def unclosed(size: int) -> bytes:
    return b'{"model":"' + b"\\\\" * (size // 2)


def quotes(size: int) -> bytes:
    return b'{"model":"' + b'"' * size


def deep(size: int) -> bytes:
    return b'{"model":' + b"[" * size


BODIES = {f"string of {unit!r}": (lambda size, unit=unit: with_string(unit, size)) for unit in UNITS}
BODIES |= {f"array of {item!r}": (lambda size, item=item: with_array(item, size)) for item in ITEMS}
BODIES |= {
    make.__name__: make for make in (with_keys, with_nested_json, with_white_space, with_lines, unclosed, quotes, deep)
}
CLASSIFIER = Script(load_classifier(), COUNTING)
EGRESS = Script(load_egress(), COUNTING)


def work(script: Script, body: bytes) -> float:
    for _ in range(2):  # the first reads the policy
        script.lua.execute(b"WORK, STEPS, BAD = 0, 0, {}")
        outcome = script.run(body, POST, CONTEXT, {"model": "up", "usage": "true"})
        assert outcome.code != "classifier_failed", outcome
    assert script.lua.eval(b"table.concat(BAD, ' ')") == b""
    return float(script.lua.eval(b"WORK + STEPS"))


@pytest.mark.parametrize("name", BODIES)
def test_twice_the_text_is_at_most_twice_the_work(name: str) -> None:
    make = BODIES[name]
    for script in (CLASSIFIER, EGRESS):
        once, twice = work(script, make(SIZE)), work(script, make(2 * SIZE))
        assert twice < 2.5 * once, (once, twice)
        assert twice < 250 * len(make(2 * SIZE))


def test_the_count_sees_what_is_quadratic() -> None:
    slow = Script(
        "function envoy_on_request(h) local b = h:body() local s = b:getBytes(0, b:length()) local i = 1 "
        'while true do local a = string.find(s, "a", i, true) if not a then return end string.find(s, "^[a-z]*", a) i = a + 1 end end',
        COUNTING,
    )
    once, twice = work(slow, b"a" * 1000), work(slow, b"a" * 2000)
    assert twice > 3.5 * once


@pytest.mark.parametrize("pattern", ["^a*b*", "a+b", "^(%d+)%.?%d*$", "a-b", "[a-z]+@"])
def test_a_pattern_that_can_backtrack_is_noticed(pattern: str) -> None:
    script = Script(f'function envoy_on_request(h) string.find("aaa", "{pattern}") end', COUNTING)
    script.run(b"")
    assert script.lua.eval(b"#BAD") == 1
