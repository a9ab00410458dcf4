"""The Prometheus that scrapes the engines: where it is, and by which labels its series are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SCRAPER_LABELS", "PodLabels", "PrometheusFacts"]

#: What differs where a pod is scraped twice, by two monitors or two replicas of Prometheus: it counts once.
SCRAPER_LABELS: Final = "job, instance, endpoint, service, container, prometheus, prometheus_replica, replica"


@dataclass(frozen=True, slots=True)
class PodLabels:
    """Names of the labels that say of which pod a series is. The defaults are what a PodMonitor gives."""

    namespace: str = "namespace"
    pod: str = "pod"


@dataclass(frozen=True, slots=True)
class PrometheusFacts:
    """What an installation says of it. `headers`: `name=value`, none of them secret; `is_guarded`: it wants a token, or has a certificate
    by authorities that others do not know."""

    url: str
    headers: tuple[str, ...] = ()
    labels: PodLabels = PodLabels()
    is_guarded: bool = False
