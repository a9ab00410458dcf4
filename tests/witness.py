"""What every cluster of a test run is looked at for before it goes: which rights operators used on it, and whether a planted secret
got out. One session's findings are gathered here, and judged at its end by `tests/conftest.py`.

Rights are judged over a whole run because no single test uses all: what the roles grant must be what some test needed, and what any
test needed must be granted. The audit log says what was asked and what was refused, whoever asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tests.canaries import search_files, search_objects

from fairlead_cluster.audit import AuditRecord
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster
from fairlead_cluster.errors import LocalClusterError

#: Every account may ask about itself (system:basic-user): tests do, with `kubectl auth`.
OF_EVERYBODY = frozenset({"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"})
ROOT = Path(__file__).resolve().parents[1]
#: Asked for only on clusters with the admission plug-in OwnerReferencesPermissionEnforcement, which this control plane has not.
ONLY_ELSEWHERE = frozenset(
    ("update", "fairlead.dev", f"{plural}/finalizers") for plural in ("llmdeployments", "llmroutes")
)


class Right(NamedTuple):
    """One verb on one resource, as RBAC spells it: `plural` or `plural/subresource`."""

    verb: str
    group: str
    resource: str


def rights_of(records: Iterable[AuditRecord]) -> set[Right]:
    """What was used. An apply that makes an object is asked for two rights and logged as one patch that answers 201."""
    used = set()
    for record in records:
        if record.resource:
            used.add(Right(record.verb, record.group, record.resource))
            if (record.verb, record.code) == ("patch", 201):
                used.add(Right("create", record.group, record.resource))
    return used


def granted_by(rules: Iterable[dict[str, Any]]) -> set[Right]:
    """What the rules of roles grant, wildcards as they stand there."""
    return {
        Right(verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def granted_by_manifests() -> set[Right]:
    """What `manifests/base` grants to the operator, by every role that is bound to its account."""
    documents = list(yaml.safe_load_all((ROOT / "manifests/base/rbac.yaml").read_text()))
    account = {"kind": "ServiceAccount", "name": "fairlead", "namespace": "fairlead-system"}
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"]) for one in documents if account in one.get("subjects", ())
    }
    roles = [one for one in documents if (one["kind"], one["metadata"]["name"]) in bound]
    return granted_by(rule for role in roles for rule in role["rules"])


def granted_by_chart() -> set[Right]:
    """What the chart grants to the operator, whichever namespaces it watches."""
    files = ROOT / "charts/fairlead/files"
    names = ("rbac-watched.yaml", "rbac-own-namespace.yaml", "rbac-nodes.yaml")
    return granted_by(rule for name in names for rule in yaml.safe_load((files / name).read_text()))


def is_started(cluster: LocalCluster) -> bool:
    """Whether there is anything to look at."""
    try:
        return cluster.audit_log.exists()
    except LocalClusterError:
        return False


def is_within(record: AuditRecord, spans: Iterable[tuple[datetime, datetime | None]]) -> bool:
    """Whether a request came in one of the spans; one without an end lasts."""
    return any(began <= record.received_at and (ended is None or record.received_at <= ended) for began, ended in spans)


@dataclass
class Witness:
    """One session's findings."""

    used: set[Right] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    whole: bool = False  # this run has every test of the operator on a cluster
    clusters: int = 0
    _seen: set[Path] = field(default_factory=set)
    _planned: list[tuple[datetime, datetime]] = field(default_factory=list)

    @contextlib.contextmanager
    def planned_refusals(self) -> Iterator[None]:
        """Around what takes rights from the operator on purpose: what it is refused in that time is no finding."""
        began = datetime.now(UTC)
        try:
            yield
        finally:
            self._planned.append((began, datetime.now(UTC)))

    def look_at(self, cluster: LocalCluster) -> None:
        """Just before the cluster goes; nothing happens where no operator ran, or twice, or where the API server is gone."""
        if cluster.directory in self._seen or not is_started(cluster):
            return
        records = cluster.audit.records(user=OPERATOR_USER)
        if not records:
            return
        self._seen.add(cluster.directory)
        self.clusters += 1
        unready = cluster.control_plane.unready
        records = [
            record
            for record in records
            if not (record.lacks_right and (self._is_planned(record) or is_within(record, unready)))
        ]
        self.used |= rights_of(records)
        self.refusals += [str(record) for record in records if record.lacks_right]
        token = yaml.safe_load(cluster.operator_kubeconfig.read_text())["users"][0]["user"]["token"]
        logs = [
            path for path in cluster.logs_dir.glob("*.log") if not path.name.startswith(("etcd", "kube-", "data-plane"))
        ]
        leaks = search_files(logs, also=[token])
        with contextlib.suppress(LocalClusterError, OSError):
            cluster.control_plane.check()
            leaks += search_objects(cluster.kubectl, also=[token])
        self.leaks += [f"{cluster.directory.name}: {leak}" for leak in leaks]

    def _is_planned(self, record: AuditRecord) -> bool:
        return is_within(record, self._planned)

    def testify(self) -> dict[str, Any]:
        """All of it, in types that can be sent to another process."""
        return {
            "used": [tuple(right) for right in self.used],
            "refusals": self.refusals,
            "leaks": self.leaks,
            "whole": self.whole,
            "clusters": self.clusters,
        }

    def hear(self, other: Mapping[str, Any] | None) -> None:
        """What another one saw in the same run; None when it died before it could tell."""
        if other is None:
            return
        self.used |= {Right(*right) for right in other["used"]}
        self.refusals += other["refusals"]
        self.leaks += other["leaks"]
        self.whole |= other["whole"]
        self.clusters += other["clusters"]

    def judge(self, *, failed: bool = False) -> list[str]:
        """One line per finding. In a whole run in which no test failed, what was not used is not needed."""
        granted = granted_by_manifests()
        findings = [f"refused, and no test planned it: {line}" for line in sorted(set(self.refusals))]
        findings += [f"a planted secret got out: {leak}" for leak in self.leaks]
        used = {right for right in self.used if right.resource not in OF_EVERYBODY}
        findings += [f"used and not granted: {' '.join(right)}" for right in sorted(used - granted)]
        if self.whole and self.clusters and not failed:
            unused = granted - self.used - ONLY_ELSEWHERE
            findings += [f"granted and used by no test: {' '.join(right)}" for right in sorted(unused)]
        return findings
