"""How the pods are asked what scaling decides from: by the engine's own metrics, themselves or through Prometheus, or, where the engine has
none, by those of the gateways."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fairlead.facts.observed import OperatorFacts
from fairlead.facts.scaling import ScrapeWish, Source
from fairlead.gateway.envoy import GatewaySettings
from fairlead.planning.deployment.encryption import TLS_PORT
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_scrape_wish"]


#: Prometheus knows nothing new sooner, with the scrape intervals that are usual.
_PROMETHEUS_INTERVAL_S: Final = 15.0


def make_scrape_wish(serving: Serving, facts: OperatorFacts) -> ScrapeWish:
    """On the engine's port. In pods with spec.encryption that is on the loopback address, and the TLS before it passes all paths on."""
    metrics = serving.metrics
    if metrics is None or not metrics.names:
        return ScrapeWish("/metrics", GatewaySettings().status_port, source=Source.GATEWAY)
    wish = ScrapeWish(metrics.path, serving.rendered.port, TLS_PORT, metrics.by_measure())
    if facts.prometheus is not None:
        return replace(wish, source=Source.PROMETHEUS, interval_s=_PROMETHEUS_INTERVAL_S)
    return wish
