"""The client half of the `ollama` command. Only the standard library: `ollama ps` runs as a probe every few seconds."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairlead_sim.ollama.environment import read_host

NO_SERVER = "could not connect to ollama server, run 'ollama serve' to start it"


class ClientError(Exception):
    """What the command prints after `Error: `. `status` is 0 when no server answered."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Talks to the server of OLLAMA_HOST."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        host = read_host(environment)
        self._name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host.name, host.name)  # noqa: S104
        self._port = host.port
        self._tls = host.scheme == "https"

    def check_server(self) -> None:
        """Raises ClientError if nobody answers."""
        self.call("HEAD", "/")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One JSON answer; None for an empty one. Raises ClientError."""
        connection, response = self._send(method, path, json.dumps(body).encode() if body is not None else None)
        try:
            raw = response.read()
        finally:
            connection.close()
        return json.loads(raw) if raw and method != "HEAD" and raw[:1] in b"{[n" else None

    def stream(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """NDJSON lines as they come. Raises ClientError, also for an error in the middle of the stream.

        As the real command does, errors before the stream begins are shown with their HTTP status.
        """
        try:
            connection, response = self._send("POST", path, json.dumps(body).encode())
        except ClientError as error:
            phrase = http.client.responses.get(error.status)
            raise ClientError(f"{error.status} {phrase}: {error}", error.status) if phrase else error from None
        try:
            for raw in response:
                if not raw.strip():
                    continue
                line = json.loads(raw)
                if line.get("error"):
                    raise ClientError(str(line["error"]), response.status)
                yield line
        except (http.client.HTTPException, OSError) as error:
            raise ClientError(f"an error was encountered while reading: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def upload(self, path: str, file: Path) -> None:
        """Send a file as the body."""
        with file.open("rb") as opened:
            connection, response = self._send("POST", path, opened)
            response.read()
            connection.close()

    def _send(self, method: str, path: str, body: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        make: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if self._tls:
            make = http.client.HTTPSConnection
        connection = make(self._name, self._port)
        try:
            connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
        except OSError as error:
            connection.close()
            raise ClientError(NO_SERVER) from error
        if response.status >= 400:
            raw = response.read()
            connection.close()
            raise ClientError(_message(raw, response), response.status)
        return connection, response


def _message(raw: bytes, response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(raw)["error"])
    except (ValueError, KeyError, TypeError):
        return raw.decode(errors="replace").strip() or f"{response.status} {response.reason}"
