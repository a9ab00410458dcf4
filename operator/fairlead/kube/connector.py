"""Connections that the event loop opens itself, because aiohttp and uvloop disagree about whose a socket is.

aiohttp connects a socket first and hands it to the loop for TLS. When that handshake is reset or cancelled, uvloop goes on
believing that the file descriptor is its own after Python has closed it (MagicStack/uvloop#653). The next connection gets the
same number: requests then fail for ever with "File descriptor is used by transport", or somebody else's socket is closed, or
libuv aborts the process. A few seconds of an API server behind a load balancer that resets connections are enough.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.connector import AddrInfoType


class LoopConnector(aiohttp.TCPConnector):
    """A TCPConnector whose sockets belong to the loop from the beginning. Addresses are tried in turn."""

    async def _wrap_create_connection(
        self,
        *args: Any,  # what makes the protocol
        addr_infos: list[AddrInfoType],
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
        client_error: type[Exception] = aiohttp.ClientConnectorError,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """aiohttp's own, by address instead of by socket (private there; a test fails if it is not called any more)."""
        try:
            async with asyncio.timeout(timeout.sock_connect):
                return await self._connect_in_turn(args[0], addr_infos=addr_infos, **kwargs)
        except ssl.SSLCertVerificationError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
        except OSError as error:
            if error.errno is None and isinstance(error, TimeoutError):
                raise
            raise client_error(req.connection_key, error) from error

    async def _connect_in_turn(
        self, make_protocol: Callable[[], Any], *, addr_infos: list[AddrInfoType], **kwargs: Any
    ) -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        refused: OSError | None = None
        for family, _, protocol, _, address in addr_infos:
            try:
                return await loop.create_connection(
                    make_protocol,
                    host=str(address[0]),
                    port=int(address[1]),
                    family=family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    **kwargs,
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                refused = error
        raise refused or OSError("the name of the API server has no address")
