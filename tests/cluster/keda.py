"""KEDA's own CRD in the cluster, for as long as a test needs it: kinds belong to the whole cluster, and others have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from fairlead_cluster.kubectl import Kubectl

CRD = Path(__file__).parents[1] / "data" / "keda" / "scaledobjects.yaml"
KIND = "scaledobjects.keda.sh"
AUTOSCALING = {"mode": "KEDA", "maxReplicas": 8, "targets": {"timeToFirstToken": "500ms", "queuedRequests": 5}}


def install(kubectl: Kubectl) -> None:
    """Until the kind is served."""
    kubectl.apply(yaml.safe_load(CRD.read_text()))
    kubectl("wait", "crd", KIND, "--for=condition=Established")


@contextmanager
def installed(kubectl: Kubectl) -> Iterator[None]:
    """And gone afterwards, with all objects of it."""
    install(kubectl)
    try:
        yield
    finally:
        kubectl.run("delete", "crd", KIND, "--ignore-not-found")
