"""What a spec comes to before anything is observed: most of a plan, and the same in every pass over one generation.

Drawing it costs ten times as much as the rest of a pass (a template is rendered, bodies are built and digested), so whoever plans
again and again keeps it. Most of its memory are bodies, which nobody reads again once they are applied: those can be let go, and
come back the same when somebody does. It depends on the CR's name, namespace, uid and spec, on how many replicas were
decided, on the engine file and on the facts, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fairlead.api.llmdeployment import RevisionPolicy
from fairlead.api.names import ANNOTATION_RESTARTED_AT, cache_claim_name
from fairlead.api.resource import LLMDeployment
from fairlead.engines.loader import EngineCatalog
from fairlead.facts.observed import CarriedGateway, ObjectKey, OperatorFacts
from fairlead.planning.deployment.claim import has_claim, make_claim
from fairlead.planning.deployment.disruption import has_disruption_budget, make_disruption_budget
from fairlead.planning.deployment.encryption import port_number
from fairlead.planning.deployment.network_policy import has_network_policy, make_network_policy
from fairlead.planning.deployment.revision import ChosenTemplate, choose_template, make_fresh_template
from fairlead.planning.deployment.service import make_headless_service, make_service
from fairlead.planning.deployment.serving import Serving, decide_serving
from fairlead.planning.deployment.workload import make_deployment
from fairlead.planning.plan import Child

__all__ = ["Blueprint", "Draw", "draw_blueprint"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """`claim` and `deployment` are those of a first apply; `choose_*` give them as live objects demand."""

    serving: Serving
    fresh: ChosenTemplate
    claim: Child | None
    network: tuple[Child, ...]
    headless: Child
    deployment: Child
    budget: tuple[Child, ...]

    def choose_claim(self, live: Mapping[str, Any] | None) -> Child | None:
        """The claim; what of our own live one cannot change stays as it is."""
        if self.claim is None or live is None:
            return self.claim
        claim = _as_child(self.serving, partial(make_claim, self.serving, live))
        return self.claim if claim == self.claim else claim

    def choose_deployment(
        self, resource: LLMDeployment, live: Mapping[str, Any] | None
    ) -> tuple[ChosenTemplate, Child]:
        """The template that the pods get, given our own live Deployment and what `resource` says today, and the Deployment."""
        rollout = resource.spec.rollout
        policy = rollout.revision if rollout else RevisionPolicy.PINNED
        restarted_at = resource.metadata.annotations.get(ANNOTATION_RESTARTED_AT)
        chosen = choose_template(self.fresh, policy, live, restarted_at)
        if chosen is self.fresh:
            return chosen, self.deployment
        return chosen, _as_child(self.serving, partial(make_deployment, self.serving, chosen))

    def choose_network(self, facts: OperatorFacts, gateway: CarriedGateway | None) -> tuple[Child, ...]:
        """The NetworkPolicy, if there is one, and the Service, given the route whose gateway the pods carry."""
        if gateway is None or not gateway.peers or not has_network_policy(self.serving):
            return self.network
        policy = _as_child(self.serving, partial(make_network_policy, self.serving, facts, gateway.peers))
        return (policy, *self.network[1:])

    def choose_headless(self, chosen: ChosenTemplate) -> Child:
        """The headless Service, with the port of the pods as they are."""
        if chosen.port in (self.fresh.port, None):
            return self.headless
        return _as_child(self.serving, partial(make_headless_service, self.serving, chosen.port))

    def let_go(self) -> None:
        """Keep a sixth of the memory: digests, and what passes ask for that have nothing to apply."""
        claim = (self.claim,) if self.claim is not None else ()
        for child in (*claim, *self.network, self.headless, self.deployment, *self.budget):
            child.let_go()
        self.fresh.let_go()
        self.serving.let_go()

    @property
    def claim_key(self) -> ObjectKey:
        """What the claim is called, whether there is one or not."""
        return ObjectKey("PersistentVolumeClaim", self.serving.namespace, cache_claim_name(self.serving.name))


#: Draws a blueprint, or remembers one that is the same. Raises what `draw_blueprint` raises.
Draw = Callable[[LLMDeployment, EngineCatalog, OperatorFacts], Blueprint]


def draw_blueprint(resource: LLMDeployment, engines: EngineCatalog, facts: OperatorFacts) -> Blueprint:
    """Raises RenderError (the CR asks for what cannot be), EngineTemplateError (the engine file is broken) and KeyError (no
    such engine)."""
    serving = decide_serving(resource, engines, facts)
    fresh = make_fresh_template(serving)
    network = [partial(make_network_policy, serving, facts)] if has_network_policy(serving) else []
    network.append(partial(make_service, serving))
    budget = [partial(make_disruption_budget, serving)] if has_disruption_budget(serving) else []
    return Blueprint(
        serving=serving,
        fresh=fresh,
        claim=_as_child(serving, partial(make_claim, serving, None)) if has_claim(serving) else None,
        network=tuple(_as_child(serving, draw) for draw in network),
        headless=_as_child(serving, partial(make_headless_service, serving, fresh.port or port_number(serving))),
        deployment=_as_child(serving, partial(make_deployment, serving, fresh)),
        budget=tuple(_as_child(serving, draw) for draw in budget),
    )


def _as_child(serving: Serving, draw: Callable[[], Json]) -> Child:
    body = draw()
    child = Child(ObjectKey(body["kind"], serving.namespace, body["metadata"]["name"]), draw)
    child.__dict__["body"] = body
    return child
