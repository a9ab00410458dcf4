"""A deployment of several pods: one backend of the world whose cluster has the addresses of several fakes, as its DNS name would have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.gateway.world import World

from fairlead.gateway.envoy.files import dump_resources, read_resources

__all__ = ["several_pods"]


@contextmanager
def several_pods(world: World, backend: str, pods: Sequence[str]) -> Iterator[None]:
    """In the meantime all clusters of `backend` have these fakes, and know that they do."""
    gateway = world.gateway
    good = dict(gateway.live or {})
    kind, clusters = read_resources(good["cds.json"])
    endpoints = []
    for host, port in (world[pod].address for pod in pods):
        endpoints.append({"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}})
    changed = [cluster for cluster in clusters if cluster["name"].split("~")[1] == backend]
    for cluster in changed:
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = endpoints
    place = changed[0]["name"].partition("~")[2]
    gateway.put({**good, "cds.json": dump_resources(kind, clusters)})
    try:
        gateway.confirm()
        gateway.until(lambda: gateway.healthy()[place] == len(pods), "finding all pods")
        yield
    finally:
        gateway.put(good)
        gateway.confirm()
