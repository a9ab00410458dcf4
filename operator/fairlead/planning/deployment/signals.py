"""How the pods are asked what scaling decides from: by the engine's own metrics, themselves or through Prometheus, or, where the engine has
none, by those of the gateways."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fairlead.facts.observed import OperatorFacts
from fairlead.facts.scaling import ScrapeWish, Source
from fairlead.gateway.envoy import GatewaySettings
from fairlead.planning.deployment.encryption import port_number
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_scrape_wish"]


#: Prometheus knows nothing new sooner, with the scrape intervals that are usual.
_PROMETHEUS_INTERVAL_S: Final = 15.0


def make_scrape_wish(serving: Serving, facts: OperatorFacts) -> ScrapeWish:
    """On the port that the pods serve on; with spec.encryption that is the TLS in front of the engine, which passes all paths on."""
    metrics = serving.metrics
    if metrics is None or not metrics.names:
        return ScrapeWish("/metrics", GatewaySettings().status_port, source=Source.GATEWAY)
    scheme = "http" if serving.spec.encryption is None else "https"
    wish = ScrapeWish(metrics.path, port_number(serving), scheme, metrics.by_measure())
    if facts.has_prometheus:
        return replace(wish, source=Source.PROMETHEUS, interval_s=_PROMETHEUS_INTERVAL_S)
    return wish
