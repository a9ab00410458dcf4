"""What a provider was sent, kept in order."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

from fairlead_cluster.providers.http1 import Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request with its circumstances.

    number: counts the requests of one provider from 1.
    connection: counts its connections; requests of one share it.
    server_name: that the client asked for in the TLS handshake (SNI).
    fault: the kind of the fault that it was answered with, empty if none.
    """

    number: int
    provider: str
    at_s: float
    connection: int
    server_name: str
    request: Request
    fault: str

    def to_json(self) -> Json:
        """For the admin port: the body as text where it is text, else as base64."""
        request = self.request
        try:
            body: Json = {"body": request.body.decode()}
        except UnicodeDecodeError:
            body = {"bodyBase64": base64.b64encode(request.body).decode()}
        return {
            "number": self.number,
            "provider": self.provider,
            "atSeconds": self.at_s,
            "connection": self.connection,
            "serverName": self.server_name,
            "fault": self.fault,
            "method": request.method,
            "target": request.target,
            "headers": [list(pair) for pair in request.headers],
            "trailers": [list(pair) for pair in request.trailers],
            "complete": request.complete,
            **body,
        }


class Recorder:
    """Keeps the requests of one provider until `clear`. Lists are copies: other threads may read."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._recorded: list[Recorded] = []
        self._count = 0

    def note(self, request: Request, *, connection: int, server_name: str, fault: str) -> None:
        """Add one."""
        self._count += 1
        self._recorded.append(
            Recorded(self._count, self._provider, time.time(), connection, server_name, request, fault)
        )

    @property
    def all(self) -> list[Recorded]:
        """Everything since the last `clear`."""
        return list(self._recorded)

    def clear(self) -> None:
        """Forget; numbers go on."""
        self._recorded = []
