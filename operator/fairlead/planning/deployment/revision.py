"""Law 8: an operator upgrade disturbs nothing.

The Deployment carries the pod template with which it was planned, and a hash of the spec fields behind it. As long as those
fields stay, the recorded template stays, whatever newer engine files and builders would render; that a newer one exists is
said in status. A change of those fields, or `rollout.revision: Latest`, takes the newest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

from fairlead.api.llmdeployment import LLMDeploymentSpec, RevisionPolicy
from fairlead.api.names import (
    ANNOTATION_REVISION,
    ANNOTATION_TEMPLATE,
    ANNOTATION_TEMPLATE_INPUT,
)
from fairlead.planning.deployment.pod import ENGINE_CONTAINER, POD_BUILDER_REVISION, make_pod_template
from fairlead.planning.deployment.serving import Serving
from fairlead.planning.recorded import decode_template, digest_record, encode_template, with_restart

__all__ = ["ChosenTemplate", "choose_template", "hash_template_input", "make_fresh_template"]

Json = dict[str, Any]


@dataclass(frozen=True)
class ChosenTemplate:
    """The pod template that the Deployment gets, and what most passes ask of it.

    `draw` makes it; `revision` is with what it was rendered; `newer` the revision that waits, or None; `input_hash` of the spec
    fields behind it; `record` is a digest of it as the Deployment carries it. `image` and `port` are the engine's in the pods as
    they run: an older revision keeps those of its time, and may not say its port.
    """

    draw: Callable[[], Json]
    revision: str
    newer: str | None
    input_hash: str
    record: bytes
    image: str
    port: int | None
    pod_annotations: Mapping[str, str]

    @classmethod
    def of(
        cls,
        template: Json,
        encoded: str,
        *,
        revision: str,
        input_hash: str,
        newer: str | None = None,
        draw: Callable[[], Json] | None = None,
    ) -> ChosenTemplate:
        """A template that is there already, and as what it is recorded. Without `draw` it stays."""
        containers: list[Json] = template["spec"]["containers"]
        engine = next((one for one in containers if one.get("name") == ENGINE_CONTAINER), containers[0])
        chosen = cls(
            draw=draw or (lambda: template),
            revision=revision,
            newer=newer,
            input_hash=input_hash,
            record=digest_record(encoded),
            image=str(engine.get("image", "")),
            port=(engine.get("ports") or [{}])[0].get("containerPort"),
            pod_annotations=dict(template["metadata"].get("annotations") or {}),
        )
        vars(chosen).update(template=template, encoded=encoded)
        return chosen

    @cached_property
    def template(self) -> Json:
        """PodTemplateSpec. Nobody changes it."""
        return self.draw()

    @cached_property
    def encoded(self) -> str:
        """It, as the Deployment carries it."""
        return encode_template(self.template)

    @property
    def annotations(self) -> dict[str, str]:
        """What the Deployment must carry so that the next pass decides the same."""
        return {
            ANNOTATION_REVISION: self.revision,
            ANNOTATION_TEMPLATE_INPUT: self.input_hash,
            ANNOTATION_TEMPLATE: self.encoded,
        }

    def is_recorded_in(self, annotations: Mapping[str, str]) -> bool:
        """Whether a Deployment that carries these has been given this template."""
        return (
            annotations.get(ANNOTATION_REVISION) == self.revision
            and annotations.get(ANNOTATION_TEMPLATE_INPUT) == self.input_hash
            and digest_record(annotations.get(ANNOTATION_TEMPLATE, "")) == self.record
        )

    def let_go(self) -> None:
        """Keep what most passes ask for, and draw the template again for whoever reads it."""
        for drawn in ("template", "encoded"):
            vars(self).pop(drawn, None)


def make_fresh_template(serving: Serving) -> ChosenTemplate:
    """What this release renders for the spec, and a new Deployment gets."""
    template = make_pod_template(serving)
    return ChosenTemplate.of(
        template,
        encode_template(template),
        revision=f"{serving.engine.revision}-{POD_BUILDER_REVISION}",
        input_hash=hash_template_input(serving.spec),
        draw=partial(make_pod_template, serving),
    )


def choose_template(
    fresh: ChosenTemplate, policy: RevisionPolicy, live: Mapping[str, Any] | None, restarted_at: str | None
) -> ChosenTemplate:
    """`live` is our own Deployment as it exists, or None. Returns `fresh` itself where nothing speaks against it."""
    recorded = (live or {}).get("metadata", {}).get("annotations") or {}
    chosen = _keep_recorded(fresh, policy, recorded) or fresh
    if restarted_at:
        # `kubectl annotate llmdep x fairlead.dev/restartedAt=…` restarts the pods, and nothing else about them changes.
        return ChosenTemplate.of(
            with_restart(chosen.template, restarted_at),
            chosen.encoded,
            revision=chosen.revision,
            input_hash=chosen.input_hash,
            newer=chosen.newer,
        )
    return chosen


def _keep_recorded(fresh: ChosenTemplate, policy: RevisionPolicy, recorded: Mapping[str, str]) -> ChosenTemplate | None:
    """The template with which the Deployment was planned, or None when it is to be replaced by the fresh one (or is the same)."""
    encoded = str(recorded.get(ANNOTATION_TEMPLATE, ""))
    if not encoded or recorded.get(ANNOTATION_TEMPLATE_INPUT) != fresh.input_hash:
        return None
    revision = str(recorded.get(ANNOTATION_REVISION) or fresh.revision)
    is_same = digest_record(encoded) == fresh.record
    if is_same and revision == fresh.revision:
        return None
    template = fresh.template if is_same else decode_template(encoded)
    if template is None:
        return None
    is_same = is_same or template == fresh.template
    if not is_same and policy is not RevisionPolicy.PINNED:
        return None
    # Kept byte for byte: another zlib may pack the same template differently, and that would be a write for nothing.
    newer = None if is_same else fresh.revision
    return ChosenTemplate.of(template, encoded, revision=revision, input_hash=fresh.input_hash, newer=newer)


def hash_template_input(spec: LLMDeploymentSpec) -> str:
    """Hash of the spec fields that shape the pods. Fields at their defaults do not count, so that a release which adds fields
    changes no hash; nor do fields that touch other children only."""
    data = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    for field in ("replicas", "autoscaling", "suspend", "service", "networkPolicy"):
        data.pop(field, None)
    for section, fields in (
        ("rollout", ("strategy", "revision")),
        ("storage", ("size", "storageClassName", "accessModes")),
    ):
        if section == "storage" and data.get("storage", {}).get("type", "EmptyDir") == "EmptyDir":
            continue  # there the size is a limit in the pod
        for field in fields:
            data.get(section, {}).pop(field, None)
    text = json.dumps(_without_empty(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake2b(text.encode(), digest_size=10).hexdigest()


def _without_empty(value: Any) -> Any:
    """An empty section says the same as no section."""
    if isinstance(value, dict):
        pruned = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item not in ({}, [])}
    return value
