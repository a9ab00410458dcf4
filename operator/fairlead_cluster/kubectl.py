"""kubectl as a function: a real user's tool, run against one cluster, with errors that say what kubectl said."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_cluster.errors import CommandFailedError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs `kubectl` with one kubeconfig; never reads the user's own configuration."""

    binary: Path
    kubeconfig: Path

    def run(self, *args: str, stdin: str | None = None, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run and return whatever happened; raises only subprocess.TimeoutExpired."""
        return subprocess.run(
            [str(self.binary), *args],
            env={
                **os.environ,
                "KUBECONFIG": str(self.kubeconfig),
                "KUBECACHEDIR": str(self.kubeconfig.parent / ".kubecache"),
            },
            input=stdin or "",  # never the terminal's
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def __call__(self, *args: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run and return stdout; raises CommandFailedError with kubectl's own words."""
        done = self.run(*args, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise CommandFailedError(f"kubectl {' '.join(args)}", done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *args: str, timeout_s: float = 60.0) -> Json:
        """Run with `-o json` and return the parsed answer."""
        answer: Json = json.loads(self(*args, "-o", "json", timeout_s=timeout_s))
        return answer

    def apply(self, *objects: Json, field_manager: str = "kubectl", timeout_s: float = 60.0) -> str:
        """Server-side apply of objects, in one call; namespaces are those of the objects."""
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self(
            "apply", "--server-side", f"--field-manager={field_manager}", "-f", "-", stdin=stdin, timeout_s=timeout_s
        )
