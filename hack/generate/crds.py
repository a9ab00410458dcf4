"""The CustomResourceDefinitions from the types: for `kubectl apply -f crds/`, for kustomize, and for the chart."""

from __future__ import annotations

from fairlead.api.crd import make_crds
from hack.generate import GENERATED_NOTICE
from hack.generate.rbac import dump

NOTICE = f"# {GENERATED_NOTICE} Source: operator/fairlead/api/\n"


def generate() -> dict[str, str]:
    """Each CRD twice, and the kustomization that lists them."""
    files: dict[str, str] = {}
    for crd in make_crds():
        name = f"{crd['metadata']['name']}.yaml"
        files[f"crds/{name}"] = files[f"charts/fairlead/files/crds/{name}"] = NOTICE + dump(crd)
    names = [path.removeprefix("crds/") for path in files if path.startswith("crds/")]
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names}
    return files | {"crds/kustomization.yaml": NOTICE + dump(kustomization)}
