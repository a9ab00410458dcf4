"""Mistakes in policy, planning and table, one per clause of the law, put in by replacing one function."""

# ruff: noqa: ARG005 - what stands in for a function takes what that takes

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from fairlead.api.route import DataClass, LLMAccess
from fairlead.gateway import table
from fairlead.planning.route import backends, planner, pod
from fairlead.planning.route.backends import Resolved
from fairlead.policy import law
from fairlead.policy.law import CLASSES, IMPLIED_ROLE, Backend, Caller, Role, Verdict, highest
from fairlead.providers import hosts

__all__ = ["MUTATIONS"]

Patch = pytest.MonkeyPatch
ClassRule = Callable[[Backend, DataClass], bool]
PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = CLASSES
MUTATIONS: Final[dict[str, Callable[[Patch], None]]] = {}


def mutation(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Registers it under the name of the function."""
    MUTATIONS[change.__name__.replace("_", "-")] = change
    return change


# The class rule ---------------------------------------------------------------------------------------------------------------


def _class_rules() -> None:
    """Each with both walls wrong, and with one of them: each must hold by itself."""
    right = law.permits_class
    rules: dict[str, ClassRule] = {
        "confidential-goes-to-the-cloud": lambda b, c: right(b, c) or c is CONFIDENTIAL,
        "internal-goes-to-untrusted-providers": lambda b, c: right(b, c) or c is INTERNAL,
        "restricted-needs-no-encryption": lambda b, c: right(b, CONFIDENTIAL if c is RESTRICTED else c),
        "confidential-goes-to-any-deployment": lambda b, c: (
            right(b, INTERNAL if c is CONFIDENTIAL else c) and (c is not CONFIDENTIAL or b.access is LLMAccess.LOCAL)
        ),
        "restricted-goes-to-any-encrypted-deployment": lambda b, c: right(b, c) or (c is RESTRICTED and b.is_encrypted),
        "trust-opens-everything": lambda b, c: right(b, c) or b.is_trusted,
        "public-stays-local": lambda b, c: right(b, c) and (c is not PUBLIC or b.access is LLMAccess.LOCAL),
        "trusted-providers-get-no-internal": lambda b, c: right(b, c) and not (c is INTERNAL and b.is_trusted),
        "encryption-is-needed-for-all": lambda b, c: (
            right(b, c) and (c is PUBLIC or b.access is LLMAccess.CLOUD or b.is_encrypted)
        ),
    }

    def put(rule: ClassRule, *walls: Any) -> Callable[[Patch], None]:
        def change(patch: Patch) -> None:
            for wall in walls:
                patch.setattr(wall, "permits_class", rule)

        return change

    for name, rule in rules.items():
        MUTATIONS[name] = put(rule, law, table, backends)
        MUTATIONS[f"{name}-by-the-first-wall"] = put(rule, law)
        MUTATIONS[f"{name}-by-the-second-wall"] = put(rule, backends)


_class_rules()


# Trust and consent ------------------------------------------------------------------------------------------------------------


@mutation
def trust_without_the_operators_list(patch: Patch) -> None:
    patch.setattr(backends, "is_trusted", lambda host, trusted: True)


@mutation
def trust_without_the_routes_claim(patch: Patch) -> None:
    right = backends._resolve_provider

    def resolve(number: int, backend: Any, facts: Any, operator: Any, providers: Any) -> Resolved:
        claimed = backend.provider.model_copy(update={"trusted": True})
        found = right(number, backend.model_copy(update={"provider": claimed}), facts, operator, providers)
        return right(number, backend, facts, operator, providers) if found.refusal else found

    patch.setattr(backends, "_resolve_provider", resolve)


@mutation
def a_listed_suffix_lists_all_below_it(patch: Patch) -> None:
    patch.setattr(
        backends, "is_trusted", lambda host, trusted: any(host.endswith(e.removeprefix("*")) for e in trusted)
    )


@mutation
def a_star_lists_everything(patch: Patch) -> None:
    patch.setattr(backends, "is_trusted", lambda host, trusted: "*" in trusted)


@mutation
def a_wrong_claim_of_trust_is_served_as_untrusted(patch: Patch) -> None:
    right = backends._resolve_provider

    def resolve(number: int, backend: Any, *rest: Any) -> Resolved:
        modest = backend.model_copy(update={"provider": backend.provider.model_copy(update={"trusted": False})})
        found = right(number, backend, *rest)
        return right(number, modest, *rest) if found.refusal else found

    patch.setattr(backends, "_resolve_provider", resolve)


@mutation
def consent_of_secrets_is_not_asked_for(patch: Patch) -> None:
    patch.setattr(backends, "_find_secret_problem", lambda spec, endpoint, facts: "")


def _forgiving(patch: Patch, **changes: Any) -> None:
    """All Secrets look as if."""
    right = backends._find_secret_problem

    def find(spec: Any, endpoint: Any, facts: Any) -> str:
        secrets = {
            name: replace(secret, **{key: value(endpoint) for key, value in changes.items()})
            for name, secret in facts.secrets.items()
        }
        return right(spec, endpoint, replace(facts, secrets=secrets))

    patch.setattr(backends, "_find_secret_problem", find)


@mutation
def the_label_of_secrets_is_ignored(patch: Patch) -> None:
    _forgiving(patch, use=lambda endpoint: "provider")


@mutation
def the_hosts_of_secrets_are_ignored(patch: Patch) -> None:
    _forgiving(patch, hosts=lambda endpoint: frozenset({endpoint.host}))


@mutation
def missing_keys_of_secrets_are_ignored(patch: Patch) -> None:
    _forgiving(patch, keys=lambda endpoint: None)


@mutation
def services_of_others_are_used(patch: Patch) -> None:
    right = backends._resolve_deployment

    def resolve(backend: Any, namespace: str, facts: Any, operator: Any) -> Resolved:
        found = {name: replace(d, port=d.port or 8000) for name, d in facts.deployments.items()}
        return right(backend, namespace, replace(facts, deployments=found), operator)

    patch.setattr(backends, "_resolve_deployment", resolve)


@mutation
def forbidden_names_are_called(patch: Patch) -> None:
    patch.setattr(hosts, "_why_not_public", lambda host, labels: "")


@mutation
def forbidden_addresses_are_called(patch: Patch) -> None:
    patch.setattr(hosts, "_check_address", lambda host, path, trusted: host.strip("[]"))


# The class of a request ---------------------------------------------------------------------------------------------------------


def _classify_as(name: str, change: Callable[[Role, DataClass, DataClass | None, DataClass], DataClass]) -> None:
    MUTATIONS[name] = lambda patch: patch.setattr(law, "classify", change)


_RIGHT: Final = law.classify
_classify_as(
    "may-declare-is-ignored", lambda r, d, said, found: _RIGHT(replace(r, may_declare=frozenset()), d, said, found)
)
_classify_as("may-declare-is-honoured-for-all", lambda r, d, said, found: highest(said or d, r.floor, found))
_classify_as(
    "a-higher-declared-class-is-ignored",
    lambda r, d, said, found: _RIGHT(r, d, said if said in r.may_declare else None, found),
)
_classify_as("what-is-declared-is-ignored", lambda r, d, said, found: _RIGHT(r, d, None, found))
_classify_as("what-is-detected-is-ignored", lambda r, d, said, found: _RIGHT(r, d, said, PUBLIC))
_classify_as(
    "what-is-declared-beats-what-is-detected",
    lambda r, d, said, found: _RIGHT(r, d, said, PUBLIC if said in r.may_declare else found),
)
_classify_as("floors-are-ignored", lambda r, d, said, found: _RIGHT(replace(r, floor=PUBLIC), d, said, found))
_classify_as(
    "floors-are-ignored-for-what-is-declared",
    lambda r, d, said, found: _RIGHT(replace(r, floor=PUBLIC if said else r.floor), d, said, found),
)
_classify_as(
    "floors-are-taken-as-the-class",
    lambda r, d, said, found: r.floor if r.floor is not PUBLIC else _RIGHT(r, d, said, found),
)
_classify_as("the-default-is-public", lambda r, d, said, found: _RIGHT(r, PUBLIC, said, found))
_classify_as("the-default-is-internal", lambda r, d, said, found: _RIGHT(r, INTERNAL, said, found))
_classify_as("the-default-raises-what-may-be-declared", lambda r, d, said, found: highest(d, _RIGHT(r, d, said, found)))
_classify_as(
    "restricted-findings-count-as-confidential",
    lambda r, d, said, found: _RIGHT(r, d, said, min(found, CONFIDENTIAL, key=CLASSES.index)),
)


# Roles --------------------------------------------------------------------------------------------------------------------------


def _judging(name: str, change: Callable[[Caller], Caller]) -> None:
    """`judge` sees other roles than there are."""
    right = law.judge
    MUTATIONS[name] = lambda patch: patch.setattr(table, "judge", lambda caller, *rest: right(change(caller), *rest))


def _mix(caller: Caller) -> Caller:
    if not caller.roles:
        return caller
    mixed = Role(
        name="mixed",
        llm_access=frozenset().union(*(role.llm_access for role in caller.roles)),
        data_access=frozenset().union(*(role.data_access for role in caller.roles)),
        may_declare=frozenset().union(*(role.may_declare for role in caller.roles)),
        floor=min((role.floor for role in caller.roles), key=CLASSES.index),
    )
    return replace(caller, roles=(mixed,))


def _share(caller: Caller, field: str) -> Caller:
    shared: Any = {field: frozenset().union(*(getattr(role, field) for role in caller.roles))}
    return replace(caller, roles=tuple(replace(role, **shared) for role in caller.roles))


_judging("the-floor-of-the-route-is-ignored", lambda caller: replace(caller, floor=PUBLIC))
_judging(
    "the-floor-of-the-route-is-for-callers-with-one-role",
    lambda caller: caller if len(caller.roles) == 1 else replace(caller, floor=PUBLIC),
)
_judging(
    "floors-of-roles-are-the-lowest-of-all-roles",
    lambda caller: replace(
        caller,
        roles=tuple(
            replace(role, floor=min((r.floor for r in caller.roles), key=CLASSES.index)) for role in caller.roles
        ),
    ),
)
_judging(
    "the-highest-floor-of-a-role-counts-for-all",
    lambda caller: replace(caller, floor=highest(caller.floor, *(role.floor for role in caller.roles))),
)
_judging(
    "the-floor-of-a-role-goes-before-that-of-the-route",
    lambda caller: replace(caller, floor=PUBLIC) if any(role.floor is not PUBLIC for role in caller.roles) else caller,
)
_judging("roles-are-mixed", _mix)
_judging("roles-share-what-they-may-declare", lambda caller: _share(caller, "may_declare"))
_judging("roles-share-their-access-to-models", lambda caller: _share(caller, "llm_access"))
_judging("roles-share-their-access-to-data", lambda caller: _share(caller, "data_access"))
_judging("only-the-first-role-counts", lambda caller: replace(caller, roles=caller.roles[:1]))
_judging("only-the-last-role-counts", lambda caller: replace(caller, roles=caller.roles[-1:]))
_judging("no-role-means-the-implied-one", lambda caller: replace(caller, roles=caller.roles or (IMPLIED_ROLE,)))
_judging(
    "what-a-higher-role-may-a-lower-class-may",
    lambda caller: replace(
        caller,
        roles=tuple(
            replace(role, data_access=frozenset(CLASSES[: max(map(CLASSES.index, role.data_access)) + 1]))
            for role in caller.roles
        ),
    ),
)


@mutation
def all_roles_must_permit(patch: Patch) -> None:
    right = law.judge

    def judge(caller: Caller, candidates: Iterable[Backend], *rest: Any) -> Verdict:
        single = [right(replace(caller, roles=(role,)), candidates, *rest) for role in caller.roles]
        verdict = right(caller, candidates, *rest)
        common = verdict.permitted.intersection(*(one.permitted for one in single))
        return replace(verdict, grants=tuple((data_class, found & common) for data_class, found in verdict.grants))

    patch.setattr(table, "judge", judge)


def _role_rule(name: str, change: Callable[[Role, Backend, DataClass], bool]) -> None:
    MUTATIONS[name] = lambda patch: patch.setattr(law, "_role_permits", change)


_role_rule("access-to-models-is-ignored", lambda r, b, c: c in r.data_access and law.permits_class(b, c))
_role_rule("access-to-data-is-ignored", lambda r, b, c: b.access in r.llm_access and law.permits_class(b, c))
_role_rule(
    "local-access-opens-providers",
    lambda r, b, c: (
        c in r.data_access and law.permits_class(b, c) and (b.access in r.llm_access or LLMAccess.LOCAL in r.llm_access)
    ),
)
_role_rule(
    "cloud-access-opens-deployments",
    lambda r, b, c: (
        c in r.data_access and law.permits_class(b, c) and (b.access in r.llm_access or LLMAccess.CLOUD in r.llm_access)
    ),
)
_role_rule("the-class-rule-is-not-asked", lambda r, b, c: b.access in r.llm_access and c in r.data_access)


@mutation
def the_mark_is_the_lowest_class_of_all(patch: Patch) -> None:
    patch.setattr(law.Verdict, "class_for", lambda _, __: PUBLIC)


def _implied(name: str, **changes: Any) -> None:
    MUTATIONS[name] = lambda patch: patch.setattr(table, "IMPLIED_ROLE", replace(IMPLIED_ROLE, **changes))


_implied("the-implied-role-has-confidential", data_access=frozenset({PUBLIC, INTERNAL, CONFIDENTIAL}))
_implied("the-implied-role-may-declare-public", may_declare=frozenset({PUBLIC}))
_implied("the-implied-role-is-local", llm_access=frozenset({LLMAccess.LOCAL}))
_implied("the-implied-role-has-public-only", data_access=frozenset({PUBLIC}))


# Callers ------------------------------------------------------------------------------------------------------------------------


def _callers(name: str, change: Callable[[Any, Any], Any]) -> None:
    right = table._read_callers
    MUTATIONS[name] = lambda patch: patch.setattr(table, "_read_callers", lambda spec: change(right(spec), spec))


def _if_roles(spec: Any, callers: Any, **changes: Any) -> Any:
    return replace(callers, **changes) if spec.roles else callers


_callers(
    "anonymous-is-the-implied-role-although-there-are-roles", lambda c, s: _if_roles(s, c, anonymous=(IMPLIED_ROLE,))
)
_callers(
    "anonymous-is-let-in-uninvited",
    lambda c, s: replace(c, anonymous=(IMPLIED_ROLE,) if c.anonymous is None else c.anonymous),
)
_callers("anonymous-has-all-roles", lambda c, s: _if_roles(s, c, anonymous=None if c.anonymous is None else c.roles))
_callers("anonymous-is-never-let-in", lambda c, s: replace(c, anonymous=None))
_callers("a-consumer-without-role-has-the-implied-one", lambda c, s: _if_roles(s, c, known=(IMPLIED_ROLE,)))
_callers("a-consumer-without-role-has-that-of-anonymous", lambda c, s: _if_roles(s, c, known=c.anonymous or ()))
_callers("routes-without-roles-have-no-floor", lambda c, s: c if s.roles else replace(c, floor=PUBLIC))
_callers(
    "a-consumer-has-only-the-last-role", lambda c, s: replace(c, consumers={n: r[-1:] for n, r in c.consumers.items()})
)
_callers("a-consumer-has-all-roles", lambda c, s: replace(c, consumers=dict.fromkeys(c.consumers, c.roles)))
_callers(
    "consumers-are-mixed-up",
    lambda c, s: replace(c, consumers=dict(zip(c.consumers, [*c.consumers.values()][::-1], strict=True))),
)


# Whether a route is accepted, and what its pods mount ---------------------------------------------------------------------------


def _gaps_without(patch: Patch, classes: Sequence[DataClass]) -> None:
    right = table.find_gaps

    def find(spec: Any, candidates: Iterable[Backend]) -> Any:
        policy = spec.data_policy.model_copy(update={"deny_classes": list(classes)})
        return right(spec.model_copy(update={"data_policy": policy}), candidates)

    patch.setattr(planner, "find_gaps", find)


@mutation
def a_refused_route_is_published(patch: Patch) -> None:
    patch.setattr(planner, "_find_refusal", lambda *args: None)


@mutation
def a_wrong_claim_of_trust_is_accepted(patch: Patch) -> None:
    right = planner._find_refusal

    def find(route: Any, resolved: Iterable[Resolved], files: Any) -> Any:
        return right(route, [replace(one, refusal="") for one in resolved], files)

    patch.setattr(planner, "_find_refusal", find)


@mutation
def gaps_are_accepted(patch: Patch) -> None:
    _gaps_without(patch, CLASSES)


@mutation
def the_list_of_denied_classes_is_ignored(patch: Patch) -> None:
    _gaps_without(patch, ())


@mutation
def keys_are_mounted_from_the_secret_of_another_backend(patch: Patch) -> None:
    right = pod._make_volumes

    def make(*arguments: Any) -> Any:
        volumes = right(*arguments)
        keys = [volume["secret"] for volume in volumes if volume["name"].startswith("key-")]
        for secret in keys:
            secret["secretName"] = keys[0]["secretName"]
        return volumes

    patch.setattr(pod, "_make_volumes", make)
