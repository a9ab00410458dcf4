"""What the classifier looks up at request time, as JSON. It was all decided when the table was made.

The head of `lua/classify.lua` says how it is read.
"""

from __future__ import annotations

from typing import Any, Final

from fairlead.api.route import DetectorSpec
from fairlead.gateway.patterns import highest_class, name_patterns
from fairlead.gateway.table import DECLARED_NOTHING, Affinity, Profile, RouteTable
from fairlead.policy.law import CLASSES, Verdict

__all__ = ["ENDPOINTS", "MODELS_CHAIN", "MODELS_PATH", "make_lookup"]

#: What may be asked for by POST. Everything else is 404.
ENDPOINTS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/messages",
)
MODELS_PATH: Final = "/v1/models"
#: The chain of GET /v1/models.
MODELS_CHAIN: Final = "models"


def make_lookup(table: RouteTable) -> dict[str, Any]:
    """The classifier's tables. Looking up a model costs the same whatever their number."""
    ids = {verdict: f"v{number}" for number, verdict in enumerate(table.verdicts())}
    lookup: dict[str, Any] = {
        "header": table.policy.header.lower(),
        "classes": [data_class.value for data_class in CLASSES],
        "consumers": dict(table.consumers),
        "known": table.known,
        "detectors": [_make_detector(detector) for detector in table.policy.detectors if not detector.patterns],
        "default": table.policy.default.value,
        "opaque": table.policy.opaque_content.value,
        "verdicts": {profile.id: _make_verdicts(profile, ids) for profile in table.profiles},
        "classes_of": {ids[verdict]: verdict.data_class.value for verdict in ids}
        | {chain.id: chain.data_class.value for chain in table.chains.values()},
        "models": {name: _make_chains(table, name, ids) for name in table.models},
        "endpoints": list(ENDPOINTS),
    }
    if table.policy.allow_store:
        lookup["store"] = "true"
    if table.policy.hosted_tools:
        lookup["hosted"] = list(table.policy.hosted_tools)
    patterns = highest_class(name_patterns(table.policy.detectors))
    if patterns is not None:
        lookup["patterns"] = patterns.value
    if table.affinities:
        lookup["affinities"] = {model: _make_affinity(affinity) for model, affinity in table.affinities.items()}
    tokens = {p.id: str(table.share(p.limits.tokens)) for p in table.profiles if p.limits.tokens is not None}
    if tokens:
        lookup["tokens"] = tokens
    if table.anonymous is not None:
        lookup["anonymous"] = table.anonymous
    return lookup


def _make_affinity(affinity: Affinity) -> dict[str, str]:
    """The classifier reads no numbers."""
    if affinity.header is not None:
        return {"header": affinity.header}
    return {"prefix": str(affinity.prefix_characters)}


def _make_detector(detector: DetectorSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"name": detector.name, "class": detector.class_.value}
    if detector.builtin is not None:
        return {**found, "builtin": detector.builtin.value}
    return {**found, "keywords": list(detector.keywords)}


def _make_verdicts(profile: Profile, ids: dict[Verdict, str]) -> dict[str, str]:
    return {
        f"{declared.value if declared is not None else DECLARED_NOTHING}|{detected.value}": ids[verdict]
        for (declared, detected), verdict in profile.verdicts.items()
    }


def _make_chains(table: RouteTable, model: str, ids: dict[Verdict, str]) -> dict[str, str]:
    return {
        ids[verdict]: table.chains[model, verdict].id
        for verdict in table.verdicts()
        if (model, verdict) in table.chains
    }
