"""An operator whose way to the API server leads through a proxy, and what must be true of it when a fault is over."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster.faults.proxy import FaultProxy, Match
from tests.cluster.operator_world import QUIET_S, World, make_cr, until

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.processes import wait_until

Json = dict[str, Any]

OPERATOR = "faulty"
#: What every LLMDeployment of these tests gets: Deployment, two Services, NetworkPolicy.
CHILDREN = ("deployments m", "networkpolicies m", "services m", "services m-pods")
_POD = re.compile(r"\bm-[0-9a-f]+-[a-z0-9]{5}\b")
CHILD_KINDS = ("deployment", "service", "networkpolicy", "poddisruptionbudget", "persistentvolumeclaim")
#: After an outage kopf's watch may wait half a minute for its next attempt, and so may our informers.
RECOVERY_S = 75.0
SETTLING = 2
_NOT_STALLED = ("False", "NotStalled", "Nothing waits for a person.")
_OF_ONE_OBJECT = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "namespace")
_OF_ONE_SERVICE = ("clusterIP", "clusterIPs")


@dataclass
class Operated(World):
    """One namespace, one operator, and the proxy between it and the API server (None: it goes straight)."""

    proxy: FaultProxy | None = None
    operator: str = OPERATOR

    @property
    def faults(self) -> FaultProxy:
        """The proxy."""
        assert self.proxy is not None
        return self.proxy

    def read(self, path: str) -> str:
        """A page of the operator, whatever its status."""
        try:
            with urllib.request.urlopen(self.cluster.operator_url(self.operator) + path, timeout=10) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def queue(self) -> Json:
        """/debug/queue."""
        found: Json = json.loads(self.read("/debug/queue"))
        return found

    def metric(self, series: str, /, **labels: str) -> float:
        """Sum of the series of this name whose labels are these."""
        total = 0.0
        for line in self.read("/metrics").splitlines():
            match = re.fullmatch(rf"{series}(?:\{{(.*)\}})? (\S+)", line)
            if match is not None:
                found = dict(re.findall(r'(\w+)="([^"]*)"', match.group(1) or ""))
                if labels.items() <= found.items():
                    total += float(match.group(2))
        return total

    def answers(self, code: str) -> float:
        """How many requests were answered so, as the operator counts them."""
        return self.metric("rest_client_requests_total", code=code)

    def log(self) -> list[Json]:
        """The operator's log."""
        lines = (self.cluster.logs_dir / f"{self.operator}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def settled(self, name: str = "m") -> None:
        """A new LLMDeployment with its children and status, and nothing more to come."""
        mark = self.mark()
        self.apply(make_cr(self.namespace, name))
        self.wait_observed(name)
        self.quiet_writes(mark, len(CHILDREN) + 1)

    def wished(self, names: Sequence[str]) -> list[str]:
        """Names of the Services that these LLMDeployments have."""
        return [service for name in names for service in (name, f"{name}-pods")]

    def created(self, since: Any) -> Counter[str]:
        """How often each object was made."""
        return Counter(
            write.removesuffix(": 201").removeprefix("patch ") for write in self.writes(since) if "201" in write
        )

    def shape(self, name: str = "m") -> Json:
        """The children and the status of an LLMDeployment, without what differs between two of the same spec."""
        kinds = ",".join((*CHILD_KINDS, "llmdeployment"))
        items = self.cluster.kubectl.json("get", kinds, f"--namespace={self.namespace}")["items"]
        shape: Json = {}
        for item in items:
            owners = item["metadata"].get("ownerReferences") or ()
            if any(owner["name"] == name for owner in owners):
                shape[f"{item['kind']} {item['metadata']['name']}"] = _shape_of(item)
            elif (item["kind"], item["metadata"]["name"]) == ("LLMDeployment", name):
                shape["status"] = _shape_of_status(item.get("status") or {})
        return shape

    def is_calm(self) -> bool:
        """Whether no key waits, is worked on or failed, and each kind is watched by just one stream."""
        queue = self.queue()
        if queue["depth"] or queue["busy"] or queue["failures"] or not queue["leading"]:
            return False
        if self.metric("controller_runtime_active_workers") or self.metric("workqueue_depth"):
            return False
        return self.proxy is None or set(self.watched().values()) == {1}

    def watched(self) -> Counter[tuple[str, str, str, bool]]:
        """Open streams by what they show: resource, namespace ("": all), label selector, and whether only metadata."""
        return Counter(
            (call.resource, call.namespace, call.selector, call.metadata_only) for call in self.faults.streams(Match())
        )

    def assert_recovered(
        self, names: Sequence[str] = ("m",), like: Json | None = None, within_s: float = RECOVERY_S
    ) -> None:
        """The fault is over and has left nothing behind: `m` has the same objects as without it, nobody waits or fails, all is
        healthy, and nothing more is written."""
        for name in names:
            until(lambda name=name: self.is_observed(name), f"{name} observed", within_s)
        if like is not None:
            wait_until(lambda: self.shape() == like, within_s, 0.2)
            gaps = differences(self.shape(), like)
            assert not gaps, "not the same as without the fault:\n" + "\n".join(gaps)
        wait_until(self.is_calm, within_s, 0.1)
        assert self.is_calm(), f"not calm: {self.queue()}, streams {self.watched()}"
        # A status may still be on its way: it waits until what it tells of has settled.
        late = [self.writes_in_a_while() for _ in range(SETTLING)] if (first := self.writes_in_a_while()) else []
        assert not late or late[-1] == [], f"not quiet: {first}, {late}"
        wait_until(self.is_calm, 10.0, 0.1)  # a stream may begin anew just now, or a pass that finds nothing to do
        assert self.is_calm(), f"not calm: {self.queue()}, streams {self.watched()}"
        assert self.read("/healthz") == "ok\n"
        assert self.read("/readyz") == "ok\n"

    def writes_in_a_while(self) -> list[str]:
        """Writes from now on until those that were due are done."""
        mark = self.mark()
        time.sleep(QUIET_S)
        return self.writes(mark)

    def is_observed(self, name: str) -> bool:
        """Whether status is of the current generation."""
        status = self.status(name)
        return bool(status.get("observedGeneration") == status["generation"])


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two documents differ: this module is no test module, so pytest does not tell."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [d for key in keys for d in differences(found.get(key), wanted.get(key), f"{path}.{key}")]
    return [] if found == wanted else [f"{path}: {found!r} instead of {wanted!r}"]


def _shape_of(item: Json) -> Json:
    metadata = {key: value for key, value in item["metadata"].items() if key not in _OF_ONE_OBJECT}
    annotations = dict(metadata.get("annotations") or {})
    metadata["annotations"] = {key: value for key, value in annotations.items() if "revision" not in key}
    metadata["annotations"].pop("fairlead.dev/applied-hash", None)  # covers the owner's uid
    metadata["ownerReferences"] = [{**owner, "uid": ""} for owner in metadata["ownerReferences"]]
    spec = {key: value for key, value in item["spec"].items() if key not in _OF_ONE_SERVICE}
    return {"metadata": metadata, "spec": spec}


def _shape_of_status(status: Json) -> Json:
    shape = {key: value for key, value in status.items() if key not in ("observedGeneration", "endpoint")}
    shape["conditions"] = {
        condition["type"]: (condition["status"], condition["reason"], _POD.sub("POD", condition["message"]))
        for condition in status.get("conditions", ())
    }
    # After a minute without a node, here where there are none, a person must act: a matter of age, not of faults.
    if shape["conditions"].get("Stalled", ("", "", ""))[1] == "Unschedulable":
        shape["conditions"] |= {"Stalled": _NOT_STALLED, "Reconciling": ("True", *shape["conditions"]["Ready"][1:])}
    return shape


def start(
    cluster: LocalCluster, proxy: FaultProxy | None, environment: Mapping[str, str] | None = None, *args: str
) -> None:
    """Start the operator of these tests and wait until it leads."""
    cluster.start_operator(["--log-level=debug", *args], environment, name=OPERATOR)
    cluster.wait_for_operator(OPERATOR)
    until(lambda: Operated(cluster, "", proxy).queue()["leading"], "the operator leads")
