"""The session: credentials renew themselves under running requests, whatever kind they are."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from fairlead.errors import Unavailable
from fairlead.kube import session as session_module
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import SERVICE
from fairlead.kube.session import Connection, TokenFile, connect


class Gate:
    """An API server that lets in whoever has one of the valid headers, and notes all."""

    def __init__(self, *valid: str) -> None:
        self.valid = set(valid)
        self.seen: list[str | None] = []

    async def handle(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization")
        self.seen.append(header)
        if header not in self.valid:
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        return web.json_response({"metadata": {"name": "a"}})

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        self.server = TestServer(app)
        await self.server.start_server()
        self.url = str(self.server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()


async def ask(connection: Connection) -> dict[str, Any]:
    return await ApiClient(connection).get(SERVICE, "ml", "a")


async def test_the_token_is_read_again_at_most_once_a_minute(tmp_path: Path) -> None:
    file, now = tmp_path / "token", [0.0]
    file.write_text("t1\n")
    credentials = TokenFile(file, lambda: now[0])
    assert await credentials.authorization() == "Bearer t1"
    file.write_text("t2")
    now[0] = 59.0
    assert await credentials.authorization() == "Bearer t1"
    now[0] = 60.0
    assert await credentials.authorization() == "Bearer t2"
    file.write_text("t3")
    assert await credentials.authorization(refresh=True) == "Bearer t3"


async def test_a_token_file_that_is_just_being_swapped_leaves_the_last_one_in_use(tmp_path: Path) -> None:
    file, now = tmp_path / "token", [0.0]
    file.write_text("t1")
    credentials = TokenFile(file, lambda: now[0])
    await credentials.authorization()
    file.unlink()
    now[0] = 100.0
    assert await credentials.authorization() == "Bearer t1"
    with pytest.raises(Unavailable, match="cannot be read"):
        await TokenFile(tmp_path / "none", lambda: 0.0).authorization()


async def test_a_refused_token_is_read_again_and_the_request_repeated_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    async with Gate("Bearer new") as gate:
        connection = Connection(server=gate.url, credentials=TokenFile(file, lambda: 0.0))
        connection.open()
        from fairlead.errors import Unauthorized

        with pytest.raises(Unauthorized):
            await ask(connection)
        assert gate.seen == ["Bearer old"], "an unchanged token is not tried twice"
        file.write_text("new")
        assert (await ask(connection))["metadata"]["name"] == "a"
        assert gate.seen == ["Bearer old", "Bearer old", "Bearer new"]
        await connection.close()


def kubeconfig(path: Path, server: str, user: dict[str, Any], **context: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"} | context}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    async with Gate("Bearer secret") as gate:
        connection = connect(str(kubeconfig(tmp_path / "config", gate.url, {"token": "secret"}, namespace="team")))
        connection.open()
        assert connection.namespace == "team"
        await ask(connection)
        await connection.close()


async def test_a_kubeconfig_with_a_password(tmp_path: Path) -> None:
    async with Gate("Basic dTpw") as gate:
        connection = connect(str(kubeconfig(tmp_path / "config", gate.url, {"username": "u", "password": "p"})))
        connection.open()
        await ask(connection)
        await connection.close()


async def test_an_exec_plugin_is_run_again_when_its_credential_is_refused(tmp_path: Path) -> None:
    counter, plugin = tmp_path / "count", tmp_path / "plugin"
    plugin.write_text(
        f"""#!{sys.executable}
import json, pathlib
count = pathlib.Path({str(counter)!r})
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
status = {{"token": f"t{{number}}", "expirationTimestamp": "2099-01-01T00:00:00Z"}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "interactiveMode": "Never",
            "args": [],
        }
    }
    async with Gate("Bearer t1") as gate:
        connection = connect(str(kubeconfig(tmp_path / "config", gate.url, user)))
        connection.open()
        await ask(connection)
        await ask(connection)
        assert counter.read_text() == "1", "one credential for many requests"
        gate.valid = {"Bearer t2"}
        await ask(connection)
        assert gate.seen == ["Bearer t1"] * 3 + ["Bearer t2"]
        await connection.close()


async def test_in_a_pod_its_own_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    authorities = ssl.get_default_verify_paths().cafile or ""
    (tmp_path / "token").write_text("pod")
    (tmp_path / "namespace").write_text("fairlead-system\n")
    (tmp_path / "ca.crt").write_text(Path(authorities).read_text() if authorities else "")
    if not authorities:
        pytest.skip("no certificate to trust on this machine")
    monkeypatch.setattr(session_module, "SERVICE_ACCOUNT_DIR", tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    connection = connect()
    assert connection.server == "https://[fd00::1]:6443"
    assert connection.namespace == "fairlead-system"
    assert connection.credentials is not None
    assert await connection.credentials.authorization() == "Bearer pod"


@pytest.mark.parametrize("content", [None, "", "{", "apiVersion: v1\nkind: Config\n"])
async def test_no_way_to_the_server_is_said_in_a_sentence(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Unavailable, match="no way to reach the API server"):
        connect(str(path))


async def test_opening_again_replaces_a_closed_session() -> None:
    async with Gate("x") as gate:
        connection = Connection(server=gate.url)
        first = connection.open()
        await connection.close()
        await connection.close()
        second = connection.open()
        assert second is not first
        await connection.close()
        await asyncio.sleep(0)
