"""Coverage: a field that we set counts, one that others or defaulting added does not; lists follow the API's merge rules."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.quantity import parse_live_quantity
from fairlead.facts.digest import digest_of
from fairlead.kube.compare import (
    clashing_lists,
    fingerprint,
    first_difference,
    is_covered,
)

Json = dict[str, Any]


def deployment() -> Json:
    """What a planner asks for."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "m", "labels": {"a": "1"}, "ownerReferences": [{"uid": "u", "controller": True}]},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"a": "1"}},
            "template": {
                "metadata": {"labels": {"a": "1"}},
                "spec": {
                    "enableServiceLinks": False,
                    "hostNetwork": False,
                    "nodeSelector": {"gpu": "yes"},
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                    "volumes": [
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2048Mi"}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                    "containers": [
                        {
                            "name": "engine",
                            "args": ["--port", "8000"],
                            "env": [{"name": "HOME", "value": "/tmp"}, {"name": "N", "value": "1"}],
                            "ports": [{"containerPort": 8000}, {"containerPort": 9000, "protocol": "TCP"}],
                            "resources": {
                                "requests": {"cpu": "1000m", "memory": "1.5Gi"},
                                "limits": {"nvidia.com/gpu": 1},
                            },
                            "volumeMounts": [
                                {"name": "shm", "mountPath": "/dev/shm"},
                                {"name": "tmp", "mountPath": "/tmp", "readOnly": False},
                            ],
                            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        }
                    ],
                },
            },
        },
    }


def served() -> Json:
    """The same as the API server gives it back: defaults filled in, canonical, and touched by others."""
    live = copy.deepcopy(deployment())
    live["metadata"] |= {"uid": "x", "resourceVersion": "5", "generation": 1, "annotations": {"kubectl": "x"}}
    live["metadata"]["ownerReferences"].insert(0, {"uid": "other"})
    live["spec"] |= {"progressDeadlineSeconds": 600, "strategy": {"type": "RollingUpdate"}}
    pod = live["spec"]["template"]["spec"]
    pod |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    del pod["hostNetwork"]
    pod["volumes"][0]["emptyDir"]["sizeLimit"] = "2Gi"
    pod["volumes"].insert(0, {"name": "injected", "configMap": {"name": "x", "defaultMode": 420}})
    engine = pod["containers"][0]
    engine |= {"terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent"}
    engine["resources"] = {
        "requests": {"cpu": "1", "memory": "1536Mi", "nvidia.com/gpu": "1"},
        "limits": {"nvidia.com/gpu": "1"},
    }
    engine["env"].reverse()
    engine["env"].insert(1, {"name": "INJECTED", "value": "x"})
    engine["ports"][0]["protocol"] = "TCP"
    engine["ports"].reverse()
    del engine["volumeMounts"][1]["readOnly"]
    pod["containers"].insert(0, {"name": "sidecar", "image": "s"})
    live["status"] = {"replicas": 2}
    return live


def engine_of(live: Json) -> Json:
    return next(c for c in live["spec"]["template"]["spec"]["containers"] if c["name"] == "engine")


def test_defaults_additions_order_and_spelling_are_no_difference() -> None:
    assert first_difference(deployment(), served()) is None


def pod_of(live: Json) -> Json:
    pod: Json = live["spec"]["template"]["spec"]
    return pod


DRIFTS = {
    "a value changed": (lambda live: live["spec"].update(replicas=3), "spec.replicas"),
    "a label removed": (lambda live: live["metadata"]["labels"].clear(), "metadata.labels.a"),
    "our owner reference removed": (lambda live: live["metadata"]["ownerReferences"].pop(), "metadata.ownerReferences[0]"),
    "controller turned off": (
        lambda live: live["metadata"]["ownerReferences"][1].update(controller=False), "metadata.ownerReferences[0].controller"),
    "our container removed": (lambda live: pod_of(live)["containers"].pop(), "spec.template.spec.containers[0]"),
    "an env value changed": (
        lambda live: engine_of(live)["env"][0].update(value="2"), "spec.template.spec.containers[0].env[1].value"),
    "an argument added": (lambda live: engine_of(live)["args"].append("--x"), "spec.template.spec.containers[0].args"),
    "arguments reordered": (lambda live: engine_of(live)["args"].reverse(), "spec.template.spec.containers[0].args[0]"),
    "a port's protocol changed": (
        lambda live: engine_of(live)["ports"][0].update(protocol="UDP"), "spec.template.spec.containers[0].ports[1]"),
    "less memory": (
        lambda live: engine_of(live)["resources"]["requests"].update(memory="1Gi"),
        "spec.template.spec.containers[0].resources.requests.memory"),
    "a toleration added": (
        lambda live: pod_of(live)["tolerations"].append({"key": "x"}), "spec.template.spec.tolerations"),
    "a node selector added": (lambda live: pod_of(live)["nodeSelector"].update(zone="a"), "spec.template.spec.nodeSelector"),
    "a selector added": (lambda live: live["spec"]["selector"]["matchLabels"].update(b="2"), "spec.selector.matchLabels"),
    "service links back to their default": (
        lambda live: pod_of(live).pop("enableServiceLinks"), "spec.template.spec.enableServiceLinks"),
    "escalation back to its default": (
        lambda live: engine_of(live)["securityContext"].pop("allowPrivilegeEscalation"),
        "spec.template.spec.containers[0].securityContext.allowPrivilegeEscalation"),
    "a mount made read-only": (
        lambda live: engine_of(live)["volumeMounts"][1].update(readOnly=True),
        "spec.template.spec.containers[0].volumeMounts[1].readOnly"),
    "the host's network": (lambda live: pod_of(live).update(hostNetwork=True), "spec.template.spec.hostNetwork"),
    "a volume of another kind": (
        lambda live: pod_of(live)["volumes"][1].update(emptyDir=None, hostPath={"path": "/"}),
        "spec.template.spec.volumes[0].emptyDir"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRIFTS)
def test_what_somebody_else_changed_is_found_and_named(name: str) -> None:
    change, path = DRIFTS[name]
    live = served()
    change(live)
    assert first_difference(deployment(), live) == path


def test_network_policy_lists_are_atomic() -> None:
    wish = {"spec": {"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8000, "protocol": "TCP"}]}]}}
    live = copy.deepcopy(wish)
    assert is_covered(wish, live)
    live["spec"]["ingress"][0]["ports"].append({"port": 22, "protocol": "TCP"})
    assert first_difference(wish, live) == "spec.ingress[0].ports"
    opened = copy.deepcopy(wish)
    opened["spec"]["ingress"].append({})
    assert first_difference(wish, opened) == "spec.ingress"


def test_a_service_selector_is_atomic_and_its_ports_are_not() -> None:
    wish = {"spec": {"selector": {"a": "1"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]}}
    live = {
        "spec": {
            "selector": {"a": "1"},
            "ports": [
                {"port": 9, "protocol": "TCP"},
                {"port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 3},
            ],
        }
    }
    assert is_covered(wish, live)
    live["spec"]["selector"] = {"a": "1", "b": "2"}
    assert first_difference(wish, live) == "spec.selector"


def test_true_and_one_are_not_the_same() -> None:
    assert not is_covered({"spec": {"x": True}}, {"spec": {"x": 1}})


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1000m", 1), ("1.5Gi", 1610612736), ("1536Mi", 1610612736), ("2k", 2000), ("1E", 10**18), ("1e3", 1000),
     ("1E3", 1000), ("0", 0), ("5u", Decimal("0.000005")), ("-1", -1)],
)  # fmt: skip
def test_quantities_are_numbers(text: str, value: Decimal | int) -> None:
    assert parse_live_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "1 Gi", "one", "1GiB"])
def test_what_is_no_quantity_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_live_quantity(text)


def test_quantities_are_numbers_only_where_the_api_has_quantities() -> None:
    assert not is_covered({"data": {"x": "1000m"}}, {"data": {"x": "1"}})
    assert not is_covered({"spec": {"requests": {"cpu": "1000m"}}}, {"spec": {"requests": {"cpu": "2"}}})


def test_the_hash_knows_no_order_of_keys_and_every_value() -> None:
    body = deployment()
    assert digest_of(dict(reversed(list(body.items())))) == digest_of(body)
    changed = deployment()
    engine_of(changed)["env"][0]["value"] = "/"
    assert digest_of(changed) != digest_of(body)


def test_a_fingerprint_ignores_what_an_apply_cannot_change() -> None:
    live = served()
    before = fingerprint(live)
    live["status"] = {"replicas": 7}
    live["metadata"] |= {"resourceVersion": "9", "generation": 4, "managedFields": []}
    assert fingerprint(live) == before
    live["metadata"]["labels"]["b"] = "c"
    assert fingerprint(live) != before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("abm1", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "env", "args", "ports", "requests", "selector", "x"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), JSON, max_size=2))
def test_everything_covers_itself(body: Json) -> None:
    """Two list items with the same merge key cannot exist on the API server, so they are made distinct."""

    def distinct(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: distinct(item) for key, item in value.items()}
        if isinstance(value, list):
            return [
                {**distinct(item), "name": str(n)} if isinstance(item, dict) else item for n, item in enumerate(value)
            ]
        return value

    body = distinct(body)
    assert first_difference(body, copy.deepcopy(body)) is None


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 3), min_size=1),
    st.dictionaries(st.sampled_from(["c", "d"]), JSON),
)
def test_additions_are_covered_and_removals_are_not(wish: Json, added: Json) -> None:
    assert is_covered({"spec": wish}, {"spec": wish | added})
    for key in wish:
        assert (
            first_difference({"spec": wish}, {"spec": {k: v for k, v in (wish | added).items() if k != key}})
            == f"spec.{key}"
        )


def ports(*numbers: int, name: str = "http") -> Json:
    """A Service with these ports; the first has the name."""
    return {
        "spec": {
            "ports": [{"port": n, "protocol": "TCP"} | ({"name": name} if n == numbers[0] else {}) for n in numbers]
        }
    }


def test_a_port_that_was_renumbered_by_hand_clashes_and_an_added_one_does_not() -> None:
    assert clashing_lists(ports(80), ports(81)) == {"ports"}
    assert clashing_lists(ports(80), ports(80, 81)) == set()
    assert clashing_lists(ports(80), ports(81, name="other")) == set()
    assert clashing_lists(ports(80), {"spec": {}}) == set()
    assert clashing_lists({"spec": {}}, ports(80)) == set()
