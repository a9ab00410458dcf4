"""A soak from beginning to end: rounds of deeds and accidents, each of which must end in the state that an oracle expects, in silence,
and with every write explained; and at the end nothing may have grown.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.soak.accidents import REPLICAS, Accidents
from tests.soak.admin import CHILDREN, RESOURCES, SECRETS, Admin
from tests.soak.fleet import NAMESPACES, TOKEN_SECRET
from tests.soak.hand import Hand
from tests.soak.kubelet import SELECTOR, Kubelet
from tests.soak.oracle import Oracle, judge_child, judge_status
from tests.soak.vitals import LEAST_SAMPLES, Vitals, count_lives, find_growth, measure, read_page

from fairlead_cluster.audit import AuditMark, AuditRecord
from fairlead_cluster.cluster import OPERATOR_USER, LocalCluster

Json = dict[str, Any]
Say = Callable[[str], None]

PATIENCE_S = 240.0
QUIET_S = 4.0
#: From this part of the time on nobody is killed, so that lives are long enough to see what grows.
CALM_FROM = 0.55
DEEDS_PER_ROUND = (15, 40)


@dataclass
class Summary:
    """What a soak found. `failures` empty: it is passed."""

    seed: int
    rounds: int = 0
    deeds: int = 0
    accidents: int = 0
    writes: int = 0
    failures: list[str] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)
    longest_s: float = 0.0

    def __str__(self) -> str:
        verdict = "passed" if not self.failures else f"FAILED: {len(self.failures)} findings"
        memory = [sample.rss_mib for sample in self.vitals if sample.leading]
        span = f"{min(memory):.0f} to {max(memory):.0f} MiB" if memory else "never seen"
        return (
            f"soak {verdict}: seed {self.seed}, {self.rounds} rounds, {self.deeds} deeds, {self.accidents} accidents, {self.writes}"
            f" writes, all explained: {not self.failures}; leaders' memory {span}; slowest convergence {self.longest_s:.0f} s"
        )


class Campaign:
    """One soak on a cluster without nodes on which nobody else works."""

    def __init__(
        self,
        cluster: LocalCluster,
        admin: Admin,
        *,
        size: int,
        seed: int,
        words: str,
        say: Say,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.summary = Summary(seed)
        self.hand = Hand(admin, random.Random(f"{seed} deeds"), size)
        self.accidents = Accidents(cluster, random.Random(f"{seed} accidents"))
        self._chance = random.Random(f"{seed} rounds")
        self._cluster = cluster
        self._admin = admin
        self._kubelet = Kubelet(admin, words)
        self._oracle = Oracle()
        self._size = size
        self._say = say
        self._patience_s = patience_s

    def run(self, minutes: float, token: str) -> Summary:
        """So many minutes, and what it takes to begin. Ends early at the first round with a finding: what follows would only be its
        consequence."""
        for namespace in NAMESPACES:
            self._admin.make_namespace(namespace)
            self._admin.create(SECRETS, namespace, TOKEN_SECRET, {"stringData": {"token": token}})
        self.accidents.start()
        self.accidents.mend()
        mark = self._cluster.audit.mark()
        self.hand.begin_round()
        self.hand.populate(self._size)
        self._end_round(mark, f"{self._size} models")
        began, least = time.monotonic(), LEAST_SAMPLES + 1
        while not self.summary.failures:
            part = (time.monotonic() - began) / (minutes * 60)
            lives = count_lives(self.summary.vitals)
            if part >= 1.0 and (lives or self.summary.rounds >= 4 * least):
                break
            self._round(may_kill=part < CALM_FROM)
        self.summary.failures += find_growth(self.summary.vitals)
        if not self.summary.failures and not count_lives(self.summary.vitals):
            self.summary.failures.append("no leader lived long enough to be looked at")
        return self.summary

    def _round(self, *, may_kill: bool) -> None:
        mark = self._cluster.audit.mark()
        self.hand.begin_round()
        deeds: list[Callable[[], str]] = [self.hand.act] * self._chance.randint(*DEEDS_PER_ROUND)
        for _ in range(self._chance.choice([0, 1, 1, 2, 3])):
            deeds.insert(self._chance.randrange(len(deeds)), lambda: self._accident(may_kill))
        happened = [deed() for deed in deeds]
        self.hand.settle_fates() if self._chance.random() < 0.5 else None
        self._end_round(mark, ", ".join(one for one in happened if one.startswith("!")) or "no accident", len(deeds))
        self.hand.settle_fates()

    def _accident(self, may_kill: bool) -> str:
        self.summary.accidents += 1
        self.hand.ledger.disturbances += 1
        return "!" + self.accidents.happen(may_kill=may_kill)

    def _end_round(self, mark: AuditMark, what: str, deeds: int = 0) -> None:
        self.accidents.mend()
        began = time.monotonic()
        findings = self._wait_converged(mark)
        took_s = time.monotonic() - began
        records = self._records(mark)
        self.hand.ledger.api_away = self.accidents.api_away
        findings += self.hand.ledger.judge(records)
        findings += self._look_at_replicas()
        writes = sum(record.is_write and record.resource not in ("leases", "events") for record in records)
        summary = self.summary
        summary.rounds += 1
        summary.deeds += deeds
        summary.writes += writes
        summary.longest_s = max(summary.longest_s, took_s)
        summary.failures += findings
        vitals = "; ".join(map(str, summary.vitals[-len(REPLICAS) :]))
        self._say(
            f"round {summary.rounds}: {deeds} deeds, {what.replace('!', '')}; {len(self.hand.models)} models as expected after"
            f" {took_s:.0f} s, {writes} writes, {'all explained' if not findings else 'FINDINGS'}; {vitals}"
        )
        for finding in findings[:20]:
            self._say(f"    {finding}")

    # --- looking ------------------------------------------------------------------------------------------------------

    def _wait_converged(self, mark: AuditMark) -> list[str]:
        """Until everything is as expected and the operator has written nothing for a while; else what is wrong."""
        deadline = time.monotonic() + self._patience_s
        while True:
            tended = self._kubelet.tend(self.hand.models, self.hand.ledger.enter)
            wrong = self._compare() if not tended else ["pods are being tended"]
            if not wrong:
                before = len(self._writes(mark))
                time.sleep(QUIET_S)
                loud = self._writes(mark)[before:]
                wrong = [f"not quiet: {record}" for record in loud] or self._compare()
                if not wrong:
                    return []
            if time.monotonic() > deadline:
                return [f"not converged in {self._patience_s:.0f} s: {one}" for one in wrong]
            time.sleep(0.5)

    def _compare(self) -> list[str]:
        models = self.hand.models
        live = {
            (one["metadata"]["namespace"], one["metadata"]["name"]): one
            for namespace in NAMESPACES
            for one in self._admin.list(RESOURCES, namespace)
        }
        wrong = [f"{key} is there" for key in live.keys() - models.keys()]
        wrong += [f"{key} is not there" for key in models.keys() - live.keys()]
        for key, model in models.items():
            if key in live and (complaint := judge_status(model, live[key])):
                wrong.append(f"{'/'.join(key)} ({model.fate}): {complaint}")
        return wrong or self._compare_children(live)

    def _compare_children(self, live: dict[tuple[str, str], Json]) -> list[str]:
        expected = self._oracle.expect(self.hand.models.values())
        wrong = []
        for kind in CHILDREN:
            for namespace in NAMESPACES:
                found = {one["metadata"]["name"]: one for one in self._admin.list(kind, namespace)}
                wanted = {
                    name: body
                    for (where, plural, name), body in expected.items()
                    if (where, plural) == (namespace, kind.plural)
                }
                wrong += [f"{kind.plural} {namespace}/{name} is missing" for name in wanted.keys() - found.keys()]
                for name, child in found.items():
                    if (namespace, kind.plural, name) in self.hand.strangers:
                        continue
                    owner = (namespace, child["metadata"].get("labels", {}).get("fairlead.dev/llmdeployment", ""))
                    if name in wanted:
                        uid = live[owner]["metadata"]["uid"] if owner in live else "nobody"
                        gaps = judge_child(wanted[name], child, uid)
                        wrong += [f"{kind.plural} {namespace}/{name}: {gap}" for gap in gaps]
                    elif owner not in self.hand.models or self.hand.models[owner].is_good:
                        wrong.append(f"{kind.plural} {namespace}/{name} is left over")
        return wrong or self._compare_strangers()

    def _compare_strangers(self) -> list[str]:
        wrong = []
        kinds = {kind.plural: kind for kind in CHILDREN}
        for (namespace, plural, name), made in self.hand.strangers.items():
            live = self._admin.find(kinds[plural], namespace, name)
            if live is None or live["metadata"]["uid"] != made["metadata"]["uid"] or live["spec"] != made["spec"]:
                wrong.append(f"somebody's {plural} {namespace}/{name} was touched")
            elif "fairlead" in str(live["metadata"].get("managedFields")) or SELECTOR.split("=")[0] in str(
                live["metadata"]
            ):
                wrong.append(f"somebody's {plural} {namespace}/{name} bears our mark")
        return wrong

    def _look_at_replicas(self) -> list[str]:
        findings = []
        for name in REPLICAS:
            process, url = self.accidents.processes[name], self._cluster.operator_url(name)
            self.summary.vitals.append(measure(len(self.accidents.api_away), name, process.pid, url))
            page, metrics = read_page(url, "/debug/queue"), read_page(url, "/metrics")
            if page["lastErrors"] or page["failures"]:
                findings.append(f"{name} is at rest and in trouble: {page['lastErrors']} {page['failures']}")
            for counter in ("reconcile_panics_total", "reconcile_timeouts_total"):
                line = f'controller_runtime_{counter}{{controller="llmdeployment"}} 0.0'
                if line not in metrics:
                    findings.append(f"{name}: {counter} is not 0")
        if sum(sample.leading for sample in self.summary.vitals[-len(REPLICAS) :]) != 1:
            findings.append("not exactly one replica leads")
        return findings

    def _records(self, mark: AuditMark) -> list[AuditRecord]:
        return self._cluster.audit.records(user=OPERATOR_USER, since=mark)

    def _writes(self, mark: AuditMark) -> list[AuditRecord]:
        """But those that renew the Lease, and those that find a name taken: they go on as long as it is."""
        standing = self.hand.ledger.standing
        return [
            record
            for record in self._records(mark)
            if record.is_write
            and record.resource != "leases"
            and not (record.code == 409 and (record.namespace, record.resource, record.name) in standing)
        ]
