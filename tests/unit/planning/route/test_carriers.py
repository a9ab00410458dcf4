"""Gateways beside engines: what a route makes then, whom its Service leads to, and what such a gateway cannot do."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.unit.planning.kstatus import compute_kstatus as kstatus
from tests.unit.planning.route.routes import NOW, carry_out, child, condition, make_facts, make_route, make_spec, plan
from tests.unit.planning.route.test_planner import STATS

from fairlead.api.names import ANNOTATION_ROUTING, LABEL_LLMROUTE
from fairlead.api.resource import LLMRoute
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.facts.route import Carrier, GatewayPod, LocalDeployment, RouteFacts
from fairlead.gateway.envoy.clients import AUTHENTICATION_FILE
from fairlead.gateway.envoy.files import LIMIT_FILES, ROUTING_INTERFACE, version_of
from fairlead.gateway.envoy.loaded import AUTHENTICATION
from fairlead.gateway.envoy.unrouted import render_unrouted_routing
from fairlead.planning.plan import Plan
from fairlead.planning.route.publishing import VERSIONED

Json = dict[str, Any]
CARRIER = Carrier("llama-70b", 2, is_closed=True)
GATEWAY = ("Deployment", "assistants-gateway")


def local_spec(**more: Any) -> Json:
    """SPEC without its provider."""
    spec = make_spec()
    del spec["backends"][1], spec["models"][0]["targets"][1]
    return {**spec, **more}


def carried(**more: Any) -> LLMRoute:
    return make_route(local_spec(gateway={"mode": "Sidecar"}, **more))


def facts(*pods: GatewayPod, carriers: tuple[Carrier, ...] = (CARRIER,), **more: Any) -> RouteFacts:
    return make_facts(carriers=carriers, gateways=pods, **more)


def keys(planned: Plan) -> set[str]:
    return {str(one.key) for one in planned.children}


def answer_of(children: Mapping[ObjectKey, Any]) -> Json:
    """What a gateway says that has loaded what these objects hold."""
    data = {name: text for live in children.values() for name, text in (live.get("data") or {}).items()}
    versions = {name: version_of(data[name]) for name in VERSIONED}
    versions[AUTHENTICATION] = json.loads(base64.b64decode(data[AUTHENTICATION_FILE]))["version_info"]
    clusters = [one["name"] for one in json.loads(data["cds.json"])["resources"] if one["name"].startswith("be~")]
    stats: list[Json] = [{"name": f"cluster.{name}.membership_healthy", "value": 1} for name in clusters]
    return {"stats": stats + [{"name": STATS[name], "value": said} for name, said in versions.items()]}


def pod(number: int, observed: Observed | None = None, **more: Any) -> GatewayPod:
    """A gateway beside an engine, which has loaded what is there."""
    loaded = answer_of(observed.children) if observed is not None else None
    said: Json = {"is_ready": True, "carrier": "llama-70b", "interface": str(ROUTING_INTERFACE), "loaded": loaded}
    return GatewayPod(f"llama-70b-{number}", f"u-{number}", **{**said, **more})


def test_it_has_no_pods_of_its_own_and_the_service_leads_to_engines() -> None:
    planned = plan(carried(), facts())
    assert not {
        key for key in keys(planned) if key.split("/")[0] in ("Deployment", "PodDisruptionBudget", "NetworkPolicy")
    }
    assert "ConfigMap/assistants-gateway-bootstrap" not in keys(planned)
    spec = child(planned, "Service", "assistants-gateway")["spec"]
    assert spec["selector"] == {
        "fairlead.dev/llmroute": "assistants",
        "app.kubernetes.io/component": "engine",
        "app.kubernetes.io/managed-by": "fairlead",
    }
    assert (spec["ports"][0]["port"], spec["ports"][0]["targetPort"]) == (80, f"gateway-{ROUTING_INTERFACE}")
    assert planned.status["endpoint"] == "http://assistants-gateway.ml.svc/v1"
    assert planned.status["gateways"] == "0/2"


def test_it_is_ready_when_the_gateways_beside_engines_have_said_so() -> None:
    observed = carry_out(plan(carried(), facts()))
    one = plan(carried(), facts(pod(1), pod(2), carriers=(CARRIER,)), observed)
    assert condition(one, "Ready")["status"] == "False"
    assert {nudge.pod for nudge in one.nudges} == {"llama-70b-1", "llama-70b-2"}
    both = plan(carried(), facts(pod(1, observed), pod(2, observed)), observed)
    assert condition(both, "Programmed")["status"] == "True", condition(both, "Programmed")
    assert both.status["gateways"] == "2/2"
    assert kstatus({"metadata": {"generation": 1}, "status": both.status}) == "Current"
    assert not both.nudges


def test_pods_of_several_deployments_count_together() -> None:
    observed = carry_out(plan(carried(), facts()))
    more = (CARRIER, Carrier("other", 1))
    planned = plan(carried(), facts(*(pod(n, observed) for n in range(3)), carriers=more), observed)
    assert planned.status["gateways"] == "3/3"


def test_a_gateway_beside_an_engine_that_loads_is_told_and_holds_nobody_back() -> None:
    observed = carry_out(plan(carried(), facts()))
    loading = pod(2, is_ready=False, loaded={"stats": []})
    planned = plan(carried(), facts(pod(1, observed), loading), observed)
    assert [(nudge.pod, nudge.annotation) for nudge in planned.nudges] == [("llama-70b-2", ANNOTATION_ROUTING)]
    assert planned.status["gateways"] == "1/2"
    silent = plan(carried(), facts(pod(1, observed), replace(loading, loaded=None)), observed)
    assert silent.nudges == ()


def test_without_anybody_who_carries_it_it_says_what_to_do() -> None:
    planned = plan(carried(), facts(carriers=()))
    ready = condition(planned, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "GatewayNotCarried")
    assert "Next: spec.gateway: {routeRef: {name: assistants}} in one that does" in ready["message"]
    assert condition(planned, "Stalled")["status"] == "False", "the other object may come with the same apply"
    assert condition(planned, "Accepted")["status"] == "True"
    assert "Service/assistants-gateway" in keys(planned)


def test_gateways_of_an_earlier_release_count_for_nothing() -> None:
    observed = carry_out(plan(carried(), facts()))
    old = pod(1, observed, interface="1")
    planned = plan(carried(), facts(old), observed)
    stalled = condition(planned, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "GatewayNotCarried")
    assert "rollout.revision: Latest" in stalled["message"]
    assert not planned.nudges


def test_limits_are_divided_among_the_engine_pods() -> None:
    def share(carriers: tuple[Carrier, ...]) -> int:
        planned = plan(carried(limits={"requestsPerMinute": 60}), facts(carriers=carriers))
        text = child(planned, "ConfigMap", "assistants-gateway-limits")["data"][LIMIT_FILES[0]]
        (bucket,) = {
            d["token_bucket"]["max_tokens"] for d in json.loads(text)["resources"][0]["typed_config"]["descriptors"]
        }
        return int(bucket)

    assert [share((Carrier("a", 2), Carrier("b", 1))), share((Carrier("a", 1),)), share(())] == [20, 60, 60]


def test_an_encrypted_backend_needs_the_same_secret_beside_every_engine() -> None:
    encrypted = LocalDeployment(
        "llama-70b",
        "llama-3.1-70b",
        8443,
        ready=2,
        is_confidential=True,
        is_tls=True,
        certificate_secret="tls",
        is_encrypted=True,
    )
    world = {"deployments": {"llama-70b": encrypted}}
    good = plan(carried(), facts(carriers=(Carrier("llama-70b", 2, "tls"),), **world))
    assert good.status["backends"][0]["state"] == "Ready"
    bad = plan(carried(), facts(carriers=(Carrier("llama-70b", 2, "tls"), Carrier("plain", 1)), **world))
    (row,) = bad.status["backends"]
    assert row["state"] == "Unresolved"
    assert "pods of LLMDeployment plain do not mount Secret tls" in row["message"]
    assert "made out to llama-70b and plain" in row["message"]
    assert condition(bad, "Accepted")["status"] == "True"


def test_what_keeps_nothing_to_itself_is_not_reached_from_pods_that_do() -> None:
    leaky = LocalDeployment(
        "llama-70b", "llama-3.1-70b", 8000, ready=2, why_not="spec.engine.image is an image of its own"
    )
    spec = local_spec(gateway={"mode": "Sidecar"}, dataPolicy={"denyClasses": ["Confidential"]})
    for carrier, state in (
        (Carrier("llama-70b", 2), "Ready"),
        (Carrier("closed", 1, is_closed=True), "Unresolved"),
        (Carrier("open", 1), "Ready"),
    ):
        planned = plan(make_route(spec), facts(carriers=(carrier,), deployments={"llama-70b": leaky}))
        (row,) = planned.status["backends"]
        assert row["state"] == state, carrier
    assert "LLMDeployment closed, which keep what they are sent" in str(
        plan(
            make_route(spec), facts(carriers=(Carrier("closed", 1, is_closed=True),), deployments={"llama-70b": leaky})
        ).status
    )


def own(number: int, observed: Observed) -> GatewayPod:
    return GatewayPod(f"assistants-gateway-{number}", f"g-{number}", is_ready=True, loaded=answer_of(observed.children))


def test_the_service_goes_over_when_a_gateway_beside_an_engine_is_up_to_date() -> None:
    before = carry_out(plan(make_route(local_spec()), facts(carriers=())))
    service, deployment = (
        ObjectKey("Service", "ml", "assistants-gateway"),
        ObjectKey("Deployment", "ml", "assistants-gateway"),
    )
    for held in (facts(own(1, before), carriers=()), facts(own(1, before), pod(1))):
        planned = plan(carried(), held, before)
        assert not {service, deployment} & {one.key for one in planned.children}
        assert planned.deletes == () or deployment not in {one.key for one in planned.deletes}
        assert condition(planned, "Ready")["status"] == "False"
    over = plan(carried(), facts(own(1, before), pod(1, before)), before)
    assert LABEL_LLMROUTE in child(over, *("Service", "assistants-gateway"))["spec"]["selector"]
    assert child(over, *GATEWAY)["spec"]["replicas"] == 0
    assert child(over, "NetworkPolicy", "assistants-gateway"), "as long as one of its own may end"
    assert "PodDisruptionBudget/assistants-gateway" not in keys(over)


def test_and_back() -> None:
    before = carry_out(plan(carried(), facts()))
    back = make_route(local_spec(gateway={"mode": "Deployment"}))
    started = plan(back, facts(pod(1, before)), before)
    assert "Service/assistants-gateway" not in keys(started)
    assert child(started, *GATEWAY)["spec"]["replicas"] == 2
    after = carry_out(started, before)
    over = plan(back, facts(pod(1, after), own(1, after)), after)
    assert LABEL_LLMROUTE not in child(over, "Service", "assistants-gateway")["spec"]["selector"]
    done = carry_out(over, after)
    # What the engine pods carry holds back nothing any more: it is not even asked for its routing.
    last = plan(back, facts(pod(1, interface="1"), pod(2), own(1, done), own(2, done)), done)
    assert last.status["gateways"] == "2/2"
    assert condition(last, "Ready")["status"] == "True"
    assert not last.nudges


def test_an_engine_pod_that_goes_on_doing_what_was_withdrawn_is_left_and_loses_its_label() -> None:
    observed = carry_out(plan(carried(), facts()))
    old = answer_of(observed.children)
    narrower = carried()
    narrower.spec.roles[1].data_access.remove("Confidential")
    changed = carry_out(plan(narrower, facts(pod(1, observed)), observed), observed)
    nudge = ""
    for seconds in (1, 40):
        now = NOW + timedelta(seconds=seconds)
        late = pod(1, loaded=old, nudge=nudge, created=NOW - timedelta(hours=1))
        planned = plan(narrower, facts(late), changed, now)
        nudge = planned.nudges[0].value if planned.nudges else nudge
    (removal,) = planned.removals
    assert (removal.pod, removal.label) == ("llama-70b-1", LABEL_LLMROUTE)


def test_one_that_has_none_of_the_routes_files_yet_stays() -> None:
    observed = carry_out(plan(carried(), facts()))
    narrower = carried()
    narrower.spec.roles[1].data_access.remove("Confidential")
    changed = carry_out(plan(narrower, facts(), observed), observed)
    versions = {name: version_of(text) for name, text in render_unrouted_routing().items()}
    stats = [{"name": STATS[name], "value": said} for name, said in versions.items()]
    late = pod(1, loaded={"stats": stats}, created=NOW - timedelta(hours=1))
    assert plan(narrower, facts(late), changed, NOW + timedelta(seconds=60)).removals == ()
