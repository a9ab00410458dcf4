"""The one part of a security context that a kubelet itself judges: runAsNonRoot."""

from __future__ import annotations

from typing import Any

from fairlead_cluster.node.images import Image

Json = dict[str, Any]


def non_root_complaint(pod: Json, container: Json, image: Image, description: str) -> str | None:
    """The kubelet's refusal (verifyRunAsNonRoot), or None. `description` is the pod's name as in messages."""
    own = container.get("securityContext") or {}
    of_pod = pod["spec"].get("securityContext") or {}
    if not own.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
        return None
    where = f'(pod: "{description}", container: {container["name"]})'
    user = own.get("runAsUser", of_pod.get("runAsUser"))
    if user is not None:
        return f"container's runAsUser breaks non-root policy {where}" if user == 0 else None
    name = image.user.split(":", 1)[0]
    if name in ("", "0", "root"):
        return f"container has runAsNonRoot and image will run as root {where}"
    if not name.isdigit():
        return f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {where}"
    return None
