"""What must be true of every run, judged from what the cluster recorded. Nothing here comes from the operator's code.

A run is compared with the undisturbed one of the same step; what a run did to which object is read from the cluster's record
of writes, never from what the operator says of itself.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from tests.sim.cluster import SimCluster, Write
from tests.sim.delivery import HEARD_WITHIN_S
from tests.sim.kinds import CHILD_KINDS, Key
from tests.sim.schedules import Outcome
from tests.sim.transport import PATIENCE_S
from tests.unit.planning.kstatus import compute_kstatus

Json = dict[str, Any]
#: Annotations that hold a counter of a controller's, or a digest of a body with uids in it.
_UNCOMPARED = ("deployment.kubernetes.io/", "fairlead.dev/applied-hash", "fairlead.dev/trusted-since")
#: The last part of a run, in which nothing may be sent. A run ends 40 s after its last change.
SETTLED_S = 30.0
#: How old a truth may be that status tells: it waits up to 3 s until a change has settled, and events may be 2.5 s late.
LATELY_S = 6.0
_NUMBERED_POD = re.compile(r"(-[0-9a-f]{8})(-uid-\d+)?-\d+")
_TIMES = frozenset({"lastTransitionTime", "creationTimestamp", "deletionTimestamp", "heldUntil", "time", "requests"})


@dataclass(frozen=True, slots=True)
class Finding:
    """An oracle's name and what it saw."""

    oracle: str
    text: str

    def __str__(self) -> str:
        return f"{self.oracle}: {self.text}"


def judge(reference: Outcome, run: Outcome) -> list[Finding]:
    """All that is wrong with a run."""
    return [
        Finding(oracle.__name__, text)
        for oracle in (*COMPARING, *JUDGING)
        for text in (oracle(reference, run) if oracle in COMPARING else oracle(run))  # type: ignore[operator]
    ]


def same_as_from_nothing(run: Outcome, fresh: Outcome) -> list[Finding]:
    """How a cluster with a past differs from one in which the same was asked for at once. Generations count the past."""
    wanted, found = _timeless(normal_state(fresh.cluster)), _timeless(normal_state(run.cluster))
    return [
        Finding("same_as_from_nothing", f"{key}: {_difference(wanted.get(key), found.get(key))}")
        for key in sorted(wanted.keys() | found.keys())
        if wanted.get(key) != found.get(key)
    ]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("generation", "observedGeneration")}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


def judge_alone(run: Outcome) -> list[Finding]:
    """What can be said of a run without another to compare it with."""
    return [Finding(oracle.__name__, text) for oracle in JUDGING for text in oracle(run)]


# of two runs --------------------------------------------------------------------------------------------------------------


def same_end_state(reference: Outcome, run: Outcome) -> Iterator[str]:
    """Custom resources with their status, children, pods and foreign objects: equal but for uids, versions, times."""
    wanted, found = normal_state(reference.cluster), normal_state(run.cluster)
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            yield f"{key}: {_difference(wanted.get(key), found.get(key))}"


def same_creates_and_deletes(reference: Outcome, run: Outcome) -> Iterator[str]:
    """The operator created and deleted what it did in the undisturbed run: each as often."""
    wanted, found = _history(reference), _history(run)
    if run.step.passing:
        wanted |= Counter({what: 1 for what in found if what[0] == "create"})
    for what in sorted(wanted.keys() | found.keys()):
        if wanted[what] < found[what] or (wanted[what] > found[what] and not run.step.passing):
            yield f"{' '.join(map(str, what))}: {found[what]} times instead of {wanted[what]}"


def no_flapping(reference: Outcome, run: Outcome) -> Iterator[str]:
    """No child was put into a state more often than in the undisturbed run."""
    wanted, found = _states(reference), _states(run)
    if run.step.passing:
        wanted |= Counter(dict.fromkeys(found, 1))
    for what, count in found.items():
        if count > wanted[what]:
            yield f"{what[0]} was brought to one state {count} times instead of {wanted[what]}"


def no_turning_status(reference: Outcome, run: Outcome) -> Iterator[str]:
    """Ready and Stalled turn as often as in the undisturbed run, with one more step aside where something went wrong, since
    then a moment may be told of that is passed over otherwise. (That each turn is true is judged by `never_lies`.)

    Not judged where children are seen late: then status truly tells of what was seen, and its precondition, which is the custom
    resource's version, cannot know better.
    """
    if run.schedule.sees_children_late:
        return
    for key, turns in _turns(run).items():
        wanted = _turns(reference).get(key, [])
        if turns != wanted if run.schedule.undisturbed else len(turns) > len(wanted) + 2:
            yield f"{key}: {' → '.join(turns)} instead of {' → '.join(wanted)}"


def no_event_twice(reference: Outcome, run: Outcome) -> Iterator[str]:
    """An Event tells of a transition, once. (Where children are seen late there are more transitions, see above.)"""
    if run.schedule.sees_children_late:
        return
    wanted, found = _events(reference), _events(run)
    for what, count in found.items():
        if count > max(1, wanted[what]):
            yield f"{what}: told {count} times"


# of one run ---------------------------------------------------------------------------------------------------------------


def converges(run: Outcome) -> Iterator[str]:
    """It comes to rest."""
    if not run.converged:
        yield "still changes things after fifteen minutes: " + "; ".join(map(str, run.writes[-4:]))


def quiet_when_settled(run: Outcome) -> Iterator[str]:
    """At the end nothing is sent any more, also after a restart; and while no request and no process fails, nothing is ever sent
    that has no effect. (A name that is taken is asked for again, and refused.)"""
    for number, write in enumerate(run.writes):
        if write.actor not in run.actors or write.key.kind in ("Lease", "Event") or write.code >= 300:
            continue
        settled = number >= run.quiet_from and (write.at_s > run.ended_s - SETTLED_S or run.schedule.restarted)
        if settled or (run.schedule.only_events_fail and not write.changed):
            yield f"a write for nothing: {write}"


def touches_only_its_own(run: Outcome) -> Iterator[str]:
    """Of custom resources only status; of other objects only those whose controller is a custom resource of ours."""
    for write in run.writes:
        if write.actor not in run.actors or not write.changed:
            continue
        kind = write.key.kind
        if kind == "LLMDeployment":
            if write.subresource != "status" or _but_status(write.before) != _but_status(write.after):
                yield f"a custom resource was changed beyond its status: {write}"
        elif kind in CHILD_KINDS:
            if write.before is not None and not owner_uid(write.before):
                yield f"somebody else's object was changed: {write}"
            if (
                write.before is not None
                and write.after is not None
                and owner_uid(write.before) != owner_uid(write.after)
            ):
                yield f"an object changed hands: {write}"
        elif kind not in ("Event", "Lease"):
            yield f"what has nothing to do with it: {write}"


def nothing_after_the_end(run: Outcome) -> Iterator[str]:
    """Nothing is made for a custom resource that is gone.

    Excused is what nobody can help: the first making of a child by somebody who was there before and could not have heard yet.
    """
    gone_s = {
        e.before["metadata"]["uid"]: float("-inf") for e in run.before.log if e.after is None and e.before is not None
    }
    born_s = {life.actor: life.born_s for life in run.lives}
    made = {(key, owner_uid(record.live)) for key, record in run.before.records.items()}
    for write in run.writes:
        if write.key.kind == "LLMDeployment" and write.effect == "delete" and write.before is not None:
            gone_s.setdefault(write.before["metadata"]["uid"], write.at_s)
        if (
            write.effect != "create"
            or write.after is None
            or write.actor not in run.actors
            or write.key.kind not in CHILD_KINDS
        ):
            continue
        owner = owner_uid(write.after)
        first = (write.key, owner) not in made
        made.add((write.key, owner))
        if owner in gone_s:
            within_s = run.heard_within_s or HEARD_WITHIN_S[run.schedule.manner] + run.schedule.lag_s
            unheard = write.at_s - gone_s[owner] < within_s
            if not (first and unheard and born_s[write.actor] < gone_s[owner]):
                yield f"made after its custom resource was deleted: {write}"


def tells_the_truth(run: Outcome) -> Iterator[str]:
    """At the end kstatus says what the step expects, and the counts are those of the pods."""
    for resource in run.cluster.all("LLMDeployment"):
        name = resource["metadata"]["name"]
        verdict = compute_kstatus(resource)
        if run.step.expect is not None and verdict != run.step.expect:
            yield f"{name}: kstatus says {verdict} instead of {run.step.expect}: {_speak(resource)}"
        status = resource.get("status") or {}
        pods = serving_pods(run.cluster, resource)
        if status.get("readyReplicas", 0) != pods:
            yield f"{name}: readyReplicas is {status.get('readyReplicas')}, but {pods} pods are ready"
        wanted = _wanted(resource["spec"], run.cluster.get("Deployment", resource["metadata"]["namespace"], name))
        if verdict == "Current" and pods != wanted:
            yield f"{name}: Current with {pods} pods of {wanted}"
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            yield f"{name}: generation {status.get('observedGeneration')} of {resource['metadata']['generation']} is observed"


def never_lies(run: Outcome) -> Iterator[str]:
    """Whenever status says Ready for a generation, all its replicas served a moment ago; whenever it takes Ready back without a
    new generation or a fault that is named, a moment ago not all did. (Where children are seen late, see above.)"""
    if run.schedule.sees_children_late:
        return
    truth = _Truth(run.before)
    for write in run.writes:
        if write.key.kind != "LLMDeployment" or not write.subresource or not write.changed or write.after is None:
            truth.note(write)
            continue
        before, after = ((write.before or {}).get("status") or {}), write.after["status"]
        if after.get("observedGeneration") != write.after["metadata"]["generation"]:
            yield f"status of another generation was written: {write}"
        serving = truth.lately(write, LATELY_S)
        ready, was = _status_of(after, "Ready"), _status_of(before, "Ready")
        if ready == "True" and True not in serving:
            yield f"Ready, but not all replicas serve: {write}"
        excused = (
            _status_of(after, "Stalled") == "True" or before.get("observedGeneration") != after["observedGeneration"]
        )
        if ready == "False" and was == "True" and False not in serving and not excused:
            yield f"not Ready any more, but all replicas serve: {write}"


class _Truth:
    """Whether each custom resource's Deployment has all its replicas serving, over time."""

    def __init__(self, before: SimCluster) -> None:
        self._resources = {key: record.live for key, record in before.records.items() if key.kind == "LLMDeployment"}
        self._deployments = {key: record.live for key, record in before.records.items() if key.kind == "Deployment"}
        self._history: dict[tuple[str, str], list[tuple[float, bool]]] = {}
        self._edited_s: dict[tuple[str, str], float] = {}
        for key in self._resources:
            self._record(float("-inf"), key.namespace, key.name)

    def note(self, write: Write) -> None:
        """One write after the other."""
        objects = {"LLMDeployment": self._resources, "Deployment": self._deployments}.get(write.key.kind)
        if objects is None or not write.changed:
            return
        at = (write.key.namespace, write.key.name)
        if write.key.kind == "LLMDeployment":
            self._edited_s[at] = write.at_s
        if write.after is None:
            objects.pop(write.key, None)
        else:
            objects[write.key] = write.after
        self._record(write.at_s, write.key.namespace, write.key.name)

    def lately(self, write: Write, within_s: float) -> set[bool]:
        """What held at some moment of the last seconds, since the last edit of the spec."""
        at = (write.key.namespace, write.key.name)
        history = self._history.get(at, [])
        from_s = max(write.at_s - within_s, self._edited_s.get(at, 0.0))
        held = {serving for at_s, serving in history if at_s >= from_s}
        older = [serving for at_s, serving in history if at_s < from_s]
        return held | set(older[-1:])

    def _record(self, at_s: float, namespace: str, name: str) -> None:
        resource = self._resources.get(Key("LLMDeployment", namespace, name))
        deployment = self._deployments.get(Key("Deployment", namespace, name))
        serving = resource is not None and deployment is not None and _serves(resource, deployment)
        self._history.setdefault((namespace, name), []).append((at_s, serving))


def _wanted(spec: Json, deployment: Json | None) -> int:
    """How many pods there should be. Where they are scaled, it is what the Deployment was told, within the bounds of the spec."""
    if spec.get("suspend"):
        return 0
    scaled = spec.get("autoscaling")
    if not scaled or deployment is None:
        return int(spec.get("replicas", 1))
    return max(scaled.get("minReplicas", 1), min(scaled["maxReplicas"], deployment["spec"]["replicas"]))


def _serves(resource: Json, deployment: Json) -> bool:
    """All of them do; where they are scaled, those do that there are at least."""
    spec, status = resource["spec"], deployment.get("status") or {}
    wanted = _wanted(spec, deployment)
    if spec.get("autoscaling"):
        return bool(status.get("availableReplicas", 0) >= min(wanted, spec["autoscaling"].get("minReplicas", 1)))
    seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    ours = owner_uid(deployment) == resource["metadata"]["uid"]
    return bool(ours and seen and deployment["spec"]["replicas"] == wanted and counts == {wanted})


def obeys(run: Outcome) -> Iterator[str]:
    """Who was told that it leads no more writes nothing; who was asked for patience sends nothing until then."""
    if run.deposed is not None:
        actor, at_s = run.deposed
        late = [w for w in run.writes if w.actor == actor and w.at_s > at_s + 0.0005 and w.key.kind != "Lease"]
        yield from (f"written by one that leads no more: {write}" for write in late)
    for number, write in enumerate(run.writes):
        if write.code != 429:
            continue
        hasty = [w for w in run.writes[number + 1 :] if w.actor == write.actor and w.at_s < write.at_s + PATIENCE_S]
        # What was planned in the same pass beside it is on its way already.
        hasty = [w for w in hasty if w.key == write.key]
        yield from (f"not asked to be sent so soon: {w}" for w in hasty)


def no_life_failed(run: Outcome) -> Iterator[str]:
    """No pass raised, no task died."""
    for life in run.lives:
        yield from life.findings


COMPARING = (same_end_state, same_creates_and_deletes, no_flapping, no_turning_status, no_event_twice)
JUDGING: tuple[Callable[[Outcome], Iterator[str]], ...] = (
    converges,
    quiet_when_settled,
    touches_only_its_own,
    nothing_after_the_end,
    tells_the_truth,
    never_lies,
    obeys,
    no_life_failed,
)


# how states are made comparable -------------------------------------------------------------------------------------------


def owner_uid(live: Mapping[str, Any]) -> str:
    """uid of the LLMDeployment that controls an object, or ""."""
    for owner in live["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] == "LLMDeployment":
            return str(owner["uid"])
    return ""


def serving_pods(cluster: SimCluster, resource: Json) -> int:
    """Ready pods of the Deployment that this custom resource owns."""
    deployment = cluster.get("Deployment", resource["metadata"]["namespace"], resource["metadata"]["name"])
    if deployment is None or owner_uid(deployment) != resource["metadata"]["uid"]:
        return 0
    count = 0
    for pod in cluster.all("Pod", resource["metadata"]["namespace"]):
        ours = pod["metadata"]["annotations"]["sim/deployment-uid"] == deployment["metadata"]["uid"]
        count += ours and _status_of(pod.get("status") or {}, "Ready") == "True"
    return count


def normal_state(cluster: SimCluster) -> dict[str, Any]:
    """Everything that people see, without what differs from run to run."""
    uids = {record.live["metadata"]["uid"]: str(key) for key, record in cluster.records.items()}
    state: dict[str, Any] = {}
    pods: Counter[bytes] = Counter()
    for key, record in cluster.records.items():
        if key.kind in ("Event", "Lease", "ReplicaSet"):
            continue
        live = normalise(record.live, uids)
        if key.kind == "Pod":
            spec = orjson.dumps(
                [live["metadata"].get("labels"), live["spec"], live["status"]], option=orjson.OPT_SORT_KEYS
            )
            pods[spec] += 1
        else:
            state[str(key)] = live
    state["pods"] = dict(pods)
    return state


def normalise(live: Json, uids: Mapping[str, str]) -> Json:
    """One object without uids, versions, times, allocated addresses."""
    metadata = {
        name: value
        for name, value in live["metadata"].items()
        if name in ("name", "namespace", "labels", "finalizers", "deletionTimestamp")
    }
    annotations = live["metadata"].get("annotations") or {}
    metadata["annotations"] = {k: v for k, v in annotations.items() if not k.startswith(_UNCOMPARED)}
    metadata["owners"] = [uids.get(owner["uid"], "gone") for owner in live["metadata"].get("ownerReferences") or ()]
    if live["kind"] == "LLMDeployment":
        metadata["generation"] = live["metadata"]["generation"]
    rest = {name: value for name, value in live.items() if name not in ("metadata", "apiVersion")}
    if live["kind"] == "Secret":  # keys are made by chance; how many certificates there are is not
        rest["data"] = {k: b64decode(v).decode().count("BEGIN CERTIFICATE") for k, v in (rest["data"] or {}).items()}
    if live["kind"] == "Deployment":
        rest["status"] = {k: v for k, v in (rest.get("status") or {}).items() if k != "observedGeneration"}
    normal: Json = _scrub({"metadata": metadata, **rest})
    return normal


def _scrub(value: Any) -> Any:
    if isinstance(value, dict):
        dropped = {"clusterIP", "clusterIPs", "nodePort", "volumeName", "startedAt", *_TIMES}
        if {"from", "to", "reason"} <= value.keys():
            dropped |= {"message", "inputs"}  # of a decision: what was measured at that moment
        headless = value.get("clusterIP") == "None"
        return {k: _scrub(v) for k, v in value.items() if k not in dropped} | ({"headless": True} if headless else {})
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    if isinstance(value, str):
        return _NUMBERED_POD.sub(r"\1-N", value)
    return value


def _digest(live: Json) -> bytes:
    """What somebody asked for in an object."""
    normal = normalise(live, {})
    normal.pop("status", None)
    normal["metadata"].pop("owners", None)
    return orjson.dumps(normal, option=orjson.OPT_SORT_KEYS)


def _history(run: Outcome) -> Counter[tuple[str, str, str]]:
    return Counter(
        (write.effect, write.key.kind, write.key.name)
        for write in run.writes
        if write.actor in run.actors and write.effect in ("create", "delete") and write.key.kind in CHILD_KINDS
    )


def _states(run: Outcome) -> Counter[tuple[Key, bytes]]:
    return Counter(
        (write.key, _digest(write.after))
        for write in run.writes
        if write.actor in run.actors
        and write.effect in ("create", "update")
        and write.after
        and write.key.kind in CHILD_KINDS
        if write.before is None or _digest(write.before) != _digest(write.after)
    )


def _turns(run: Outcome) -> dict[str, list[str]]:
    turns: dict[str, list[str]] = {}
    for write in run.writes:
        if write.key.kind == "LLMDeployment" and write.subresource and write.changed and write.after:
            status = write.after.get("status") or {}
            turn = f"Ready={_status_of(status, 'Ready')} Stalled={_status_of(status, 'Stalled')}"
            listed = turns.setdefault(f"{write.key.name}/{write.after['metadata']['uid']}", [])
            if not listed or listed[-1] != turn:
                listed.append(turn)
    return turns


def _events(run: Outcome) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for write in run.writes:
        if write.key.kind == "Event" and write.effect == "create" and write.after:
            note = _NUMBERED_POD.sub(r"\1-N", write.after["note"])
            found[(write.after["regarding"]["uid"], write.after["reason"], note)] += 1
    return found


def _status_of(status: Mapping[str, Any], condition_type: str) -> str | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == condition_type:
            return str(condition["status"])
    return None


def _but_status(live: Json | None) -> Json | None:
    if live is None:
        return None
    metadata = {k: v for k, v in live["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {k: v for k, v in live.items() if k != "status"} | {"metadata": metadata}


def _speak(resource: Json) -> str:
    conditions = (resource.get("status") or {}).get("conditions") or ()
    return "; ".join(f"{c['type']}={c['status']} {c['reason']} {c['message'][:120]}" for c in conditions[:3])


def _difference(wanted: Any, found: Any, path: str = "") -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in sorted(wanted.keys() | found.keys(), key=str):
            if wanted.get(name) != found.get(name):
                return _difference(wanted.get(name), found.get(name), f"{path}.{name!s:.60}")
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            if one != other:
                return _difference(one, other, f"{path}[{index}]")
    return f"{path} is {str(found)[:200]} instead of {str(wanted)[:200]}"
