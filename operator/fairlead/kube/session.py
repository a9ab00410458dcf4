"""One aiohttp session for everything that talks to the API server, kopf included, with credentials that renew themselves.

Credentials are put on each request by a client middleware instead of a default header: a rotated token or an expired
exec credential then needs neither a new session nor a new login, and no stream is cut. A 401 makes the middleware read
the credentials again and repeat the request once, before anybody else sees it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import orjson

from fairlead.errors import Unavailable
from fairlead.kube.connector import LoopConnector
from fairlead.kube.patience import Patience, PatientResponse

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_MAX_AGE_S = (
    60.0  # the kubelet rotates a projected token at 80 % of its life; client-go re-reads once a minute too
)
CONNECTION_LIMIT = 64
KEEPALIVE_S = 60.0


#: method, path, whether it is a watch, HTTP code ("<error>" without an answer), seconds until the answer began
RequestObserver = Callable[[str, str, bool, str, float], None]


class Credentials(Protocol):
    """Where the Authorization header comes from."""

    async def authorization(self, *, refresh: bool = False) -> str | None:
        """The header's value, or None when the connection itself (a client certificate) is the proof.

        `refresh`: the last value was refused, so read it again whatever its age.
        """


class TokenFile:
    """The projected service account token, read again when it is older than a minute."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._token = ""
        self._read_at = float("-inf")

    async def authorization(self, *, refresh: bool = False) -> str | None:
        """`Bearer …`. A file that cannot be read just now (it is being swapped) leaves the last token in use."""
        now = self._clock()
        if refresh or now - self._read_at >= TOKEN_MAX_AGE_S:
            try:
                self._token = self._path.read_text().strip()
            except OSError as error:
                if not self._token:
                    raise Unavailable(f"the service account token cannot be read: {error}") from error
                logger.warning("The service account token cannot be read, the last one stays in use: %s", error)
            self._read_at = now
        return f"Bearer {self._token}"


class KubeConfigCredentials:
    """What the user's kubeconfig says: a token, basic authentication, or an exec plugin that is run again before it expires.

    `load` reads the kubeconfig anew (and runs its plugin) and returns the kubernetes client's configuration.
    """

    def __init__(self, load: Callable[[], Any], loaded: Any, clock: Callable[[], float]) -> None:
        self._load = load
        self._configuration = loaded
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value = _authorization_of(loaded)
        self._asked_at = clock()

    async def authorization(self, *, refresh: bool = False) -> str | None:
        """The kubernetes client's own idea of the header. In a thread, because it may run a plugin."""
        if not refresh and self._clock() - self._asked_at < TOKEN_MAX_AGE_S:
            return self._value
        async with self._lock:
            if refresh:
                self._configuration = await asyncio.to_thread(self._load)
            self._value = await asyncio.to_thread(_authorization_of, self._configuration)
            self._asked_at = self._clock()
        return self._value


def _authorization_of(configuration: Any) -> str | None:
    # Reading the key runs the configuration's hook, which runs an exec plugin again once its credential has expired.
    value = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    if value:
        return str(value)
    if configuration.username and configuration.password:
        pair = f"{configuration.username}:{configuration.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return None


@dataclass(slots=True)
class Connection:
    """The API server's address and the session to reach it."""

    server: str
    namespace: str | None = None  # of the pod or of the kubeconfig's context
    session: aiohttp.ClientSession | None = None
    ssl_context: ssl.SSLContext | bool = True
    credentials: Credentials | None = None
    proxy: str | None = None
    tls_server_name: str | None = None
    user_agent: str = "fairlead"
    observer: RequestObserver | None = None  # is told of every request, kopf's too
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def host(self) -> str:
        """Host and port, as the rest_client metrics label it."""
        return self.server.partition("://")[2]

    def open(self) -> aiohttp.ClientSession:
        """A new session, which replaces a closed one. Must run in the loop that will use it."""
        self.session = aiohttp.ClientSession(
            connector=LoopConnector(limit=CONNECTION_LIMIT, keepalive_timeout=KEEPALIVE_S, ssl=self.ssl_context),
            middlewares=(self._observe, self._authorize),
            headers={"User-Agent": self.user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self.proxy,
            json_serialize=_dumps,
        )
        self.ready.set()
        return self.session

    def open_for_kopf(self, patience: Patience) -> aiohttp.ClientSession:
        """A session over the same connections for kopf, which closes it when it likes to. Nobody else's streams are cut by that."""
        shared = self.session if self.session is not None and not self.session.closed else self.open()
        return aiohttp.ClientSession(
            connector=shared.connector,
            connector_owner=False,
            middlewares=(patience, self._observe, self._authorize),
            response_class=PatientResponse,
            headers={"User-Agent": self.user_agent},
            proxy=self.proxy,
            json_serialize=_dumps,
        )

    async def close(self) -> None:
        """Close the session. Safe to call twice."""
        if self.session is not None and not self.session.closed:
            await self.session.close()

    async def _observe(
        self,
        request: aiohttp.ClientRequest,
        handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
    ) -> aiohttp.ClientResponse:
        started = time.perf_counter()
        code = "<error>"
        try:
            response = await handler(request)
            code = str(response.status)
            return response
        finally:
            if self.observer is not None:
                duration_s = time.perf_counter() - started
                self.observer(
                    request.method, request.url.path, "watch=" in request.url.raw_query_string, code, duration_s
                )

    async def _authorize(
        self,
        request: aiohttp.ClientRequest,
        handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
    ) -> aiohttp.ClientResponse:
        if self.tls_server_name:
            request.server_hostname = self.tls_server_name
        if self.credentials is None:
            return await handler(request)
        sent = await self.credentials.authorization()
        if sent:
            request.headers["Authorization"] = sent
        response = await handler(request)
        if response.status != 401:
            return response
        renewed = await self.credentials.authorization(refresh=True)
        if not renewed or renewed == sent:
            return response
        response.release()
        request.headers["Authorization"] = renewed
        return await handler(request)


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def connect(kubeconfig: str | None = None) -> Connection:
    """Find the API server: in a pod from its service account, else from `kubeconfig` (default `$KUBECONFIG`, ~/.kube/config).

    Raises Unavailable with a sentence for people when neither is there or the file is broken.
    """
    in_cluster = kubeconfig is None and not os.environ.get("KUBECONFIG") and "KUBERNETES_SERVICE_HOST" in os.environ
    return _connect_in_cluster() if in_cluster else _connect_by_kubeconfig(kubeconfig)


def _connect_in_cluster() -> Connection:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    loop_time = asyncio.get_running_loop().time
    namespace_file = SERVICE_ACCOUNT_DIR / "namespace"
    return Connection(
        server=f"https://{host}:{port}",
        namespace=namespace_file.read_text().strip() if namespace_file.exists() else None,
        ssl_context=_tls(str(SERVICE_ACCOUNT_DIR / "ca.crt")),
        credentials=TokenFile(SERVICE_ACCOUNT_DIR / "token", loop_time),
    )


def _connect_by_kubeconfig(path: str | None) -> Connection:
    # Imported here: it costs 0.3 s and 20 MiB, which a pod should not pay.
    import yaml
    from kubernetes import client, config

    def load() -> Any:
        configuration = client.Configuration()
        config.load_kube_config(config_file=path, client_configuration=configuration)  # type: ignore[no-untyped-call]
        return configuration

    try:
        configuration = load()
        _, context = config.list_kube_config_contexts(config_file=path)  # type: ignore[no-untyped-call]
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError) as error:
        raise Unavailable(f"no way to reach the API server: {error}") from error
    server = configuration.host.rstrip("/")
    tls: ssl.SSLContext | bool = True
    if server.startswith("https://"):
        tls = _tls(configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file, configuration.verify_ssl)
    return Connection(
        server=server,
        namespace=context.get("context", {}).get("namespace"),
        ssl_context=tls,
        credentials=KubeConfigCredentials(load, configuration, asyncio.get_running_loop().time),
        proxy=configuration.proxy,
        tls_server_name=configuration.tls_server_name,
    )


def _tls(
    ca_file: str | None, certificate: str | None = None, private_key: str | None = None, verify: bool = True
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if certificate:
        context.load_cert_chain(certificate, private_key)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
