"""Rules of LLMRoute. What a provider can do stands in its data file and is asked when a route is planned, not here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fairlead.api.rules.names import DATA_KEY, DNS_LABEL, DNS_SUBDOMAIN, NAME_RULES, annotation_rules
from fairlead.api.rules.serving import duration_rules
from fairlead.api.rules.table import Rule, cel_list, choose, pattern_rule

__all__ = ["RULES"]

#: What clients send as "model": as the hubs and providers spell names.
_MODEL: Final = "[A-Za-z0-9][-A-Za-z0-9._:/@+]*"
_HEADER: Final = "[a-z][-a-z0-9]*"
#: Headers that mean something else already.
_TAKEN_HEADERS: Final = (
    "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type", "cookie",
    "host", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "x-api-key", "x-request-id",
)  # fmt: skip
_OWN_BASE_URL: Final = ("OpenAICompatible", "Anyscale", "Modal", "Beam")


def _names(items: Iterable[Any]) -> list[str]:
    return [item.name for item in items]


def _unknown_targets(spec: Any) -> list[str]:
    known = set(_names(spec.backends))
    return [target.backend for model in spec.models for target in model.targets if target.backend not in known]


def _role_of_anonymous_ok(spec: Any) -> bool:
    anonymous = spec.authentication.anonymous
    if anonymous is None:
        return True
    return anonymous.role in _names(spec.roles) if spec.roles else anonymous.role is None


def _explain_anonymous(spec: Any) -> tuple[str, str]:
    role = spec.authentication.anonymous.role
    if not spec.roles:
        return f"role {role} is not in spec.roles, which is empty", "anonymous: {} would work, or add the role"
    if role is None:
        return "needs a role, since spec.roles has some", f"role: {spec.roles[0].name} would work"
    return f"role {role} is not in spec.roles", choose(role, _names(spec.roles))


def _consumers_without_keys(spec: Any) -> bool:
    return spec.authentication.api_keys is None and any(role.consumers for role in spec.roles)


RULES: Final = (
    *NAME_RULES,
    *annotation_rules("gateway.service.annotations", "spec.gateway.service.annotations"),
    *(
        pattern_rule(
            f"{at}.label".removeprefix("spec."),
            at,
            DNS_LABEL,
            "is not a name: lower-case letters, digits and -, beginning and ending with a letter or digit",
            "for instance local or openai-eu",
        )
        for at in ("spec.backends[*].name", "spec.roles[*].name", "spec.dataPolicy.detectors[*].name")
    ),
    *(
        pattern_rule(
            f"{at}.dns".removeprefix("spec."),
            at,
            DNS_SUBDOMAIN,
            "is not the name of a Kubernetes object: lower-case letters, digits, - and .",
            "copy the name as kubectl get shows it",
        )
        for at in (
            "spec.backends[*].deployment.name",
            "spec.backends[*].provider.secretRef.name",
            "spec.backends[*].provider.tls.caSecretRef.name",
            "spec.authentication.apiKeys.secretRef.name",
        )
    ),
    *(
        pattern_rule(
            f"{at}.charset".removeprefix("spec."),
            at,
            DATA_KEY,
            "is not a key of a Secret: letters, digits, -, _ and .",
            "copy the key as kubectl describe shows it",
        )
        for at in (
            "spec.backends[*].provider.secretRef.key",
            "spec.backends[*].provider.tls.caSecretRef.key",
            "spec.roles[*].consumers[*]",
        )
    ),
    pattern_rule(
        "models.name.charset",
        "spec.models[*].name",
        _MODEL,
        "is not a model's name: letters, digits and . - _ : / @ +, beginning with a letter or digit",
        "for instance chat or llama-3.1-70b",
    ),
    pattern_rule(
        "models.targets.model.charset",
        "spec.models[*].targets[*].model",
        _MODEL,
        "is not a model's name: letters, digits and . - _ : / @ +, beginning with a letter or digit",
        "copy the name as the backend has it",
    ),
    Rule(
        id="backends.kind",
        at="spec.backends[*]",
        holds=lambda backend: (backend.deployment is None) != (backend.provider is None),
        cel="has(self.deployment) != has(self.provider)",
        message="exactly one of deployment and provider must be given",
        remedy="leave the other out",
    ),
    Rule(
        id="provider.baseURL",
        at="spec.backends[*].provider",
        field=".baseURL",
        holds=lambda provider: provider.base_url is not None or provider.type.value not in _OWN_BASE_URL,
        cel=f"has(self.baseURL) || !(self.type in {cel_list(_OWN_BASE_URL)})",
        message="this provider has no address of its own, so baseURL is required",
        remedy="for instance https://llm.example.com/v1",
    ),
    pattern_rule(
        "provider.baseURL.https",
        "spec.backends[*].provider.baseURL",
        "https://[^ ]+",
        "is not an https URL",
        "for instance https://llm.example.com/v1",
    ),
    Rule(
        id="models.targets.backend",
        at="spec",
        field=".models",
        holds=lambda spec: not _unknown_targets(spec),
        cel="self.models.all(m, m.targets.all(t, self.backends.exists(b, b.name == t.backend)))",
        message="a target names a backend that spec.backends does not have",
        remedy="add the backend or correct the name",
        explain=lambda spec: (
            f"backend {_unknown_targets(spec)[0]} is not in spec.backends",
            choose(_unknown_targets(spec)[0], _names(spec.backends)),
        ),
    ),
    Rule(
        id="models.targets.weight",
        at="spec.models[*].targets",
        holds=lambda targets: any(target.weight for target in targets),
        cel="self.exists(t, t.weight > 0)",
        message="all weights are 0, so that no target would be asked first",
        remedy="weight: 1 for one of them would work",
    ),
    Rule(
        id="authentication.some",
        at="spec.authentication",
        holds=lambda way: way.api_keys is not None or way.anonymous is not None,
        cel="has(self.apiKeys) || has(self.anonymous)",
        message="nobody could call: neither apiKeys nor anonymous is given",
        remedy="anonymous: {} lets everybody in who reaches the gateway",
    ),
    Rule(
        id="authentication.anonymous.role",
        at="spec",
        field=".authentication.anonymous",
        holds=_role_of_anonymous_ok,
        cel="!has(self.authentication.anonymous) || (has(self.roles) && size(self.roles) > 0"
        " ? has(self.authentication.anonymous.role) && self.roles.exists(r, r.name == self.authentication.anonymous.role)"
        " : !has(self.authentication.anonymous.role))",
        message="anonymous.role must name an entry of spec.roles, and be absent without roles",
        remedy="correct the name, or add the role",
        explain=_explain_anonymous,
    ),
    Rule(
        id="roles.consumers.keys",
        at="spec",
        field=".roles",
        holds=lambda spec: not _consumers_without_keys(spec),
        cel="has(self.authentication.apiKeys) || !has(self.roles) || !self.roles.exists(r, has(r.consumers) && size(r.consumers) > 0)",
        message="consumers are known by their keys, and authentication.apiKeys is absent",
        remedy="add authentication.apiKeys, or leave consumers out",
    ),
    pattern_rule(
        "dataPolicy.header.charset",
        "spec.dataPolicy.header",
        _HEADER,
        "is not the name of a header in lower case",
        "x-data-classification would work",
    ),
    Rule(
        id="dataPolicy.header.taken",
        at="spec.dataPolicy.header",
        holds=lambda header: header not in _TAKEN_HEADERS and not header.startswith(("x-fairlead-", "x-envoy-")),
        cel=f"!(self in {cel_list(_TAKEN_HEADERS)}) && !self.startsWith('x-fairlead-') && !self.startsWith('x-envoy-')",
        message="this header means something else already",
        remedy="x-data-classification would work",
    ),
    Rule(
        id="detectors.kind",
        at="spec.dataPolicy.detectors[*]",
        holds=lambda detector: bool(detector.keywords) != (detector.builtin is not None),
        cel="(has(self.keywords) && size(self.keywords) > 0) != has(self.builtin)",
        message="exactly one of keywords and builtin must be given",
        remedy="leave the other out",
    ),
    *duration_rules("gateway.drainTimeout", "spec.gateway.drainTimeout", "0s", "1h"),
    *duration_rules("models.timeouts.responseHeaders", "spec.models[*].timeouts.responseHeaders", "100ms", "1h"),
    *duration_rules("models.timeouts.idle", "spec.models[*].timeouts.idle", "1s", "1h"),
    *duration_rules("models.timeouts.request", "spec.models[*].timeouts.request", "1s", "6h"),
)
