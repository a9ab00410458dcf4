"""Phases and conditions from container states, and the environment that Services give."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead_cluster.node.environment import service_variables
from fairlead_cluster.node.state import PodState, Terminated, make_conditions, make_phase, make_states, make_status

Json = dict[str, Any]

NOW_S = 1_800_000_000.0


def end(code: int) -> Terminated:
    return Terminated(code, "Completed" if code == 0 else "Error", "", NOW_S, NOW_S, "id")


def make_state(*names: str, inits: tuple[str, ...] = (), sidecars: tuple[str, ...] = ()) -> PodState:
    init_specs = [{"name": name, "image": "i"} for name in inits]
    init_specs += [{"name": name, "image": "i", "restartPolicy": "Always"} for name in sidecars]
    return PodState(
        start_time_s=NOW_S,
        host_ip="127.244.0.1",
        containers=make_states([{"name": name, "image": "i"} for name in names], [], is_init=False),
        init_containers=make_states(init_specs, [], is_init=True),
    )


def make_pod(*conditions: Json, **spec: Any) -> Json:
    return {"metadata": {"generation": 3}, "spec": spec, "status": {"conditions": list(conditions)}}


def reason(state: PodState, kind: str, pod: Json | None = None) -> tuple[str, str | None]:
    conditions = make_conditions(pod or make_pod(), state, make_phase(state))
    found = next(one for one in conditions if one["type"] == kind)
    return found["status"], found["reason"]


def test_a_pod_is_pending_until_all_containers_have_run() -> None:
    state = make_state("a", "b")
    assert make_phase(state) == "Pending"
    state.initialized = True
    state.containers[0].set_running(NOW_S)
    assert make_phase(state) == "Pending"
    state.containers[1].set_running(NOW_S)
    assert make_phase(state) == "Running"
    state.containers[1].set_terminated(end(1))
    state.containers[1].set_waiting("CrashLoopBackOff")
    assert make_phase(state) == "Running"


@pytest.mark.parametrize(("codes", "phase"), [((0, 0), "Succeeded"), ((0, 1), "Failed"), ((137, 0), "Failed")])
def test_the_last_phase_follows_the_exit_codes(codes: tuple[int, int], phase: str) -> None:
    state = make_state("a", "b")
    for container, code in zip(state.containers, codes, strict=True):
        container.set_terminated(end(code))
    state.initialized = state.ended = True
    assert make_phase(state) == phase
    assert reason(state, "Ready") == ("False", "PodCompleted" if phase == "Succeeded" else "PodFailed")


def test_ready_needs_every_container_and_every_sidecar() -> None:
    state = make_state("a", "b", sidecars=("s",))
    state.initialized = True
    for one in [*state.containers, *state.init_containers]:
        one.set_running(NOW_S)
        one.ready = one.started = True
    assert reason(state, "Ready") == ("True", None)
    state.init_containers[0].ready = False
    assert reason(state, "ContainersReady") == ("False", "ContainersNotReady")
    assert reason(state, "Ready") == ("False", "ContainersNotReady")


def test_gates_hold_ready_but_not_the_containers() -> None:
    state = make_state("a")
    state.initialized = True
    state.containers[0].set_running(NOW_S)
    state.containers[0].ready = True
    gates = {"readinessGates": [{"conditionType": "x/y"}]}
    assert reason(state, "Ready", make_pod(**gates)) == ("False", "ReadinessGatesNotReady")
    assert reason(state, "ContainersReady", make_pod(**gates)) == ("True", None)
    assert reason(state, "Ready", make_pod({"type": "x/y", "status": "False"}, **gates))[0] == "False"
    assert reason(state, "Ready", make_pod({"type": "x/y", "status": "True"}, **gates)) == ("True", None)


def test_initialized_names_those_that_are_not_done() -> None:
    state = make_state("a", inits=("i",), sidecars=("s",))
    initialized = make_conditions(make_pod(), state, make_phase(state))[1]
    assert initialized["message"] == "containers with incomplete status: [i s]"
    state.init_containers[0].set_terminated(end(0))
    initialized = make_conditions(make_pod(), state, make_phase(state))[1]
    assert initialized["message"] == "containers with incomplete status: [s]"


def test_a_transition_time_changes_only_with_the_status() -> None:
    state = make_state("a")
    old = {"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    conditions = {one["type"]: one for one in make_status(make_pod(old), state, NOW_S)["conditions"]}
    assert conditions["Ready"]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert conditions["ContainersReady"]["lastTransitionTime"] == "2027-01-15T08:00:00Z"
    state.initialized = True
    state.containers[0].set_running(NOW_S)
    state.containers[0].ready = True
    conditions = {one["type"]: one for one in make_status(make_pod(old), state, NOW_S)["conditions"]}
    assert conditions["Ready"]["lastTransitionTime"] == "2027-01-15T08:00:00Z"


def test_containers_that_ran_before_count_on() -> None:
    specs = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
    states = make_states(specs, [{"name": "a", "containerID": "old", "restartCount": 4}], is_init=False)
    assert [state.restart_count for state in states] == [5, 0]


def test_the_last_end_is_kept_while_waiting_and_while_running_again() -> None:
    container = make_state("a").containers[0]
    container.set_terminated(end(1))
    container.set_waiting("CrashLoopBackOff", "back-off")
    assert container.to_json()["lastState"]["terminated"]["exitCode"] == 1
    assert container.to_json()["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    container.set_running(NOW_S)
    assert container.to_json()["lastState"]["terminated"]["exitCode"] == 1
    assert container.to_json()["state"] == {"running": {"startedAt": "2027-01-15T08:00:00Z"}}


def test_service_variables_are_the_kubelets() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]
    service = {"metadata": {"name": "redis.primary-1"}, "spec": {"clusterIP": "10.0.0.11", "ports": ports}}
    headless = {"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": ports}}
    assert service_variables([service, headless]) == {
        "REDIS_PRIMARY_1_SERVICE_HOST": "10.0.0.11",
        "REDIS_PRIMARY_1_SERVICE_PORT": "80",
        "REDIS_PRIMARY_1_SERVICE_PORT_HTTP": "80",
        "REDIS_PRIMARY_1_SERVICE_PORT_DNS_UDP": "53",
        "REDIS_PRIMARY_1_PORT": "tcp://10.0.0.11:80",
        "REDIS_PRIMARY_1_PORT_80_TCP": "tcp://10.0.0.11:80",
        "REDIS_PRIMARY_1_PORT_80_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_1_PORT_80_TCP_PORT": "80",
        "REDIS_PRIMARY_1_PORT_80_TCP_ADDR": "10.0.0.11",
        "REDIS_PRIMARY_1_PORT_53_UDP": "udp://10.0.0.11:53",
        "REDIS_PRIMARY_1_PORT_53_UDP_PROTO": "udp",
        "REDIS_PRIMARY_1_PORT_53_UDP_PORT": "53",
        "REDIS_PRIMARY_1_PORT_53_UDP_ADDR": "10.0.0.11",
    }
