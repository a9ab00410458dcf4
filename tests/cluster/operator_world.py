"""What the tests of the running operator share: custom resources, waiting for the truth, and counting by the audit log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairlead_cluster.audit import AuditMark, AuditRecord
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster

Json = dict[str, Any]
#: Longer than status waits for a change to settle, so that what has not happened by then does not happen.
QUIET_S = 2.5
WAIT_S = 60.0


def make_cr(namespace: str, name: str, **spec: Any) -> Json:
    """A vLLM model on one accelerator; `spec` replaces or adds fields."""
    base: Json = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "engine": {"type": "vLLM"},
        "accelerator": {"count": 1},
    }
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": base | spec,
    }


def until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


@dataclass
class World:
    """One namespace of a cluster on which the operator runs."""

    cluster: LocalCluster
    namespace: str

    def apply(self, *objects: Json) -> None:
        """Apply as a user."""
        self.cluster.kubectl.apply(*objects)

    def kubectl(self, *args: str) -> str:
        """kubectl in this namespace."""
        return self.cluster.kubectl(*args, f"--namespace={self.namespace}")

    def patch(self, what: str, patch: str, kind: str = "merge") -> None:
        """kubectl patch."""
        self.kubectl("patch", *what.split("/"), f"--type={kind}", f"--patch={patch}")

    def get(self, what: str) -> Json | None:
        """`kind/name`, or None."""
        done = self.cluster.kubectl.run("get", *what.split("/"), f"--namespace={self.namespace}", "-o", "json")
        if done.returncode != 0:
            assert "NotFound" in done.stderr, done.stderr
            return None
        import json

        found: Json = json.loads(done.stdout)
        return found

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind."""
        return sorted(self.kubectl("get", kind, "-o", "jsonpath={.items[*].metadata.name}").split())

    def status(self, name: str) -> Json:
        """Status of a custom resource."""
        found = self.get(f"llmdeployment/{name}")
        assert found is not None
        return dict(found.get("status") or {}) | {"generation": found["metadata"]["generation"]}

    def condition(self, name: str, kind: str) -> Json:
        """One condition, or an empty dict."""
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == kind), {})

    def wait_observed(self, name: str) -> Json:
        """Until status is of the current generation."""

        def observed() -> Json | None:
            status = self.status(name)
            return status if status.get("observedGeneration") == status["generation"] else None

        found: Json = until(observed, f"{name} observed")
        return found

    def wait_stalled(self, name: str, reason: str) -> Json:
        """Until Stalled is True for this reason; returns the condition."""

        def stalled() -> Json | None:
            condition = self.condition(name, "Stalled")
            return condition if condition.get("status") == "True" and condition.get("reason") == reason else None

        found: Json = until(stalled, f"{name} stalled by {reason}")
        return found

    def mark(self) -> AuditMark:
        """Now."""
        return self.cluster.audit.mark()

    def records(self, since: AuditMark, user: str = OPERATOR_USER) -> list[AuditRecord]:
        """What the operator asked in this namespace, Events and Leases apart."""
        records = self.cluster.audit.records(user=user, namespace=self.namespace, since=since)
        return [record for record in records if record.resource not in ("events", "leases")]

    def writes(self, since: AuditMark, user: str = OPERATOR_USER) -> list[str]:
        """`verb resource name: code` of each write, sorted."""
        return sorted(f"{r.verb} {r.resource} {r.name}: {r.code}" for r in self.records(since, user) if r.is_write)

    def quiet_writes(self, since: AuditMark, at_least: int, user: str = OPERATOR_USER) -> list[str]:
        """The writes since then, once there are so many and no more come."""
        until(lambda: len(self.writes(since, user)) >= at_least, f"{at_least} writes")
        time.sleep(QUIET_S)
        return self.writes(since, user)
