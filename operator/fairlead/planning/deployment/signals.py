"""How the pods are asked what scaling decides from: by the engine's own metrics, or, where it has none, by those of the gateways."""

from __future__ import annotations

from fairlead.facts.scaling import ScrapeWish, Source
from fairlead.gateway.envoy import GatewaySettings
from fairlead.planning.deployment.encryption import port_number
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_scrape_wish"]


def make_scrape_wish(serving: Serving) -> ScrapeWish:
    """On the port that the pods serve on; with spec.encryption that is the TLS in front of the engine, which passes all paths on."""
    metrics = serving.metrics
    if metrics is None or not metrics.names:
        return ScrapeWish("/metrics", GatewaySettings().status_port, source=Source.GATEWAY)
    scheme = "http" if serving.spec.encryption is None else "https"
    return ScrapeWish(metrics.path, port_number(serving), scheme, metrics.by_measure())
