"""Planted secrets and the search for them: law 6, judged by looking everywhere instead of by reading code.

Every secret value that a test plants holds the canary's mark (`plant` makes one). Whoever finds the mark outside of a Secret, in
plain text or encoded, has found a leak. Words of containers are an exception by nature: what an engine printed stands in its pod's
own status and log, where the kubelet put it; from there it may go nowhere.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from fairlead_cluster.kubectl import Kubectl

MARK: Final = "c4nary"
_ENCODED: Final = re.compile(r"e[AFJN][A-Za-z0-9+/]{20,}={0,2}")  # base64 of zlib, as the recorded pod template is
_BASE64: Final = tuple(
    base64.b64encode(b"\0" * shift + MARK.encode())[[0, 2, 3][shift] : -3 if (shift + len(MARK)) % 3 else None].decode()
    for shift in range(3)
)
_CONTEXT: Final = 60


def plant(prefix: str = "hf_") -> str:
    """A fresh secret value that looks like one, with the mark in it."""
    return f"{prefix}{MARK}{secrets.token_hex(8)}"


def find_marks(text: str, also: Iterable[str] = ()) -> Iterator[str]:
    """Each place where the mark, or one of the values in `also`, stands in `text`, with a little of what is around it."""
    for needle in (MARK, *_BASE64, *also):
        start = 0
        while (at := text.find(needle, start)) >= 0:
            yield text[max(0, at - _CONTEXT) : at + len(needle) + _CONTEXT].replace("\n", " ")
            start = at + len(needle)
    for match in _ENCODED.finditer(text):
        try:
            hidden = zlib.decompress(base64.b64decode(match[0])).decode()
        except (ValueError, zlib.error):
            continue
        for found in find_marks(hidden, also):
            yield f"(encoded) {found}"


def list_kinds(kubectl: Kubectl) -> list[str]:
    """Every kind of object that can be listed, Secrets apart."""
    kinds = kubectl("api-resources", "--verbs=list", "--no-headers", "-o", "name").split()
    return sorted(kind for kind in kinds if kind not in ("secrets", "componentstatuses"))


def search_objects(kubectl: Kubectl, also: Iterable[str] = ()) -> list[str]:
    """Marks in all objects of all kinds but Secrets; in pods everywhere but in what the kubelet quotes of their containers."""
    also = tuple(also)
    items = json.loads(kubectl("get", ",".join(list_kinds(kubectl)), "-A", "-o", "json", timeout_s=300.0))["items"]
    findings = []
    for item in items:
        where = f"{item['kind']} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
        shown = _without_last_words(item) if item["kind"] == "Pod" else item
        findings += [f"{where}: …{found}…" for found in find_marks(json.dumps(shown, ensure_ascii=False), also)]
    return findings


def _without_last_words(pod: dict[str, Any]) -> dict[str, Any]:
    status = {key: value for key, value in pod.get("status", {}).items() if not key.endswith("ontainerStatuses")}
    return {**pod, "status": status}


def search_files(paths: Iterable[Path], also: Iterable[str] = ()) -> list[str]:
    """Marks in files."""
    also = tuple(also)
    return [f"{path.name}: …{found}…" for path in paths for found in find_marks(path.read_text(errors="replace"), also)]


def search_pages(url: str, also: Iterable[str] = ()) -> list[str]:
    """Marks on the pages of a running operator."""
    findings = []
    for page in ("/metrics", "/debug/queue", "/healthz", "/readyz"):
        try:
            with urllib.request.urlopen(url + page, timeout=10) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:  # an unhealthy operator speaks too
            text = error.read().decode()
        findings += [f"{page}: …{found}…" for found in find_marks(text, also)]
    return findings
