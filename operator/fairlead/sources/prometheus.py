"""Asks Prometheus, or what speaks its API (Thanos, Mimir, VictoriaMetrics), how engines are doing.

prometheus-api-client is made for scripts: it waits without an end, tries again for seconds, and drops the warnings by which Thanos says
that an answer is not whole. So it runs in one thread of its own, on a session of ours: one request, a body of a limited size that is
kept as it came, and a socket that the loop can shut when time is up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fairlead.facts.observed import ObjectKey
from fairlead.facts.prometheus import PodLabels
from fairlead.facts.scaling import Sample, ScrapeWish, Target
from fairlead.sources.promql import make_query, read_answer

if TYPE_CHECKING:
    from fairlead.sources.promsession import PrometheusSession

__all__ = ["PrometheusSettings", "PrometheusSource"]

_SAID_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """`url`: with the prefix of its API, if it has one; `headers`: no secrets; `token_file`: read for each request, since tokens are
    changed under it; `ca_file`: authorities in place of the system's; `timeout_s`: for the whole of a request."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token_file: str = ""
    ca_file: str = ""
    timeout_s: float = 5.0
    labels: PodLabels = field(default_factory=PodLabels)


class _QueryError(Exception):
    """There is no usable answer; `str()` says why, for people, and holds no secret."""


class PrometheusSource:
    """One request at a time, for one LLMDeployment after another. `wall`: now."""

    def __init__(self, settings: PrometheusSettings, *, wall: Callable[[], datetime]) -> None:
        self._settings = settings
        self._wall = wall
        self._turn = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._given_up: asyncio.Future[list[Mapping[str, Any]]] | None = None
        self._session: PrometheusSession | None = None

    async def look(self, key: ObjectKey, wish: ScrapeWish, targets: Sequence[Target]) -> Sample:
        """What Prometheus says of the pods with these names, and of no others."""
        labels = self._settings.labels
        query = make_query(wish, key.namespace, (target.name for target in targets), labels)
        try:
            async with self._turn:
                result = await self._in_thread(query)
        except _QueryError as error:
            return Sample(self._wall(), wish.over_s, len(targets), 0, problem=str(error))
        return read_answer(result, wish, targets, labels, self._wall())

    def forget(self, key: ObjectKey) -> None:
        """Nothing is remembered."""

    async def close(self) -> None:
        """End the thread, whatever it waits for."""
        if self._session is not None:
            self._session.shut()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self._session, self._thread = None, None

    async def _in_thread(self, query: str) -> list[Mapping[str, Any]]:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                if self._given_up is not None:  # else questions would queue up behind it, to be asked when nobody waits
                    await asyncio.wait([self._given_up])
                    self._given_up = None
                return await self._submit(query)
        except TimeoutError as error:
            raise _QueryError(f"Prometheus does not answer within {self._settings.timeout_s:g} s") from error

    async def _submit(self, query: str) -> list[Mapping[str, Any]]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prometheus")
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, query)
        try:
            return await asyncio.shield(asked)
        finally:
            if not asked.done():
                self._given_up = asked
                asked.add_done_callback(lambda done: done.cancelled() or done.exception())
                if self._session is not None:
                    self._session.shut()

    def _ask(self, query: str) -> list[Mapping[str, Any]]:
        """In the thread."""
        from fairlead.sources.promsession import (
            PrometheusSession,  # 300 modules that an installation without does not need
        )

        settings = self._settings
        if self._session is None:
            self._session = PrometheusSession(settings.url, settings.ca_file, settings.timeout_s)
        headers = dict(settings.headers)
        if settings.token_file:
            try:
                headers["Authorization"] = f"Bearer {Path(settings.token_file).read_text().strip()}"
            except (OSError, UnicodeDecodeError) as error:
                raise _QueryError(f"the token for Prometheus cannot be read: {type(error).__name__}") from error
        return _read_body(*self._session.ask(query, headers))


def _read_body(status: int, kind: str, body: bytes, failure: str) -> list[Mapping[str, Any]]:
    """The series of an answer of `/api/v1/query`. `failure`: why there is none."""
    if failure:
        raise _QueryError(f"Prometheus cannot be asked: {failure}")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or "status" not in answer:
        what = (
            f"HTTP status {status}"
            if status != 200
            else f"{kind or 'something'} that is not its API's: is the URL's prefix right?"
        )
        raise _QueryError(f"Prometheus answers with {what}")
    if status != 200 or answer["status"] != "success":
        said = f"{answer.get('errorType', '')}: {answer.get('error', '')}"[:_SAID_LENGTH]
        raise _QueryError(f"Prometheus refuses the query with HTTP status {status}, {said}")
    warnings = answer.get("warnings")
    if warnings:
        first = warnings[0] if isinstance(warnings, list) else warnings
        raise _QueryError(f"Prometheus warns, so that its answer may not be whole: {str(first)[:_SAID_LENGTH]}")
    data = answer.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "vector" or not isinstance(data.get("result"), list):
        kind = str(data.get("resultType")) if isinstance(data, dict) else "nothing"
        raise _QueryError(f"Prometheus answers with a {kind[:20]} where a vector is asked for")
    return [series for series in data["result"] if isinstance(series, dict)]
