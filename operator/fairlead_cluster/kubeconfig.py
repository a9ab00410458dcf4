"""Kubeconfig files: the administrator's, and one for any ServiceAccount.

The operator must run with exactly the rights that `manifests/` grants. So its kubeconfig carries a real token of its
real ServiceAccount, and RBAC sees the same user and groups as it would see from a pod.
"""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]


def make_kubeconfig(server_url: str, ca_pem: bytes, user: str, token: str, namespace: str = "default") -> Json:
    """A self-contained kubeconfig (certificate and token inside, no path to another file)."""
    cluster = {"server": server_url, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    context = {"cluster": "fairlead-local", "user": user, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fairlead-local", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "fairlead-local", "context": context}],
        "current-context": "fairlead-local",
        "preferences": {},
    }


def write_kubeconfig(path: Path, kubeconfig: Json) -> None:
    """Write atomically and readable by the owner only: a token is inside."""
    write_private(path, yaml.safe_dump(kubeconfig, sort_keys=False))


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically by one that only its owner can read."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(path)
