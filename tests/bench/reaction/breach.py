"""From the first request that waited too long for its token to the replicas that are asked for: by the operator's own looks, and by a
real Prometheus that finds and scrapes the pods as the shipped configuration says."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from hack.prometheus import Monitoring
from tests.bench.reaction.clients import BUSY, Clients, clients
from tests.bench.reaction.readings import AUDIT, LineTimes, Writes, read_writes, until
from tests.bench.reaction.timeline import Moment, Timeline

from fairlead_cluster.audit import AuditMark
from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import spawn, tail, wait_until

__all__ = ["Scraper", "measure_breaches", "scraping"]

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
TARGET_S = 0.5
READY_S = 90.0
#: Longer than any window of the law, so that it has seen that all was well.
CALM_S = 75.0
PATIENCE_S = 120.0
DIRECT_S, PROMETHEUS_S = 15.0, 45.0
#: By how much a line may be read later than it was written, on a busy machine; looks are further apart.
LATE_S = 1.0
#: Between the beginnings of two models' load: each meets another moment of the looks.
APART_S = 1.7


@dataclass(frozen=True)
class Scraper:
    """A Prometheus with its log of questions, and the file in which it finds its targets."""

    url: str
    interval_s: int
    questions: Path
    targets: Path

    def aim(self, cluster: LocalCluster, namespaces: Sequence[str]) -> None:
        """Let it scrape the engines of these namespaces, some seconds from now on, with the labels that the shipped configuration gives.
        It is told of pods since the Prometheus of some distributions cannot list them."""
        groups = []
        for namespace in namespaces:
            pods = cluster.kubectl.json("get", "pods", f"--namespace={namespace}")["items"]
            groups += [
                {
                    "targets": [f"{pod['status']['podIP']}:8000"],
                    "labels": {
                        "llm_namespace": namespace,
                        "llm_name": "m",
                        "namespace": namespace,
                        "pod": pod["metadata"]["name"],
                    },
                }
                for pod in pods
            ]
        partial = self.targets.with_suffix(".partial")
        partial.write_text(json.dumps(groups))
        partial.rename(self.targets)

    def scrapes(self, namespace: str, over_s: int) -> list[float]:
        """When the pods of a namespace were scraped of late, epoch seconds."""
        query = f'up{{job="fairlead-engines",namespace="{namespace}"}}[{over_s}s]'
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, trust_env=False, timeout=20)
        return sorted(float(at) for one in answer.json()["data"]["result"] for at, _ in one["values"])

    def asked(self, namespace: str) -> list[float]:
        """When the operator asked about them; when the answer was there, to be exact."""
        entries = [json.loads(line) for line in self.questions.read_text().splitlines()]
        return [
            _epoch_s(entry["ts"])
            for entry in entries
            if f'namespace="{namespace}"' in entry["params"]["query"] and "increase" in entry["params"]["query"]
        ]


def _epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextlib.contextmanager
def scraping(cluster: LocalCluster, tools: Monitoring, folder: Path, interval_s: int) -> Iterator[Scraper]:
    """The shipped scrape job, with another interval if that is asked for."""
    folder.mkdir()
    (port,) = free_ports(1)
    shipped = yaml.safe_load((ROOT / "manifests/monitoring/scrape.yaml").read_text())
    [engines] = [one for one in shipped["scrape_configs"] if one["job_name"] == "fairlead-engines"]
    targets = folder / "targets.json"
    targets.write_text("[]")
    engines |= {"scrape_interval": f"{interval_s}s", "file_sd_configs": [{"files": [str(targets)]}]}
    del engines["kubernetes_sd_configs"], engines["relabel_configs"]
    scraper = Scraper(f"http://127.0.0.1:{port}", interval_s, folder / "questions.log", targets)
    config = {"global": {"query_log_file": str(scraper.questions)}, "scrape_configs": [engines]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        tools.prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = spawn("prometheus", command, folder / "prometheus.log", stop_grace_s=5.0)
    try:
        if not wait_until(lambda: _is_ready(scraper.url), 30.0, 0.1):
            raise RuntimeError(f"Prometheus does not start:\n{tail(process.log_path)}")
        yield scraper
    finally:
        process.stop()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def make_model(namespace: str) -> Json:
    """A simulated model that prefills a thousand tokens a second, on CPU."""
    speed = {"FAIRLEAD_SIM_LOAD_SECONDS": "2", "FAIRLEAD_SIM_PROMPT_TOKENS_PER_SECOND": "1000"}
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {
            "model": {"source": "hf://Qwen/Qwen3-0.6B", "name": "m"},
            "engine": {"type": "vLLM", "env": [{"name": name, "value": value} for name, value in speed.items()]},
            "rollout": {"drainTimeout": "1s"},
            "autoscaling": {
                "minReplicas": 1,
                "maxReplicas": 3,
                "targets": {"timeToFirstToken": f"{TARGET_S * 1000:.0f}ms"},
            },
        },
    }


@dataclass
class _Subject:
    """One model with its clients, and what was read of its one breach."""

    namespace: str
    clients: Clients
    looks: LineTimes
    mark: AuditMark
    busy_at: float = 0.0

    def is_reacted(self, cluster: LocalCluster) -> Writes | None:
        return read_writes(cluster, self.namespace, self.mark)


def measure_breaches(cluster: LocalCluster, runs: int, scraper: Scraper | None = None) -> list[Timeline]:
    """So many models side by side, each with a load of its own that begins a moment later. The operator runs already."""
    with contextlib.ExitStack() as stack:
        namespaces = [stack.enter_context(cluster.namespace("reaction")) for _ in range(runs)]
        for namespace in namespaces:
            cluster.kubectl.apply(make_model(namespace))
        for namespace in namespaces:
            until(lambda namespace=namespace: _is_serving(cluster, namespace), "the model serves", READY_S)
        if scraper is not None:
            scraper.aim(cluster, namespaces)
        subjects = []
        for namespace in namespaces:
            url = cluster.service_url(namespace, "m", 80)
            looks = LineTimes(cluster.nodes_dir / "logs", namespace, "GET /metrics")
            stack.callback(looks.stop)
            subjects.append(_Subject(namespace, stack.enter_context(clients(url, "m")), looks, cluster.audit.mark()))
        time.sleep(CALM_S)
        calm = [subject for subject in subjects if _is_calm(cluster, subject)]
        for subject in calm:
            subject.mark, subject.busy_at = cluster.audit.mark(), time.time()
            subject.clients.words = BUSY
            time.sleep(APART_S)
        # Told one after the other: each is read from logs, so nothing is lost by that.
        return [_tell(cluster, subject, scraper) for subject in calm]


def _is_calm(cluster: LocalCluster, subject: _Subject) -> bool:
    """Whether there is one replica still. On a machine that is busy with other things a request may wait, and replicas follow."""
    if not subject.is_reacted(cluster):
        return True
    messages = [one["message"] for one in _decisions(cluster, subject.namespace)]
    print(f"  not measured, since replicas were asked for before the load came: {messages}", flush=True)
    return False


def _is_serving(cluster: LocalCluster, namespace: str) -> bool:
    status = cluster.kubectl.json("get", "llmdep", "m", f"--namespace={namespace}").get("status") or {}
    return bool(status.get("readyReplicas"))


def _tell(cluster: LocalCluster, subject: _Subject, scraper: Scraper | None) -> Timeline:
    writes: Writes = until(lambda: subject.is_reacted(cluster), "replicas are asked for", PATIENCE_S)
    breach = until(lambda: subject.clients.breached(subject.busy_at, TARGET_S), "a request that is late", PATIENCE_S)
    subject.clients.words = 0
    _check_decision(cluster, subject.namespace)
    if scraper is None:
        figure, target_s, seen = "breach -> replicas requested, pods asked every 5 s", DIRECT_S, subject.looks.times
        moments = _looks(seen, subject.busy_at, breach, writes.status_sent, "engine's access log", late_s=LATE_S)
    else:
        figure = f"breach -> replicas requested, Prometheus scrapes every {scraper.interval_s} s"
        target_s = PROMETHEUS_S
        answered = [at for at in scraper.asked(subject.namespace) if at <= writes.status_sent + LATE_S]
        asked = min(max(answered), writes.status_sent)
        moments = _looks(
            scraper.scrapes(subject.namespace, 300), subject.busy_at, breach, asked, "Prometheus, samples of up"
        )
        moments.append(Moment("look: until the operator asks Prometheus", asked, "Prometheus' query log"))
    return Timeline(
        figure,
        target_s,
        breach,
        (
            *moments,
            Moment("decision: until the write of status is received", writes.status_sent, AUDIT),
            Moment("write of status", writes.status_kept, AUDIT),
            Moment("write of the Deployment", writes.replicas_kept, AUDIT),
        ),
    )


def _looks(
    seen: Sequence[float], loaded: float, breach: float, before: float, read: str, *, late_s: float = 0.0
) -> list[Moment]:
    """The first look after the breach, and the last before what followed from it: between them the law waits for more. A look between the
    load and the breach is the one, and its item below zero, where replicas were asked for by what it saw. What is read up to `late_s`
    after what followed was there before it."""
    since = [min(at, before) for at in seen if loaded <= at <= before + late_s]
    between = [at for at in since if at >= breach] or since[-1:]
    if not between:
        raise RuntimeError(f"nobody looked between the load and what followed, {before - loaded:.1f} s: {seen[-5:]}")
    return [
        Moment("scrape: until the pod is next looked at", between[0], read),
        Moment("window: until enough is seen", between[-1], read),
    ]


def _decisions(cluster: LocalCluster, namespace: str) -> list[Json]:
    """Those that went up."""
    status = cluster.kubectl.json("get", "llmdep", "m", f"--namespace={namespace}")["status"]["scaling"]
    return [one for one in status.get("decisions", []) if one["to"] > one["from"]]


def _check_decision(cluster: LocalCluster, namespace: str) -> None:
    """That what was written is the decision to go up."""
    decisions = _decisions(cluster, namespace)
    if not decisions:
        raise RuntimeError("a Deployment was written, but no decision to go up is in status")
    print(f"  {decisions[0]['message']}", flush=True)
