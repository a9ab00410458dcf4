"""prometheus-api-client on a session with limits: the thread's half of `sources/prometheus.py`, imported with the first question."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.retry import Retry

__all__ = ["PrometheusSession"]

MAX_BYTES: Final = 32 * 1_048_576
_CHUNK_BYTES: Final = 65_536


class _TooLargeError(requests.RequestException):
    """An answer of more than MAX_BYTES."""


class PrometheusSession:
    """`ask` is called in one thread; `shut` from any other."""

    def __init__(self, url: str, ca_file: str, timeout_s: float) -> None:
        self._sockets: list[socket.socket] = []
        self._session = _Session()
        self._session.verify = ca_file or True
        never = Retry(total=0, connect=0, read=0, redirect=0, status=0, other=0)
        self._client = PrometheusConnect(url, retry=never, session=self._session, timeout=timeout_s, method="POST")
        self._session.mount(url, _Adapter(never, self._sockets))

    def ask(self, query: str, headers: dict[str, str]) -> tuple[int, str, bytes, str]:
        """HTTP status, content type, body, and why there is none of them, "" if there is."""
        self._client.headers = headers
        self._session.answer = None
        failure = ""
        try:
            self._client.custom_query(query)
        except (PrometheusApiClientException, ValueError, KeyError, TypeError, RecursionError):
            pass  # what came is told apart by who reads it
        except (requests.RequestException, OSError) as error:
            failure = _describe(error)
        answer = self._session.answer
        if failure or answer is None:
            return 0, "", b"", failure or "no answer"
        return answer.status_code, answer.headers.get("content-type", "").partition(";")[0][:50], answer.content, ""

    def shut(self) -> None:
        """End what the thread waits for."""
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Session(requests.Session):
    """Takes no proxies and passwords of the environment, follows no redirect, sends the query in the body, reads no more than it may."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.answer: requests.Response | None = None

    def request(self, method: str, url: str, params: Any = None, **more: Any) -> requests.Response:  # type: ignore[override]
        more |= {"data": params, "stream": True, "allow_redirects": False}
        response = super().request(method, url, **more)
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_BYTES:
                response.close()
                raise _TooLargeError
        response._content, response._content_consumed = bytes(body), True
        self.answer = response
        return response


class _Adapter(HTTPAdapter):
    """Remembers the sockets that are open. One connection is kept."""

    def __init__(self, retry: Retry, sockets: list[socket.socket]) -> None:
        self._pools = _make_pools(sockets)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=retry)

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools


def _make_pools(sockets: list[socket.socket]) -> dict[str, type[HTTPConnectionPool]]:
    def remember(opened: Any) -> None:
        sockets[:] = [one for one in sockets if one.fileno() >= 0]
        if opened is not None:
            sockets.append(opened)

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            opened = super()._new_conn()
            remember(opened)
            return opened

    class Encrypted(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            opened = super()._new_conn()
            remember(opened)
            return opened

        def connect(self) -> None:
            super().connect()
            remember(self.sock)  # another object with the same descriptor

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def _describe(error: Exception) -> str:
    """Without addresses, tokens or what was sent."""
    if isinstance(error, _TooLargeError):
        return f"its answer has more than {MAX_BYTES} bytes"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not one of the authorities', or it speaks no TLS"
    if isinstance(error, requests.Timeout):
        return "it is silent"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return "the file with its authorities cannot be read"
    return type(error).__name__
