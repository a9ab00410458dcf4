"""Law 8 for gateways: an operator upgrade replaces none of them.

A gateway is its pod template and the files that it starts with: listeners, filters, Lua texts. Both stay as they were when the spec
fields behind them were last planned, whatever this release would render; status says that a newer revision waits. It is taken when
these fields change, or with `gateway.revision: Latest`. Routing goes on being published by the newest release, so a gateway is
also replaced when it could not carry that out: the number before the dash of its revision says what it understands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import orjson

from fairlead.api.names import (
    ANNOTATION_RESTARTED_AT,
    ANNOTATION_REVISION,
    ANNOTATION_TEMPLATE,
    ANNOTATION_TEMPLATE_INPUT,
    gateway_name,
    gateway_part_name,
)
from fairlead.api.resource import LLMRoute
from fairlead.api.serving import RevisionPolicy
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.gateway.envoy.files import ROUTING_INTERFACE
from fairlead.planning.ownership import find_ours
from fairlead.planning.recorded import decode_template, encode_template, with_restart
from fairlead.planning.route.files import BOOTSTRAP
from fairlead.planning.route.pod import ANNOTATION_BOOTSTRAP, digest_bootstrap

__all__ = ["GatewayRevision", "choose_revision", "make_fresh_revision"]

Json = dict[str, Any]
Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GatewayRevision:
    """`template`: the PodTemplateSpec that gateways get; `bootstrap`: the files that they start with; `revision`: with what both were
    rendered; `newer`: the revision that waits, or None; `record`: the template as the Deployment carries it, without a restart."""

    template: Json
    bootstrap: Files
    revision: str
    input_hash: str
    record: str
    newer: str | None = None

    @property
    def annotations(self) -> dict[str, str]:
        """What the Deployment must carry so that the next pass decides the same."""
        return {
            ANNOTATION_REVISION: self.revision,
            ANNOTATION_TEMPLATE_INPUT: self.input_hash,
            ANNOTATION_TEMPLATE: self.record,
        }


def make_fresh_revision(template: Json, bootstrap: Files, inputs: Json) -> GatewayRevision:
    """What this release renders. `inputs`: what the spec says that shapes it."""
    return GatewayRevision(
        template=template,
        bootstrap=bootstrap,
        revision=f"{ROUTING_INTERFACE}-{_digest(template)}",
        input_hash=_digest(inputs),
        record=encode_template(template),
    )


def choose_revision(fresh: GatewayRevision, route: LLMRoute, observed: Observed) -> GatewayRevision:
    """What the gateways get: `fresh` where nothing speaks against it, else what is recorded with them."""
    chosen = _keep_recorded(fresh, route, observed) or fresh
    restarted_at = route.metadata.annotations.get(ANNOTATION_RESTARTED_AT)
    return replace(chosen, template=with_restart(chosen.template, restarted_at)) if restarted_at else chosen


def _keep_recorded(fresh: GatewayRevision, route: LLMRoute, observed: Observed) -> GatewayRevision | None:
    gateway, owner = route.spec.gateway, route.metadata
    deployment = find_ours(observed, ObjectKey("Deployment", owner.namespace, gateway_name(owner.name)), owner)
    started = find_ours(
        observed, ObjectKey("ConfigMap", owner.namespace, gateway_part_name(owner.name, BOOTSTRAP)), owner
    )
    if deployment is None or started is None:
        return None
    recorded = deployment["metadata"].get("annotations") or {}
    record, revision = str(recorded.get(ANNOTATION_TEMPLATE, "")), str(recorded.get(ANNOTATION_REVISION, ""))
    if recorded.get(ANNOTATION_TEMPLATE_INPUT) != fresh.input_hash:
        return None
    if revision.partition("-")[0] != str(ROUTING_INTERFACE):
        return None
    template, bootstrap = decode_template(record), started.get("data") or {}
    if template is None or template == fresh.template:
        return None
    if (template["metadata"].get("annotations") or {}).get(ANNOTATION_BOOTSTRAP) != digest_bootstrap(bootstrap):
        return None  # the files of its time are gone
    if gateway is not None and gateway.revision is not RevisionPolicy.PINNED:
        return None
    return GatewayRevision(template, bootstrap, revision, fresh.input_hash, record, newer=fresh.revision)


def _digest(value: Json) -> str:
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
