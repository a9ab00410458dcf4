"""Pod Security level restricted, written from the published standard, as an oracle for what the packaging ships."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(pod: Json) -> list[str]:
    """What the admission plug-in would refuse in a pod's spec."""
    found = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    for volume in pod.get("volumes", ()):
        found += [f"volume {volume['name']} is a {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        found += [f"{container['name']}: {problem}" for problem in _container_violations(pod, container)]
    return found


def _container_violations(pod: Json, container: Json) -> list[str]:
    outer, inner = pod.get("securityContext", {}), container.get("securityContext", {})

    def effective(field: str) -> Any:
        return inner.get(field, outer.get(field))

    found = []
    if inner.get("privileged"):
        found.append("privileged")
    if inner.get("allowPrivilegeEscalation") is not False:
        found.append("allowPrivilegeEscalation is not false")
    if effective("runAsNonRoot") is not True:
        found.append("runAsNonRoot is not true")
    if effective("runAsUser") == 0:
        found.append("runAsUser is 0")
    if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("no seccomp profile")
    capabilities = inner.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        found.append("capabilities are not dropped")
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        found.append("capabilities are added")
    if any(port.get("hostPort") for port in container.get("ports", ())):
        found.append("hostPort")
    return found
