"""plan_route: spec, what was observed, facts and the time -> children, nudges, status, events. Pure (law 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from fairlead.api.conditions import ROUTE_CONDITIONS, Reason
from fairlead.api.names import gateway_name, gateway_part_name
from fairlead.api.patterns import find_pattern_faults
from fairlead.api.resource import Finding, LLMRoute, Metadata
from fairlead.api.route import LLMAccess
from fairlead.facts.observed import ObjectKey, Observed, OperatorFacts
from fairlead.facts.route import Carrier, GatewayPod, RouteFacts
from fairlead.gateway.envoy import GatewaySettings, render_files
from fairlead.gateway.envoy.clients import render_authentication
from fairlead.gateway.envoy.files import EGRESS_FILE, PUBLIC_FILE
from fairlead.gateway.envoy.withdrawal import forget, withdraw
from fairlead.gateway.table import RouteTable, find_gaps, make_table
from fairlead.planning.conditions import make_conditions, make_transition_events
from fairlead.planning.ownership import find_deletes, find_ours, keep_ours
from fairlead.planning.plan import Child, Plan
from fairlead.planning.route.backends import UNRESOLVED, Resolved, reachable, resolve_backends, see_through
from fairlead.planning.route.carriers import (
    count_gateways,
    find_carrier_fault,
    find_relevant,
    has_own_pods,
    is_carried,
    is_held_back,
    restrict,
)
from fairlead.planning.route.certificate import Certificate, certificate_secret, make_settings, read_certificate
from fairlead.planning.route.clients import Clients, read_clients
from fairlead.planning.route.files import (
    ANNOTATION_CALLERS,
    BOOTSTRAP,
    CLIENTS,
    digest_callers,
    find_too_large,
    fits,
    make_bootstrap_map,
    make_clients_secret,
    make_routing_maps,
    read_authentication,
    read_routing,
    routing_digest,
)
from fairlead.planning.route.gateways import Gateways, read_gateways
from fairlead.planning.route.metadata import describe_taken
from fairlead.planning.route.network import (
    has_disruption_budget,
    make_disruption_budget,
    make_endpoint,
    make_network_policy,
    make_service,
)
from fairlead.planning.route.pod import (
    find_authorities,
    make_deployment,
    make_template,
    make_template_inputs,
    mounted_authorities,
)
from fairlead.planning.route.publications import Published
from fairlead.planning.route.publishing import Files, Step, choose_step
from fairlead.planning.route.revision import GatewayRevision, choose_revision, make_fresh_revision
from fairlead.planning.route.sidecars import make_for_sidecars, make_sidecar_maps, narrow_sidecar_maps
from fairlead.planning.route.status import (
    Fault,
    Situation,
    decide_conditions,
    describe_failure,
    find_orphans,
    find_problems,
    make_backend_rows,
    make_model_rows,
)
from fairlead.providers.loader import ProviderCatalog

__all__ = ["SETTINGS", "plan_invalid_route", "plan_route", "resolve_route"]

Json = dict[str, Any]
SETTINGS = GatewaySettings()
#: When a gateway is asked again whether it knows hosts of a backend by now, seconds.
UNSEEN_S: Final = 1.0


def plan_route(
    route: LLMRoute,
    observed: Observed,
    facts: RouteFacts,
    operator: OperatorFacts,
    providers: ProviderCatalog,
    now: datetime,
) -> Plan:
    """The whole decision for one valid LLMRoute. One that may not be carried out leaves what runs alone and says why; one that is
    being deleted plans nothing: the garbage collector has its children."""
    metadata = route.metadata
    if metadata.deletion_timestamp:
        return Plan(children=(), deletes=(), status=route.status)
    resolved, table = resolve_route(route, facts, operator, providers)
    pods = find_relevant(route, facts, observed)
    settings = make_settings(route, SETTINGS)
    files = render_files(table, settings)
    refusal = _find_refusal(route, resolved, files.routing)
    live = read_routing(observed.children, metadata)
    clients = read_clients(route, facts)
    published = Published.of(observed, metadata)
    gateways = _read_gateways(route, pods, live, clients.version, now, published)
    authentication = render_authentication(
        clients.keys, clients.version, anonymous=table.anonymous is not None, tokens=clients.tokens
    )
    published = published.with_clients(
        read_authentication(observed.children, metadata), authentication, clients.version, now
    )
    if refusal is not None:
        refused = [backend.name for backend in resolved if backend.refusal]
        narrow = partial(withdraw, table=table, refused=refused)
        files_left = _narrow(live, narrow, table)
        if live is not None and files_left is not None:
            published = published.with_routes(live[PUBLIC_FILE], files_left[PUBLIC_FILE], now, narrow)
        narrowed = _make_narrowed(route, files_left, authentication, observed, published)
        permitted = make_for_sidecars(route, table, operator, heeds_limits=False)
        narrowed += _narrow_sidecars(route, permitted, refused, observed)
        return _plan_standstill(
            metadata,
            route.status,
            refusal,
            observed,
            facts,
            now,
            resolved=resolved,
            children=narrowed,
            gateways=gateways,
        )
    narrow = partial(withdraw, table=table)
    step = choose_step(files.routing, live, gateways.loaded, narrow, partial(forget, table=table))
    published = published.with_routes((live or {}).get(PUBLIC_FILE), step.files[PUBLIC_FILE], now, narrow)
    deployment = observed.children.get(ObjectKey("Deployment", metadata.namespace, gateway_name(metadata.name)))
    certificate = read_certificate(route, facts, deployment)
    authorities = find_authorities(route, _find_certificates(resolved, deployment))
    template = make_template(route, operator, settings, files.bootstrap, authorities)
    fresh = make_fresh_revision(template, files.bootstrap, make_template_inputs(route, authorities))
    revision = choose_revision(fresh, route, observed)
    is_pinned = revision.newer is not None
    sidecars = make_sidecar_maps(route, make_for_sidecars(route, table, operator), observed, is_pinned=is_pinned)
    has_pods = has_own_pods(route, observed)
    wanted = _make_children(
        route, operator, settings, revision, step, published, authentication, resolved, sidecars, has_pods=has_pods
    )
    is_late = is_held_back(route, observed, gateways)
    held = _find_held(metadata, certificate, is_held_back=is_late, keeps_pods=is_carried(route))
    children, taken = keep_ours([child for child in wanted if child.key not in held], observed, metadata)
    seen = see_through(resolved, _find_unseen(table, gateways))
    faults = [Fault(Reason.NAME_CONFLICT, describe_taken(key, found), terminal=True) for key, found in taken]
    faults += [describe_failure(failure) for failure in observed.failures]
    faults += [fault for fault in (certificate.fault, find_carrier_fault(route, facts)) if fault is not None]
    wanted_pods = count_gateways(route, facts.carriers)
    situation = _make_situation(wanted_pods, table, seen, clients, certificate, gateways, step, live, faults)
    if not is_carried(route):
        situation = replace(situation, newer_revision=revision.newer, rolling=_describe_rollout(observed, metadata))
    conditions = decide_conditions(situation)
    status = _make_status(route, table, seen, situation, step, clients, certificate) | {
        "conditions": make_conditions(conditions, metadata.generation, route.status, now, ROUTE_CONDITIONS)
    }
    return Plan(
        children=children,
        deletes=find_deletes(observed, {child.key for child in wanted}, metadata),
        status=status,
        events=make_transition_events(conditions, route.status),
        nudges=gateways.nudges if live == step.files else (),
        removals=gateways.removals,
        requeue_after_s=gateways.next_s if seen == resolved else min(gateways.next_s or UNSEEN_S, UNSEEN_S),
    )


def plan_invalid_route(
    raw: Mapping[str, Any], findings: Sequence[Finding], observed: Observed, facts: RouteFacts, now: datetime
) -> Plan:
    """A route that does not pass validation: what runs goes on running as it is, and status says what is wrong with the spec."""
    metadata = Metadata.of(raw)
    status = raw.get("status") or {}
    if metadata.deletion_timestamp:
        return Plan(children=(), deletes=(), status=status)
    message = "; ".join(str(finding) for finding in findings) + "."
    fault = Fault(Reason.INVALID_SPEC, message, terminal=True, refuses=True)
    return _plan_standstill(metadata, status, fault, observed, facts, now)


def resolve_route(
    route: LLMRoute, facts: RouteFacts, operator: OperatorFacts, providers: ProviderCatalog
) -> tuple[tuple[Resolved, ...], RouteTable]:
    """What a plan begins with: the backends, and who may reach which. For those who ask and apply nothing, too."""
    resolved = restrict(route, resolve_backends(route, facts, operator, providers), facts.carriers)
    return resolved, _make_table(route, resolved, facts.carriers)


def _make_table(route: LLMRoute, resolved: Sequence[Resolved], carriers: Sequence[Carrier] = ()) -> RouteTable:
    return make_table(
        route.metadata.name,
        route.metadata.namespace,
        route.spec,
        [backend.law for backend in resolved],
        reachable(resolved),
        {backend.name: backend.served_model for backend in resolved if backend.served_model is not None},
        max(1, count_gateways(route, carriers)),
    )


def _find_refusal(route: LLMRoute, resolved: Sequence[Resolved], files: Files) -> Fault | None:
    """Why the route is not accepted: a pattern or a provider that cannot be, a class without a target, a routing that fits nowhere."""
    broken = "; ".join(map(str, find_pattern_faults(route.spec)))
    if broken:
        return Fault(Reason.PATTERN_REFUSED, f"{broken}.", terminal=True, refuses=True)
    refused = [backend.refusal for backend in resolved if backend.refusal]
    if refused:
        return Fault(Reason.PROVIDER_REFUSED, "; ".join(refused) + ".", terminal=True, refuses=True)
    gaps = find_gaps(route.spec, [backend.law for backend in resolved])
    if gaps:
        gap = gaps[0]
        who = f"role {gap.role}" if gap.role else "the role that a route without roles acts as"
        more = f" (and {len(gaps) - 1} more such)" if len(gaps) > 1 else ""
        model = next(model for model in route.spec.models if model.name == gap.model)
        tried = {target.backend for target in model.targets}
        reasons = [backend.why_not(gap.data_class) for backend in resolved if backend.name in tried]
        why = "".join(f" {reason}." for reason in reasons if reason)
        message = (
            f"spec.models: {gap.model} has no target that may take {gap.data_class} requests, which {who} may send{more}.{why}"
            f" Next: add such a target, take the class from the role, or list {gap.data_class} in spec.dataPolicy.denyClasses."
        )
        return Fault(Reason.NO_PERMITTED_TARGET, message, terminal=True, refuses=True)
    too_large = find_too_large(files)
    if too_large:
        return Fault(Reason.TOO_LARGE, too_large, terminal=True, refuses=True)
    return None


def _find_certificates(resolved: Sequence[Resolved], gateway: Mapping[str, Any] | None) -> set[str]:
    """Secrets with the authorities of deployments that serve TLS. Of one that is not there nobody knows, so what is mounted stays: a
    deployment that is made anew costs no gateway its streams."""
    found = {backend.certificate_secret for backend in resolved} - {""}
    is_missing = any(one.state == UNRESOLVED and one.law.access is LLMAccess.LOCAL for one in resolved)
    return found | mounted_authorities(gateway) if is_missing else found


def _find_unseen(table: RouteTable, gateways: Gateways) -> frozenset[str]:
    """Backends of which some gateway knows no healthy host, though its routes try them."""
    tried = {(one.backend, one.place) for chain in table.chains.values() for one in chain.attempts}
    return frozenset(
        name for name, place in tried for healthy in gateways.healthy if not healthy.get(f"{name}~{place}")
    )


def _narrow(live: Files | None, narrow: Callable[..., str], table: RouteTable) -> Files | None:
    """The routing that runs, less what the new spec no longer permits."""
    if live is None:
        return None
    kept = {**live, EGRESS_FILE: forget(live[EGRESS_FILE], table)}
    left = {**kept, PUBLIC_FILE: narrow(live[PUBLIC_FILE])}
    return left if fits(left) else {**kept, PUBLIC_FILE: narrow(live[PUBLIC_FILE], shorten=False)}


def _make_narrowed(
    route: LLMRoute, files: Files | None, authentication: str, observed: Observed, published: Published
) -> tuple[Child, ...]:
    """That, and the clients as they are: a key that was taken back must not wait for somebody to mend the rest. Who may be a client
    at all waits for that, if the spec says it otherwise than before: it might be more."""
    if files is None:
        return ()
    metadata, callers = route.metadata, digest_callers(route)
    live = find_ours(
        observed, ObjectKey("Secret", metadata.namespace, gateway_part_name(metadata.name, CLIENTS)), metadata
    )
    said = ((live or {}).get("metadata") or {}).get("annotations") or {}
    clients = (
        [make_clients_secret(metadata, authentication, callers, published.clients)]
        if said.get(ANNOTATION_CALLERS) == callers
        else []
    )
    bodies = [*clients, *make_routing_maps(metadata, files, published.routes)]
    wanted = [_make_child(metadata, body) for body in bodies]
    return keep_ours(wanted, observed, metadata)[0]


def _narrow_sidecars(
    route: LLMRoute, table: RouteTable, refused: Sequence[str], observed: Observed
) -> tuple[Child, ...]:
    """The same for application pods."""
    maps = narrow_sidecar_maps(route, partial(withdraw, table=table, refused=refused), observed)
    return keep_ours([_make_child(route.metadata, body) for body in maps], observed, route.metadata)[0]


def _read_gateways(
    route: LLMRoute,
    pods: Sequence[GatewayPod],
    live: Files | None,
    authentication: str,
    now: datetime,
    published: Published,
) -> Gateways:
    digest, secret = routing_digest(live or {}, authentication), certificate_secret(route) or ""
    missed_since = published.missed_since
    return read_gateways(pods, live, authentication, digest, now, secret, missed_since, is_carried=is_carried(route))


def _find_held(
    owner: Metadata, certificate: Certificate, *, is_held_back: bool, keeps_pods: bool
) -> frozenset[ObjectKey]:
    """What stays as it is without a certificate, and while gateways of the other mode serve: the pods, what they start with, and what
    leads to them."""
    name = gateway_name(owner.name)
    held = [("Service", name)] if certificate.problem or is_held_back else []
    if certificate.problem or (is_held_back and keeps_pods):
        held += [("ConfigMap", gateway_part_name(owner.name, BOOTSTRAP)), ("Deployment", name)]
    return frozenset(ObjectKey(kind, owner.namespace, name) for kind, name in held)


def _make_children(
    route: LLMRoute,
    operator: OperatorFacts,
    settings: GatewaySettings,
    revision: GatewayRevision,
    step: Step,
    published: Published,
    authentication: str,
    resolved: Sequence[Resolved],
    sidecars: Sequence[Json],
    *,
    has_pods: bool,
) -> tuple[Child, ...]:
    """In the order in which they are applied: what pods mount comes before the pods. `has_pods`: gateways have some of their own;
    those beside engines have what these have."""
    owner = route.metadata
    bodies = [
        *([make_bootstrap_map(owner, revision.bootstrap)] if has_pods else []),
        make_clients_secret(owner, authentication, digest_callers(route), published.clients),
        *make_routing_maps(owner, step.files, published.routes),
        *sidecars,
        make_service(route, settings),
    ]
    if has_pods:
        bodies.append(make_network_policy(route, resolved, operator, settings))
        bodies.append(make_deployment(route, revision.template, revision.annotations))
        bodies += [make_disruption_budget(route)] if has_disruption_budget(route) else []
    return tuple(_make_child(owner, body) for body in bodies)


def _make_child(owner: Metadata, body: Json) -> Child:
    return Child.of(ObjectKey(str(body["kind"]), owner.namespace, str(body["metadata"]["name"])), body)


def _make_situation(
    wanted: int,
    table: RouteTable,
    resolved: Sequence[Resolved],
    clients: Clients,
    certificate: Certificate,
    gateways: Gateways,
    step: Step,
    live: Files | None,
    faults: Sequence[Fault],
) -> Situation:
    is_published = step.is_last and live == step.files
    others = (problem for problem in (clients.problem, certificate.problem) if problem)
    return Situation(
        wanted=wanted,
        ready=gateways.ready,
        programmed=gateways.current if is_published else 0,
        is_published=is_published,
        fault=min(faults, key=lambda fault: not fault.terminal, default=None),
        problems=(*find_problems(resolved), *others),
        orphans=find_orphans(table, resolved),
        rejected=gateways.rejected,
        late=gateways.late,
    )


def _make_status(
    route: LLMRoute,
    table: RouteTable,
    resolved: Sequence[Resolved],
    situation: Situation,
    step: Step,
    clients: Clients,
    certificate: Certificate,
) -> Json:
    endpoint = route.status.get("endpoint") if certificate.problem else make_endpoint(route)
    return {
        "observedGeneration": route.metadata.generation,
        **({"endpoint": endpoint} if endpoint else {}),
        "gateways": f"{situation.programmed}/{situation.wanted}",
        "routing": routing_digest(step.files, clients.version),
        "modelCount": len(table.models),
        "backends": make_backend_rows(resolved),
        "models": make_model_rows(table),
    }


def _describe_rollout(observed: Observed, owner: Metadata) -> str:
    """How far the gateways are being replaced, "" if they are not."""
    live = find_ours(observed, ObjectKey("Deployment", owner.namespace, gateway_name(owner.name)), owner)
    if live is None:
        return ""
    status, wanted = live.get("status") or {}, int(live["spec"].get("replicas", 1))
    updated, existing = int(status.get("updatedReplicas", 0)), int(status.get("replicas", 0))
    is_seen = int(status.get("observedGeneration", 0)) >= int(live["metadata"].get("generation", 0))
    if is_seen and updated == existing == wanted:
        return ""
    return f"Gateways are being replaced: {updated if is_seen else 0} of {wanted} are new."


def _plan_standstill(
    metadata: Metadata,
    previous: Mapping[str, Any],
    fault: Fault,
    observed: Observed,
    facts: RouteFacts,
    now: datetime,
    *,
    resolved: Sequence[Resolved] = (),
    children: tuple[Child, ...] = (),
    gateways: Gateways | None = None,
) -> Plan:
    """Nothing but `children` is applied, and nothing is deleted. What is known from the last good generation stays in status."""
    live = observed.children.get(ObjectKey("Deployment", metadata.namespace, gateway_name(metadata.name))) or {}
    wanted = (live.get("spec") or {}).get("replicas", 0) or sum(1 for pod in facts.gateways if pod.carrier)
    ready = sum(1 for pod in facts.gateways if pod.is_ready)
    situation = Situation(wanted=wanted, ready=ready, programmed=0, is_published=False, fault=fault)
    conditions = decide_conditions(situation)
    kept = {key: previous[key] for key in ("endpoint", "routing", "modelCount", "models") if key in previous}
    status = kept | {
        "observedGeneration": metadata.generation,
        "gateways": f"0/{wanted}",
        "backends": make_backend_rows(resolved) or list(previous.get("backends") or ()),
        "conditions": make_conditions(conditions, metadata.generation, previous, now, ROUTE_CONDITIONS),
    }
    return Plan(
        children=children,
        deletes=(),
        status=status,
        events=make_transition_events(conditions, previous),
        nudges=gateways.nudges if gateways is not None else (),
        removals=gateways.removals if gateways is not None else (),
        requeue_after_s=gateways.next_s if gateways is not None else None,
    )
