"""Runs the gateway's Lua texts as Envoy does, with a handle that is a table: LuaJIT is the same, the requests are ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lupa.luajit21 import LuaRuntime

from fairlead.gateway.lua import load_classifier, load_egress, load_settler, pack_lookup

CLASSES: Final = ("Public", "Internal", "Confidential", "Restricted")

#: Envoy's objects, as far as the texts use them. `get` of an absent header gives no value at all, as Envoy's does.
#: Envoy's LuaJIT knows `__pairs`, this one does not.
_PAIRS: Final = b"""
local plain = pairs
function pairs(t)
  local meta = getmetatable(t)
  if meta and meta.__pairs then return meta.__pairs(t) end
  return plain(t)
end
"""

_HANDLE: Final = rb"""
return function(headers, context, metadata, body, spaces)
  local result = { dynamic = {}, log = {}, looked_up = {} }
  local waits = 0 -- an object that was fetched before the script waited for the body is dead behind it
  local function live(methods)
    local born = waits
    return setmetatable({}, {
      __index = function(_, name)
        if born ~= waits then error("object used outside of proper scope") end
        return methods[name]
      end,
      __pairs = function() return next, headers, nil end,
    })
  end
  local header_methods = {
    get = function(_, name)
      if headers[name] then return table.concat(headers[name], ",") end
    end,
    remove = function(_, name)
      headers[name] = nil
      result.headers = headers
    end,
    replace = function(_, name, value)
      headers[name] = { value }
      result.headers = headers
    end,
    getNumValues = function(_, name) return headers[name] and #headers[name] or 0 end,
  }
  local body_methods = {
    length = function() return #body end,
    getBytes = function(_, from, size) return string.sub(body, from + 1, from + size) end,
    setBytes = function(_, text) result.body = text end,
  }
  local function reader(data)
    return { get = function(_, name)
      result.looked_up[#result.looked_up + 1] = name
      return data[name]
    end }
  end
  local dynamic = {
    get = function(_, space)
      if spaces[space] then return spaces[space] end
    end,
    set = function(_, space, key, value)
      if type(value) ~= "string" then error("text only") end
      result.dynamic[space .. ":" .. key] = value
    end,
  }
  local handle = {
    headers = function() return live(header_methods) end,
    filterContext = function() return live(reader(context)) end,
    metadata = function() return live(reader(metadata)) end,
    streamInfo = function() return live({ dynamicMetadata = function() return live(dynamic) end }) end,
    logErr = function(_, text) result.log[#result.log + 1] = text end,
  }
  function handle:body()
    waits = waits + 1
    if body then return live(body_methods) end
  end
  function handle:respond(response_headers, text)
    result.status, result.kind, result.answer = response_headers[":status"], response_headers["content-type"], text
  end
  envoy_on_request(handle)
  return result
end
"""


@dataclass(frozen=True)
class Outcome:
    """What a script did to a request. `status` 0: it let the request go on."""

    status: int
    answer: Any
    dynamic: Mapping[str, str]
    body: bytes | None
    log: Sequence[str]
    looked_up: Sequence[str]
    headers: Mapping[str, Sequence[str]] | None = None  # as the script left them; None: as they were

    @property
    def code(self) -> str:
        """`code` of the error, "" without one."""
        return str(self.answer["error"]["code"]) if self.answer else ""


class Script:
    """One text in one Lua state, as one worker of Envoy has it. `prelude` runs before the text is loaded."""

    def __init__(self, source: str, prelude: str = "") -> None:
        self.lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self.lua.execute(_PAIRS)
        if prelude:
            self.lua.execute(prelude.encode())
        self.lua.execute(source.encode())
        self._run = self.lua.execute(_HANDLE)

    def run(
        self,
        body: bytes | None,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        dynamic: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Outcome:
        """One request through `envoy_on_request`. `dynamic`: what filters before it have written."""
        lists = {k: [v] if isinstance(v, str) else list(v) for k, v in (headers or {}).items()}
        given = (self._table(one or {}) for one in (context, metadata))
        result = self._run(self._table(lists), *given, body, self._table(dynamic or {}))
        answer = result[b"answer"]
        assert answer is None or result[b"kind"] == b"application/json"
        return Outcome(
            status=int(result[b"status"] or 0),
            answer=None if answer is None else json.loads(answer),
            dynamic={k.decode(): v.decode(errors="surrogateescape") for k, v in result[b"dynamic"].items()},
            body=result[b"body"],
            log=[v.decode() for v in result[b"log"].values()],
            looked_up=[v.decode() for v in result[b"looked_up"].values()],
            headers=None
            if result[b"headers"] is None
            else {k.decode(): [v.decode() for v in vs.values()] for k, vs in result[b"headers"].items()},
        )

    def _table(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, Mapping):
            table = self.lua.table()
            for key, item in value.items():
                table[key.encode()] = self._table(item)
            return table
        if isinstance(value, list):
            return self.lua.table(*(self._table(item) for item in value))
        return value


POST: Final = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}


def make_lookup(**changes: Any) -> dict[str, Any]:
    """A route whose verdicts say what was declared and detected: `p0|Public|Internal`. The model `chat` takes all of them, `local`
    takes what is Confidential or less; the class of a verdict is the higher of both, by default Internal."""
    verdicts: dict[str, dict[str, str]] = {"p0": {}, "p1": {}}
    classes_of: dict[str, str] = {}
    for profile, table in verdicts.items():
        for declared in ("-", *CLASSES):
            for detected in CLASSES:
                verdict = f"{profile}|{declared}|{detected}"
                table[f"{declared}|{detected}"] = verdict
                base = "Internal" if declared == "-" else declared
                classes_of[verdict] = max(base, detected, key=CLASSES.index)
    chains = {verdict: f"chain of {verdict}" for verdict in classes_of}
    lookup: dict[str, Any] = {
        "header": "x-data-classification",
        "classes": list(CLASSES),
        "consumers": {"team-a": "p0"},
        "anonymous": "p1",
        "detectors": [],
        "opaque": "Confidential",
        "verdicts": verdicts,
        "classes_of": classes_of,
        "models": {
            "chat": chains,
            "local": {verdict: chain for verdict, chain in chains.items() if classes_of[verdict] != "Restricted"},
            "empty": {},
        },
        "endpoints": ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/completions"],
    }
    return {key: value for key, value in (lookup | changes).items() if value is not None}


@dataclass
class Classifier:
    """The classifier with a route's data."""

    lookup: dict[str, Any] = field(default_factory=make_lookup)
    script: Script = field(default_factory=lambda: Script(load_classifier()))

    def __post_init__(self) -> None:
        self.context = pack_lookup(self.lookup)

    def run(self, body: Any, **headers: str | Sequence[str]) -> Outcome:
        """A POST; `body` is bytes or what becomes JSON. Header names with "_" for "-"; `path` is the path."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = headers.pop("path", POST[":path"])
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.script.run(data, {**POST, ":path": path, **named}, self.context)

    def finds(self, body: Any) -> str:
        """Name of the detector that settled the class of the request, "" if none did."""
        outcome = self.run(body)
        assert outcome.status in (0, 403), outcome
        rule = outcome.dynamic["fairlead:rule"]
        return "" if rule == "default" else rule


def make_settler() -> Script:
    """The text that settles what patterns found."""
    return Script(load_settler())


def make_egress() -> Script:
    """The egress text."""
    return Script(load_egress())
