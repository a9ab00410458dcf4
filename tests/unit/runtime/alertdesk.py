"""The port for alerts with its inbox, a cache of LLMDeployments, and passes that write status when a test lets them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change
from fairlead.runtime.alerts import PATH, AlertServer, TokenFile
from fairlead.runtime.inbox import Inbox
from fairlead.scaling.alerts import describe_alerts

Json = dict[str, Any]
TOKEN = "token-of-alertmanager-1"
KEY = ObjectKey(names.LLMDEPLOYMENT, "ml", "m")
AUTOSCALING: Json = {"minReplicas": 1, "maxReplicas": 4}


@dataclass
class Seen:
    """The metrics of alerts."""

    results: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)

    def delivered(self, result: str) -> None:
        self.results[result] += 1

    def alert_taken(self, effect: str) -> None:
        self.effects[effect] += 1


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Json
    headers: dict[str, str]


class Desk:
    """Everything, under a clock that a test moves."""

    def __init__(self, token_file: Path, cache: Cache | None = None) -> None:
        self.now = [1000.0]
        self.seen = Seen()
        self.leading = True
        self.writes_status = True
        self.evaluated: list[ObjectKey] = []
        self.status_writes = 0
        self._versions = itertools.count(1)
        self.cache = Cache(self._on_change)
        self.inbox = Inbox(self.cache, self._evaluate, self.seen, clock=lambda: self.now[0], wall=self.wall)
        self.token_file = token_file
        self.server = AlertServer(
            self.inbox,
            TokenFile(token_file, lambda: self.now[0]),
            self.seen,
            address="127.0.0.1",
            port=0,
            is_leading=lambda: self.leading,
            clock=lambda: self.now[0],
            kept_timeout_s=0.2,
        )

    def wall(self) -> datetime:
        return datetime(2026, 11, 28, 12, 0, 10, tzinfo=UTC) + timedelta(seconds=self.now[0] - 1000.0)

    def put(
        self, name: str = "m", *, uid: str = "", status: Json | None = None, deleted: str = "", **spec: Any
    ) -> None:
        """An LLMDeployment as the API server has it."""
        version = next(self._versions)
        metadata = {"namespace": "ml", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
        if deleted:
            metadata["deletionTimestamp"] = deleted
        spec = spec or {"autoscaling": AUTOSCALING}
        self.cache.put(
            {"apiVersion": names.API_VERSION, "kind": names.LLMDEPLOYMENT, "metadata": metadata, "spec": spec}
            | {"status": status or {}}
        )

    def remove(self, name: str = "m") -> None:
        self.cache.remove(ObjectKey(names.LLMDEPLOYMENT, "ml", name), f"uid-{name}", next(self._versions))

    def live(self, name: str = "m") -> Json:
        entry = self.cache.get(ObjectKey(names.LLMDEPLOYMENT, "ml", name))
        assert entry is not None
        return dict(entry.load())

    def kept(self, name: str = "m") -> list[str]:
        """Starts of the alerts that status tells of."""
        return [one["startsAt"] for one in self.live(name)["status"].get("scaling", {}).get("alerts", [])]

    def run_pass(self, key: ObjectKey = KEY) -> None:
        """What a pass does about alerts: status is written if it differs."""
        raw = self.live(key.name)
        alerts = describe_alerts(self.inbox.book_of(raw).active)
        if raw["status"].get("scaling", {}).get("alerts", []) != alerts:
            self.status_writes += 1
            self.put(key.name, uid=raw["metadata"]["uid"], status={"scaling": {"alerts": alerts}}, **raw["spec"])

    async def post(
        self, body: bytes, token: str | None = TOKEN, path: str = PATH, method: str = "POST", **headers: str
    ) -> Answer:
        """One request."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.server.port}") as session,
            session.request(method, path, data=body, headers=headers) as response,
        ):
            is_json = response.content_type == "application/json"
            return Answer(response.status, await response.json() if is_json else {}, dict(response.headers))

    def _evaluate(self, key: ObjectKey) -> None:
        self.evaluated.append(key)
        if self.writes_status:
            asyncio.get_running_loop().call_soon(self.run_pass, key)

    def _on_change(self, change: Change) -> None:
        self.inbox.changed(change)


@asynccontextmanager
async def alert_desk(folder: Path, *tokens: str) -> AsyncIterator[Desk]:
    """A desk that listens until the block ends."""
    token_file = folder / "tokens"
    token_file.write_text("\n".join(tokens or (TOKEN,)) + "\n")
    desk = Desk(token_file)
    desk.put()
    await desk.server.start()
    try:
        yield desk
    finally:
        await desk.server.stop()
