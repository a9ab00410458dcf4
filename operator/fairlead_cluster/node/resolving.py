"""What a pod's /etc/resolv.conf says about names, as environment variables that resolvers read beside it.

A process on the host cannot have a resolv.conf of its own, but c-ares (Envoy) and the C library take the search domain
and `ndots` from LOCALDOMAIN and RES_OPTIONS. c-ares takes one search domain only: the namespace's, the first of the
three that a pod has. So `web` is found here as on a real cluster, `web.other` is not; full names always are.
"""

from __future__ import annotations

from typing import Any

from fairlead_cluster.dns import DOMAIN

Json = dict[str, Any]

_OPTIONS = {"ndots": "5"}  # the kubelet's for ClusterFirst


def search_environment(pod: Json) -> dict[str, str]:
    """Variables for a pod that asks the cluster's DNS; empty where its dnsPolicy says that it asks the node's."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    if policy == "Default" or (policy == "ClusterFirst" and spec.get("hostNetwork")):
        return {}
    config = spec.get("dnsConfig") or {}
    searches = [] if policy == "None" else [f"{pod['metadata']['namespace']}.svc.{DOMAIN}"]
    searches += config.get("searches") or []
    options = {} if policy == "None" else dict(_OPTIONS)
    options |= {one["name"]: one.get("value", "") for one in config.get("options") or []}
    found = {"RES_OPTIONS": " ".join(f"{name}:{value}" if value else name for name, value in options.items())}
    if searches:
        found["LOCALDOMAIN"] = searches[0]
    return found
