"""The second, plain HTTP port: what the providers were sent, and switches for their faults, for people and the demo.

- `GET /__recorded?provider=NAME` and `DELETE /__recorded`: everything, in JSON; forget it.
- `GET /__providers`: names, hosts, addresses and faults.
- `PUT /__providers/NAME/faults` with a list of faults (`[{"kind": "status", "code": 429, "times": 2}]`; `[]` for none).
- `PUT /__providers/NAME/listening` with `true` or `false`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from aiohttp import web

from fairlead_cluster.providers.faults import Fault
from fairlead_cluster.providers.recording import Recorded

_HOST = "127.0.0.1"


class Controlled(Protocol):
    """What the admin port does with a provider; nothing here may wait for the event loop, on which it runs."""

    @property
    def hosts(self) -> Sequence[str]: ...
    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def url(self) -> str: ...
    @property
    def recorded(self) -> list[Recorded]: ...
    @property
    def faults(self) -> list[Fault]: ...
    def clear(self) -> None: ...
    def fail(self, *faults: Fault) -> None: ...
    async def listen(self, *, wanted: bool) -> None: ...


class Fleet(Protocol):
    """All providers."""

    @property
    def by_name(self) -> Mapping[str, Controlled]: ...


class Admin:
    """The server, between `open` and `close`."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self.url = f"http://{_HOST}:{port}"
        self._fleet = fleet
        self._port = port
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """OSError if the port is taken."""
        app = web.Application()
        app.router.add_get("/__recorded", self._recorded)
        app.router.add_delete("/__recorded", self._clear)
        app.router.add_get("/__providers", self._providers)
        app.router.add_put("/__providers/{name}/faults", self._set_faults)
        app.router.add_put("/__providers/{name}/listening", self._set_listening)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, _HOST, self._port).start()

    async def close(self) -> None:
        """Stop."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _recorded(self, request: web.Request) -> web.Response:
        wanted = request.query.get("provider")
        found = [
            recorded
            for name, provider in self._fleet.by_name.items()
            if wanted in (None, name)
            for recorded in provider.recorded
        ]
        found.sort(key=lambda recorded: recorded.at_s)
        return web.json_response([recorded.to_json() for recorded in found])

    async def _clear(self, _request: web.Request) -> web.Response:
        for provider in self._fleet.by_name.values():
            provider.clear()
        return web.Response(status=204)

    async def _providers(self, _request: web.Request) -> web.Response:
        found = {
            name: {
                "hosts": list(provider.hosts),
                "url": provider.url,
                "address": "{}:{}".format(*provider.address),
                "faults": [dataclasses.asdict(fault) for fault in provider.faults],
                "recorded": len(provider.recorded),
            }
            for name, provider in self._fleet.by_name.items()
        }
        return web.json_response(found)

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            faults = [Fault.from_json(one) for one in await request.json()]
        except (ValueError, TypeError, AttributeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        self._named(request).fail(*faults)
        return web.Response(status=204)

    async def _set_listening(self, request: web.Request) -> web.Response:
        await self._named(request).listen(wanted=bool(await request.json()))
        return web.Response(status=204)

    def _named(self, request: web.Request) -> Controlled:
        provider = self._fleet.by_name.get(request.match_info["name"])
        if provider is None:
            body = json.dumps({"error": "no such provider"})
            raise web.HTTPNotFound(text=body, content_type="application/json")
        return provider
