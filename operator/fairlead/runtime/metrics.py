"""The operator's metrics, under the names that dashboards made for controller-runtime already know.

One registry per operator instead of prometheus_client's global one, so that tests and a second operator in one process
do not meet. Objects that live elsewhere are counted when they are scraped, so that a deleted CR vanishes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead.api import names
from fairlead.api.conditions import Reason

#: There is one queue and one set of workers for all kinds. Dashboards know it by this name, from when there was one kind.
CONTROLLER: Final = names.LLMDEPLOYMENT.lower()
RESULTS: Final = ("success", "error", "requeue", "requeue_after")
#: What `runtime.refusals` can find.
REFUSAL_REASONS: Final = tuple(
    reason.value
    for reason in (
        Reason.NAME_CONFLICT,
        Reason.IMMUTABLE_FIELD,
        Reason.INVALID_CHILD,
        Reason.CHILD_REFUSED,
        Reason.API_UNAVAILABLE,
    )
)
_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SLOW: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class PassMetrics:
    """Of the passes over the custom resources of one kind. `total` is by result."""

    total: Mapping[str, Counter]
    errors: Counter
    terminal_errors: Counter
    panics: Counter
    timeouts: Counter
    time: Histogram


class Metrics:
    """All metrics. `kinds`: of the custom resources that are worked on. The observer methods are what queue, client and informers call."""

    def __init__(self, kinds: Iterable[str] = (names.LLMDEPLOYMENT,)) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._request_series: dict[tuple[str, str, str], tuple[Counter, Histogram | None]] = {}  # found by label, once
        self.passes = self._make_pass_metrics(kinds)
        self._make_worker_metrics()
        self._make_queue_metrics()
        self._make_own_metrics()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _make_pass_metrics(self, kinds: Iterable[str]) -> dict[str, PassMetrics]:
        prefix = "controller_runtime_reconcile"
        total = self._counter(f"{prefix}_total", "Passes over a custom resource, by result.", "controller", "result")
        errors = self._counter(f"{prefix}_errors_total", "Passes that ended in an error.", "controller")
        terminal_errors = self._counter(
            "controller_runtime_terminal_reconcile_errors_total",
            "Passes that ended in an error which only a change can mend.",
            "controller",
        )
        panics = self._counter(f"{prefix}_panics_total", "Passes that ended in an unexpected exception.", "controller")
        timeouts = self._counter(
            f"{prefix}_timeouts_total", "Passes that were cut off because they took too long.", "controller"
        )
        time = self._histogram(f"{prefix}_time_seconds", "Duration of a pass.", _FAST, "controller")
        return {
            kind: PassMetrics(
                total={result: total.labels(kind.lower(), result) for result in RESULTS},
                errors=errors.labels(kind.lower()),
                terminal_errors=terminal_errors.labels(kind.lower()),
                panics=panics.labels(kind.lower()),
                timeouts=timeouts.labels(kind.lower()),
                time=time.labels(kind.lower()),
            )
            for kind in kinds
        }

    def _make_worker_metrics(self) -> None:
        self.max_concurrent = self._gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers.", "controller"
        ).labels(CONTROLLER)
        self.active_workers = self._gauge(
            "controller_runtime_active_workers", "Workers that are in a pass.", "controller"
        ).labels(CONTROLLER)
        self.leader = self._gauge("leader_election_master_status", "1 on the replica that does the work.", "name")

    def _make_queue_metrics(self) -> None:
        labels = ("name", "controller")
        both = (CONTROLLER, CONTROLLER)
        self.queue_adds = self._counter("workqueue_adds_total", "Keys added.", *labels).labels(*both)
        self.queue_retries = self._counter(
            "workqueue_retries_total", "Keys added again after an error.", *labels
        ).labels(*both)
        self.queue_wait = self._histogram(
            "workqueue_queue_duration_seconds", "How long a key waited.", _SLOW, *labels
        ).labels(*both)
        self.queue_work = self._histogram(
            "workqueue_work_duration_seconds", "How long a key was worked on.", _SLOW, *labels
        ).labels(*both)
        self._queue_depth = self._gauge("workqueue_depth", "Keys waiting.", *labels).labels(*both)
        self._queue_unfinished = self._gauge(
            "workqueue_unfinished_work_seconds", "Seconds that the keys now at work have taken, together.", *labels
        ).labels(*both)
        self._queue_longest = self._gauge(
            "workqueue_longest_running_processor_seconds", "Seconds of the longest of them.", *labels
        ).labels(*both)

    def _make_own_metrics(self) -> None:
        self.requests = self._counter(
            "rest_client_requests_total", "Requests to the API server.", "code", "method", "host"
        )
        self.request_duration = self._histogram(
            "rest_client_request_duration_seconds", "Time until the answer began.", _FAST, "verb", "host"
        )
        self.watch_restarts = self._counter(
            "fairlead_watch_restarts_total", "Watch streams begun again.", "resource", "cause"
        )
        self.applies = self._counter("fairlead_applies_total", "Children applied, by cause.", "kind", "cause")
        self.apply_skipped = self._counter("fairlead_apply_skipped_total", "Children that were right already.", "kind")
        self.status_writes = self._counter("fairlead_status_writes_total", "Status writes.")
        self.ghosts_purged = self._counter(
            "fairlead_ghosts_purged_total", "Custom resources whose deletion a watch had lost."
        )
        self._watch_silence = self._gauge(
            "fairlead_watch_silence_seconds", "How long ago a watch stream was last heard.", "stream"
        )
        self._refused = self._gauge("fairlead_refused_children", "Children that are refused now, by reason.", "reason")
        self._left_behind = self._gauge(
            "fairlead_left_behind_children",
            "Children of deleted custom resources that are in the way of their successors'.",
        )
        self._failing = self._gauge(
            "fairlead_failing_keys", "Custom resources whose last pass ended in an error that is tried again."
        )
        self._lease_age = self._gauge(
            "fairlead_lease_age_seconds", "How long ago the Lease was renewed, by whoever holds it."
        )
        self._tasks = self._gauge("fairlead_tasks", "Tasks on the event loop.")
        self.loop_lag = self._gauge(
            "fairlead_loop_lag_seconds", "How late the event loop ran the last probe of itself."
        )

        self._deliveries = self._counter(
            "fairlead_alert_deliveries_total", "Requests to the port for alerts, by how they were answered.", "result"
        )
        self._alerts = self._counter(
            "fairlead_alerts_total", "Alerts that were delivered, by what came of them.", "effect"
        )
        self._alerts_firing = self._gauge("fairlead_alerts_firing", "Alerts of LLMDeployments that fire.")

    def watch_queue(self, depth: Callable[[], int], busy: Callable[[], Iterable[float]]) -> None:
        """Read the queue's state whenever metrics are scraped."""
        self._queue_depth.set_function(depth)
        self._queue_unfinished.set_function(lambda: sum(busy()))
        self._queue_longest.set_function(lambda: max(busy(), default=0.0))

    def watch_streams(self, silences: Mapping[str, Callable[[], float]]) -> None:
        """Ask each stream, by its name, how many seconds ago it was heard, whenever metrics are scraped."""
        for stream, silence_s in silences.items():
            self._watch_silence.labels(stream).set_function(silence_s)

    def watch_state(
        self,
        *,
        tasks: Callable[[], int],
        failing: Callable[[], int],
        lease_age_s: Callable[[], float],
        refused: Callable[[str], int],
        left_behind: Callable[[], int],
        alerts_firing: Callable[[], int],
    ) -> None:
        """Ask for these whenever metrics are scraped. `refused` takes a value of REFUSAL_REASONS."""
        self._tasks.set_function(tasks)
        self._failing.set_function(failing)
        self._left_behind.set_function(left_behind)
        self._lease_age.set_function(lease_age_s)
        self._alerts_firing.set_function(alerts_firing)
        for reason in REFUSAL_REASONS:
            self._refused.labels(reason).set_function(partial(refused, reason))

    def added(self) -> None:
        """QueueObserver."""
        self.queue_adds.inc()

    def taken(self, waited_s: float) -> None:
        """QueueObserver."""
        self.queue_wait.observe(waited_s)

    def finished(self, worked_s: float) -> None:
        """QueueObserver."""
        self.queue_work.observe(worked_s)

    def retried(self) -> None:
        """QueueObserver."""
        self.queue_retries.inc()

    def observe(self, verb: str, host: str, code: str, duration_s: float) -> None:
        """RequestObserver: method and verb are one, but a WATCH is a GET whose duration says nothing."""
        series = self._request_series.get((verb, host, code))
        if series is None:
            count = self.requests.labels(code, "GET" if verb in ("WATCH", "LIST") else verb, host)
            series = (count, self.request_duration.labels(verb, host) if verb != "WATCH" else None)
            self._request_series[verb, host, code] = series
        series[0].inc()
        if series[1] is not None:
            series[1].observe(duration_s)

    def delivered(self, result: str) -> None:
        """AlertServerObserver."""
        self._deliveries.labels(result).inc()

    def alert_taken(self, effect: str) -> None:
        """InboxObserver."""
        self._alerts.labels(effect).inc()

    def restarted(self, resource: str, cause: str) -> None:
        """StreamObserver."""
        self.watch_restarts.labels(resource, cause).inc()


ConditionSource = Callable[[], Iterable[tuple[str, str, str, str, str]]]


class ConditionCollector(Collector):
    """`fairlead_llmdeployment_condition{namespace,name,type,status,reason}` and the like of each kind that `conditions` has a source
    of: 1 for the status that a condition has now.

    Read from the cache at each scrape: no series outlives its custom resource.
    """

    def __init__(self, conditions: Mapping[str, ConditionSource], object_counts: Callable[[], dict[str, int]]) -> None:
        self._conditions = conditions
        self._object_counts = object_counts

    def collect(self) -> Iterator[Metric]:
        """One family for the conditions of each kind, one for the cache's size."""
        for kind, source in self._conditions.items():
            family = GaugeMetricFamily(
                f"fairlead_{kind.lower()}_condition",
                "Conditions as status shows them.",
                labels=("namespace", "name", "type", "status", "reason"),
            )
            for labels in source():
                family.add_metric(labels, 1.0)
            yield family
        cached = GaugeMetricFamily("fairlead_cache_objects", "Objects in the cache.", labels=("kind",))
        for kind, count in sorted(self._object_counts().items()):
            cached.add_metric((kind,), float(count))
        yield cached

    def describe(self) -> Iterator[Metric]:
        """Nothing at registration: the cache may not be there yet."""
        return iter(())
