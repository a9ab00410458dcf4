"""Argo CD's ConfigMap patch with the health check, from the one Lua file that the tests run."""

from __future__ import annotations

from pathlib import Path

from fairlead.api.names import GROUP, LLMDEPLOYMENT, LLMROUTE
from hack.generate import GENERATED_NOTICE

ROOT = Path(__file__).resolve().parents[2]
HEALTH = "manifests/argocd/health.lua"
KEYS = tuple(f"resource.customizations.health.{GROUP}_{kind}" for kind in (LLMDEPLOYMENT, LLMROUTE))


def generate() -> dict[str, str]:
    """A patch for the ConfigMap argocd-cm."""
    lua = (ROOT / HEALTH).read_text().splitlines()
    indented = "\n".join(f"    {line}" if line else "" for line in lua)
    data = "\n".join(f"  {key}: |\n{indented}" for key in KEYS)
    return {
        "manifests/argocd/argocd-cm.yaml": f"""\
# {GENERATED_NOTICE} Source: {HEALTH}
# kubectl -n argocd patch configmap argocd-cm --patch-file manifests/argocd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
data:
{data}
"""
    }
