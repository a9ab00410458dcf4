"""Rules of LLMRoute. What a provider can do stands in its data file and is asked when a route is planned, not here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from fairlead.api.rules.authentication import AUTHENTICATION_RULES
from fairlead.api.rules.detectors import DETECTOR_RULES
from fairlead.api.rules.hold import HOLD_RULES
from fairlead.api.rules.names import (
    DATA_KEY,
    DNS_LABEL,
    DNS_SUBDOMAIN,
    NAME_RULES,
    annotation_rules,
    own_name_rule,
)
from fairlead.api.rules.serving import duration_rules
from fairlead.api.rules.table import Rule, cel_list, choose, pattern_rule

__all__ = ["OWN_BASE_URL", "RULES"]

#: What clients send as "model": as the hubs and providers spell names.
_MODEL: Final = "[A-Za-z0-9][-A-Za-z0-9._:/@+]*"
#: Keys of a Secret, and subjects of tokens: addresses, URLs, system:serviceaccount:….
_CONSUMER: Final = "[!-~]+"
_HEADER: Final = "[a-z][-a-z0-9]*"
#: Headers that mean something else already: to HTTP, to Envoy, or to a provider.
_TAKEN_HEADERS: Final = (
    "accept", "accept-encoding", "anthropic-beta", "anthropic-version", "api-key", "authorization", "connection",
    "content-encoding", "content-length", "content-type", "cookie", "date", "expect", "forwarded", "host", "keep-alive",
    "modal-key", "modal-secret", "openai-organization", "openai-project", "origin", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via", "x-api-key", "x-request-id",
)  # fmt: skip
_TAKEN_PREFIXES: Final = ("x-fairlead-", "x-envoy-", "x-forwarded-")
#: Providers without an address of their own, as their data files say, too.
OWN_BASE_URL: Final = ("OpenAICompatible", "Anyscale", "Modal", "Beam")
#: As `providers/hosts.py` reads it: no user name, query, fragment or escape, and no empty segment.
_BASE_URL: Final = (
    r"https://([A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?"
    "(/[A-Za-z0-9._~:+=-]+)*/?"
)


def _names(items: Iterable[Any]) -> list[str]:
    return [item.name for item in items]


def _unknown_targets(spec: Any) -> list[tuple[str, str]]:
    """(model, backend that is not there)."""
    known = set(_names(spec.backends))
    return [(model.name, t.backend) for model in spec.models for t in model.targets if t.backend not in known]


def _explain_target(spec: Any) -> tuple[str, str]:
    model, backend = _unknown_targets(spec)[0]
    return f"model {model} has a target {backend}, which is not in spec.backends", choose(
        backend, _names(spec.backends)
    )


def _models_without_pods(spec: Any) -> list[str]:
    """Models with an affinity, and without a target that it could mean anything to."""
    local = {backend.name for backend in spec.backends if backend.deployment is not None}
    return [m.name for m in spec.models if m.affinity is not None and not any(t.backend in local for t in m.targets)]


def _explain_affinity(spec: Any) -> tuple[str, str]:
    model = _models_without_pods(spec)[0]
    what = (
        f"model {model} has an affinity and no target that is a deployment, so that there are no pods to choose among"
    )
    return what, "leave affinity out, or add a target whose backend is a deployment"


def _explain_affinity_kind(affinity: Any) -> tuple[str, str]:
    if affinity.header is None:
        return "neither header nor promptPrefix is given", "for instance promptPrefix: {}, or header: x-session-id"
    return "both header and promptPrefix are given", "leave one of the two out"


def _twice(items: Iterable[Any]) -> Iterator[Any]:
    return (item for item, times in Counter(items).items() if times > 1)


def _unique_rule(rule_id: str, at: str) -> Rule:
    """No entry of the short list at `at` appears twice. Long ones are sets in the schema: comparing pairs costs CEL too much."""
    return Rule(
        id=rule_id,
        at=at,
        holds=lambda items: len(set(items)) == len(items),
        cel="self.all(a, self.exists_one(b, b == a))",
        message="an entry appears twice",
        remedy="leave one of the two out",
        explain=lambda items: (f"{next(_twice(items))} appears twice", "leave one of the two out"),
    )


def _pairs(targets: Sequence[Any]) -> list[tuple[str, str | None]]:
    return [(target.backend, target.model) for target in targets]


def _explain_pair(targets: Sequence[Any]) -> tuple[str, str]:
    backend, model = next(_twice(_pairs(targets)))
    what = f"backend {backend} with model {model}" if model is not None else f"backend {backend} without a model"
    return f"{what} appears twice", "leave one of the two out, or give it another model"


def _explain_base_url(url: str) -> tuple[str, str]:
    """Without the URL: somebody may have written a password into it."""
    remedy = "for instance https://llm.example.com/v1"
    authority = re.split("[/?#]", url.split("://", 1)[-1], maxsplit=1)[0]
    if not url.startswith("https://"):
        return "does not begin with https://", remedy
    if "@" in authority:
        return "carries a user name or password", "put the key into the Secret of secretRef"
    if "?" in url or "#" in url:
        return "carries a query or a fragment", "end it with the path, such as /v1"
    return "is not an https URL with a host, perhaps a port, and a plain path", remedy


def _providers_beside_engines(spec: Any) -> list[str]:
    """Backends that are providers, where the gateways run in engine pods."""
    if spec.gateway is None or spec.gateway.mode != "Sidecar":
        return []
    return [backend.name for backend in spec.backends if backend.provider is not None]


def _explain_backend(backend: Any) -> tuple[str, str]:
    if backend.deployment is None:
        return (
            "neither deployment nor provider is given",
            "deployment: {name: …} names an LLMDeployment of this namespace",
        )
    return "both deployment and provider are given", "leave one of the two out"


def _header_rules(rule_id: str, at: str, example: str) -> tuple[Rule, Rule]:
    """The text at `at` is the name of a header that is free to mean this."""
    return (
        pattern_rule(
            f"{rule_id}.charset", at, _HEADER, "is not the name of a header in lower case", f"{example} would work"
        ),
        Rule(
            id=f"{rule_id}.taken",
            at=at,
            holds=lambda header: header not in _TAKEN_HEADERS and not header.startswith(_TAKEN_PREFIXES),
            cel=f"!(self in {cel_list(_TAKEN_HEADERS)}) && !{cel_list(_TAKEN_PREFIXES)}.exists(p, self.startsWith(p))",
            message="this header means something else already",
            remedy=f"{example} would work",
        ),
    )


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
            "spec.gateway.tls.secretName",
            "spec.backends[*].provider.secretRef.name",
            "spec.backends[*].provider.tls.caSecretRef.name",
            "spec.authentication.apiKeys.secretRef.name",
            "spec.authentication.jwt.jwks.secretRef.name",
            "spec.authentication.jwt.jwks.configMapRef.name",
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
            "spec.authentication.jwt.jwks.secretRef.key",
            "spec.authentication.jwt.jwks.configMapRef.key",
        )
    ),
    replace(
        pattern_rule(
            "roles.consumers.charset",
            "spec.roles[*].consumers[*]",
            _CONSUMER,
            "is not the name of a consumer: ASCII letters, digits and signs, without spaces",
            "copy the key of the clients' Secret, or the claim of the token",
        ),
        pattern=_CONSUMER,  # 64 roles × 256 consumers
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
        remedy="give one of the two",
        explain=_explain_backend,
    ),
    own_name_rule("backends.deployment.name.form", "spec.backends[*].deployment.name", "LLMDeployment", "llmdep"),
    Rule(
        id="provider.baseURL",
        at="spec.backends[*].provider",
        field=".baseURL",
        holds=lambda provider: provider.base_url is not None or provider.type.value not in OWN_BASE_URL,
        cel=f"has(self.baseURL) || !(self.type in {cel_list(OWN_BASE_URL)})",
        message="this provider has no address of its own, so baseURL is required",
        remedy="for instance https://llm.example.com/v1",
    ),
    pattern_rule(
        "provider.baseURL.https",
        "spec.backends[*].provider.baseURL",
        _BASE_URL,
        "is not an https URL with a host, perhaps a port, and a plain path",
        "for instance https://llm.example.com/v1",
        explain=_explain_base_url,
    ),
    Rule(
        id="provider.baseURL.region",
        at="spec.backends[*].provider",
        field=".region",
        holds=lambda provider: provider.base_url is None or provider.region is None,
        cel="!has(self.baseURL) || !has(self.region)",
        message="has no effect beside baseURL, which is the whole address",
        remedy="leave one of the two out",
    ),
    Rule(
        id="provider.baseURL.parameters",
        at="spec.backends[*].provider",
        field=".parameters",
        holds=lambda provider: provider.base_url is None or not provider.parameters,
        cel="!has(self.baseURL) || !has(self.parameters) || size(self.parameters) == 0",
        message="have no effect beside baseURL, which is the whole address",
        remedy="leave one of the two out",
    ),
    Rule(
        id="provider.parameters.region",
        at="spec.backends[*].provider.parameters",
        holds=lambda parameters: "region" not in parameters,
        cel="!('region' in self)",
        message="region is no parameter",
        remedy="provider.region would work",
    ),
    pattern_rule(
        "provider.parameters.charset",
        "spec.backends[*].provider.parameters[*]",
        "[A-Za-z0-9][-A-Za-z0-9._]*",
        "is no part of an address: letters, digits, -, _ and ., beginning with a letter or digit",
        "the provider table in the docs has examples, for instance my-resource",
    ),
    pattern_rule(
        "provider.region.label",
        "spec.backends[*].provider.region",
        DNS_LABEL,
        "is not a region: lower-case letters, digits and -, beginning and ending with a letter or digit",
        "for instance eu or us-east-1",
    ),
    pattern_rule(
        "provider.tls.serverName.dns",
        "spec.backends[*].provider.tls.serverName",
        DNS_SUBDOMAIN,
        "is not a host name: lower-case letters, digits, - and .",
        "for instance llm.example.com",
    ),
    Rule(
        id="models.targets.backend",
        at="spec",
        field=".models",
        holds=lambda spec: not _unknown_targets(spec),
        cel=(
            # The names are read once: asked anew for each target, 256 models × 16 targets would cost a call more than it may.
            "[self.backends.map(b, b.name)].all(names, self.models.all(m, m.targets.all(t, t.backend in names)))"
        ),
        message="a target names a backend that spec.backends does not have",
        remedy="add the backend or correct the name",
        explain=_explain_target,
    ),
    Rule(
        id="models.targets.pair",
        at="spec.models[*].targets",
        holds=lambda targets: not any(True for _ in _twice(_pairs(targets))),
        cel=(
            # As lists, because the estimate for a pair of texts is their length: 256 models × 16 × 16 pairs.
            "[self.map(t, [t.backend, has(t.model) ? t.model : ''])].all(pairs, pairs.all(a, pairs.exists_one(b, b == a)))"
        ),
        message="a backend appears twice with the same model",
        remedy="leave one of the two out, or give it another model",
        explain=_explain_pair,
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
        id="gateway.mode.providers",
        at="spec",
        field=".gateway.mode",
        holds=lambda spec: not _providers_beside_engines(spec),
        cel=(
            "!has(self.gateway) || !has(self.gateway.mode) || self.gateway.mode != 'Sidecar'"
            " || self.backends.all(b, !has(b.provider))"
        ),
        message="gateways in engine pods have no keys of providers, and a backend is a provider",
        remedy="mode: Deployment would work, or leave the provider out",
        explain=lambda spec: (
            f"gateways in engine pods have no keys of providers, and backend {_providers_beside_engines(spec)[0]} is a provider",
            "mode: Deployment would work, or leave the provider out",
        ),
    ),
    Rule(
        id="gateway.mode.tls",
        at="spec.gateway",
        field=".tls",
        holds=lambda gateway: gateway.mode != "Sidecar" or gateway.tls is None,
        cel="!has(self.mode) || self.mode != 'Sidecar' || !has(self.tls)",
        message="gateways in engine pods have no certificate of their own",
        remedy="leave tls out, or mode: Deployment would work",
    ),
    Rule(
        id="gateway.mode.sidecars",
        at="spec.gateway",
        field=".applicationSidecars",
        holds=lambda gateway: gateway.mode != "Sidecar" or not gateway.application_sidecars,
        cel="!has(self.mode) || self.mode != 'Sidecar' || !self.applicationSidecars",
        message="sidecars of applications go with gateways in pods of their own",
        remedy="leave applicationSidecars out, or mode: Deployment would work",
    ),
    *AUTHENTICATION_RULES,
    *(
        Rule(
            id=f"{at}.some".removeprefix("spec."),
            at=at,
            holds=lambda limits: limits.requests_per_minute is not None or limits.tokens_per_minute is not None,
            cel="has(self.requestsPerMinute) || has(self.tokensPerMinute)",
            message="nothing is limited: neither requestsPerMinute nor tokensPerMinute is given",
            remedy="leave limits out, or give one of them, for instance requestsPerMinute: 60",
        )
        for at in ("spec.limits", "spec.roles[*].limits")
    ),
    Rule(
        id="models.affinity.pods",
        at="spec",
        field=".models",
        holds=lambda spec: not _models_without_pods(spec),
        cel=(
            "[self.backends.filter(b, has(b.deployment)).map(b, b.name)].all(names,"
            " self.models.all(m, !has(m.affinity) || m.targets.exists(t, t.backend in names)))"
        ),
        message="a model has an affinity and no target that is a deployment, so that there are no pods to choose among",
        remedy="leave affinity out, or add a target whose backend is a deployment",
        explain=_explain_affinity,
    ),
    Rule(
        id="models.affinity.kind",
        at="spec.models[*].affinity",
        holds=lambda affinity: (affinity.header is None) != (affinity.prompt_prefix is None),
        cel="has(self.header) != has(self.promptPrefix)",
        message="exactly one of header and promptPrefix must be given",
        remedy="give one of the two",
        explain=_explain_affinity_kind,
    ),
    *HOLD_RULES,
    *_header_rules("models.affinity.header", "spec.models[*].affinity.header", "x-session-id"),
    *_header_rules("dataPolicy.header", "spec.dataPolicy.header", "x-data-classification"),
    *DETECTOR_RULES,
    *(
        _unique_rule(f"{at}.unique".removeprefix("spec."), at)
        for at in (
            "spec.roles[*].llmAccess",
            "spec.roles[*].dataAccess",
            "spec.roles[*].mayDeclare",
            "spec.dataPolicy.denyClasses",
            "spec.authentication.jwt.audiences",
            "spec.dataPolicy.detectors[*].keywords",
            "spec.dataPolicy.detectors[*].patterns",
        )
    ),
    *duration_rules("gateway.drainTimeout", "spec.gateway.drainTimeout", "0s", "1h"),
    *duration_rules("backends.deployment.slowStart", "spec.backends[*].deployment.slowStart", "1s", "1h"),
    *duration_rules("models.timeouts.responseHeaders", "spec.models[*].timeouts.responseHeaders", "100ms", "1h"),
    *duration_rules("models.timeouts.idle", "spec.models[*].timeouts.idle", "1s", "1h"),
    *duration_rules("models.timeouts.request", "spec.models[*].timeouts.request", "1s", "6h"),
    *duration_rules("models.timeouts.attempt", "spec.models[*].timeouts.attempt", "100ms", "6h"),
)
