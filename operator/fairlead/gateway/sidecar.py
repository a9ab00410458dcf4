"""What a sidecar in an application pod routes by: the gateway's own table, less all that needs a key.

It knows no provider. What it may try by itself are deployments that serve in the open; everything else it passes on to the gateway
as it came, and the gateway authenticates and classifies it again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fairlead.api.route import DataClass, LLMAccess
from fairlead.gateway.table import GATEWAY, Attempt, Chain, Limits, RouteTable, Upstream, Weighted
from fairlead.policy.law import CLASSES

__all__ = ["make_gateway_upstream", "make_sidecar_table"]

#: On the way there and back, beside what the gateway itself waits for its targets, seconds.
_WAY_S: Final = 1.0


def make_gateway_upstream(host: str, port: int, name: str, *, is_tls: bool) -> Upstream:
    """The gateway as a sidecar reaches it. `host`: what is resolved; `name`: what the certificate and the Host header say."""
    return Upstream(
        name=GATEWAY,
        access=LLMAccess.LOCAL,
        host=host,
        port=port,
        paths={},
        classes=CLASSES,
        authority=name,
        is_tls=is_tls,
        server_name=name if is_tls else "",
    )


def make_sidecar_table(table: RouteTable, gateway: Upstream, *, heeds_limits: bool = True) -> RouteTable:
    """The same route as a sidecar serves it. Limits are divided among gateways, so a route that has some is passed on as a whole:
    `heeds_limits` False is for the question what it permits."""
    is_limited = heeds_limits and any(profile.limits != Limits() for profile in table.profiles)
    direct = frozenset() if is_limited else frozenset(one.name for one in table.upstreams if _is_direct(one))
    chains = {key: _make_chain(chain, direct, gateway) for key, chain in table.chains.items()}
    return replace(
        table,
        profiles=tuple(replace(profile, limits=Limits()) for profile in table.profiles),
        chains=chains,
        upstreams=tuple(one for one in table.upstreams if one.name in direct),
        gateway=gateway if any(_is_passed_on(chain) for chain in chains.values()) else None,
    )


def _is_direct(upstream: Upstream) -> bool:
    """Deployments with TLS have a certificate by authorities that an application pod does not mount. One that wakes does so when a gateway
    says that somebody asks for it: of sidecars the operator asks nothing."""
    return upstream.access is LLMAccess.LOCAL and not upstream.is_tls and not upstream.can_wake


def _is_passed_on(chain: Chain) -> bool:
    return any(attempt.backend == GATEWAY for attempt in chain.attempts)


def _make_chain(chain: Chain, direct: frozenset[str], gateway: Upstream) -> Chain:
    """What comes first and may be tried here is tried here; with the first place that may not, the gateway takes over and begins anew.
    Restricted requests are passed on over TLS only."""
    own = 0
    while own < len(chain.groups) and all(one.attempt.backend in direct for one in chain.groups[own]):
        own += 1
    if own == len(chain.groups):
        return chain
    if chain.data_class is DataClass.RESTRICTED and not gateway.is_tls:
        return replace(chain, groups=chain.groups[:own])
    attempt = Attempt(GATEWAY, chain.model, gateway.place, gateway.access)
    # The gateway may have to wait for each of its targets before it answers; Envoy knows one time for all attempts.
    timeouts = chain.timeouts
    extra_s = sum(chain.waits_s) + _WAY_S
    waits_s = len(chain.groups) * timeouts.response_headers_s + extra_s
    tries_s = len(chain.groups) * timeouts.attempt_s + extra_s if timeouts.attempt_s is not None else None
    # Nobody waits here: for whom one may wait stands behind the gateway.
    direct_groups = (
        tuple(replace(one, attempt=replace(one.attempt, hold=None)) for one in group) for group in chain.groups[:own]
    )
    return replace(
        chain,
        groups=(*direct_groups, (Weighted(attempt, 1),)),
        timeouts=replace(timeouts, response_headers_s=waits_s, attempt_s=tries_s),
    )
