"""The gateway's own classifier, run without Envoy: the same Lua texts in the same LuaJIT, with a request that is a table, and users'
patterns matched by the same RE2.

So `fairlead explain` cannot say another class of a body than the gateway does. LuaJIT comes with the extra `explain`; the operator's
image has none, and nothing but this module asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fairlead.api.patterns import compile_pattern
from fairlead.gateway.lua import load_classifier, load_settler, pack_lookup

__all__ = ["Classification", "Classifier", "ClassifierMissingError"]

#: Envoy's objects, as far as the classifier uses them. `get` of an absent header gives no value at all, as Envoy's does.
_HANDLE: Final = rb"""
return function(headers, context, body, match)
  local result, spaces = { dynamic = {} }, {}
  local read_headers = {
    get = function(_, name) if headers[name] then return headers[name] end end,
    getNumValues = function(_, name) return headers[name] and 1 or 0 end,
  }
  local read_body = {
    length = function() return #body end,
    getBytes = function(_, from, size) return string.sub(body, from + 1, from + size) end,
  }
  local metadata = {
    set = function(_, space, key, value)
      spaces[space] = spaces[space] or {}
      spaces[space][key] = value
      if space == "fairlead" then result.dynamic[key] = value end
    end,
    get = function(_, space) return spaces[space] end,
  }
  local handle = {
    headers = function() return read_headers end,
    filterContext = function() return { get = function(_, name) return context[name] end } end,
    streamInfo = function() return { dynamicMetadata = function() return metadata end } end,
    body = function() return read_body end,
    logErr = function(_, text) result.failure = text end,
    respond = function(_, response, text) result.status, result.answer = response[":status"], text end,
  }
  first_filter(handle)
  if spaces["fairlead.text"] then
    local name = match(spaces["fairlead.text"].text)
    spaces["envoy.filters.http.rbac"] =
      { shadow_engine_result = name and "denied" or "allowed", shadow_effective_policy_id = name or nil }
  end
  if not result.status then last_filter(handle) end
  return result
end
"""


class ClassifierMissingError(Exception):
    """The extra `explain` is not installed."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What the classifier made of a request. `status` 0: it lets it go on; `code` and `message` are those of its answer otherwise.
    The rest is "" where it did not come so far."""

    status: int
    code: str = ""
    message: str = ""
    data_class: str = ""
    rule: str = ""
    verdict: str = ""
    chain: str = ""
    model: str = ""


class Classifier:
    """One state of Lua with the classifier in it. Raises ClassifierMissingError."""

    def __init__(self) -> None:
        try:
            from lupa.luajit21 import LuaRuntime
        except ImportError as error:
            raise ClassifierMissingError(
                "a body is read by the gateway's own Lua text, for which LuaJIT is missing: pip install 'fairlead[explain]'"
            ) from error
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False)
        for name, text in (("first_filter", load_classifier()), ("last_filter", load_settler())):
            self._lua.execute(f"{text}\n{name} = envoy_on_request".encode())
        self._run = self._lua.execute(_HANDLE)

    def classify(
        self,
        lookup: Mapping[str, Any],
        headers: Mapping[str, str],
        body: bytes,
        patterns: Mapping[str, str] | None = None,
    ) -> Classification:
        """A POST with this body. `lookup` is what `make_lookup` makes of the route's table, `patterns` what `name_patterns` does."""
        context = pack_lookup(lookup)

        def match(text: bytes) -> bytes | None:
            found = (name for name, regex in sorted((patterns or {}).items()) if compile_pattern(regex).fullmatch(text))
            return next((name.encode() for name in found), None)

        result = self._run(self._table(headers), self._table(context), body, match)
        found = {key.decode(): value.decode() for key, value in result[b"dynamic"].items()}
        error = json.loads(result[b"answer"])["error"] if result[b"answer"] is not None else {}
        return Classification(
            status=int(result[b"status"] or 0),
            code=str(error.get("code", "")),
            message=str(error.get("message", "")),
            data_class=found.get("class", ""),
            rule=found.get("rule", ""),
            verdict=found.get("verdict", ""),
            chain=found.get("chain", ""),
            model=found.get("model", ""),
        )

    def _table(self, texts: Mapping[str, str]) -> Any:
        table = self._lua.table()
        for name, text in texts.items():
            table[name.encode()] = text.encode()
        return table
