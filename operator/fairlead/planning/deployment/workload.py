"""The Deployment: how many pods of the chosen template, and how they are replaced."""

from __future__ import annotations

from typing import Any

from fairlead.api.llmdeployment import RolloutStrategy, StorageType
from fairlead.api.names import make_engine_selector
from fairlead.planning.deployment.metadata import make_metadata
from fairlead.planning.deployment.revision import ChosenTemplate
from fairlead.planning.deployment.serving import Serving

__all__ = ["make_deployment", "make_strategy"]

#: Images of engines are 5 to 20 GB; pulling one is not part of the engine's own start-up budget.
IMAGE_PULL_ALLOWANCE_S = 600
_REVISION_HISTORY_LIMIT = 3


def make_deployment(serving: Serving, chosen: ChosenTemplate) -> dict[str, Any]:
    """The only child that makes pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": make_metadata(serving.resource.metadata, serving.name, chosen.annotations),
        "spec": {
            "replicas": serving.replicas,
            "selector": {"matchLabels": make_engine_selector(serving.name)},
            "strategy": make_strategy(serving),
            "progressDeadlineSeconds": serving.startup_timeout_s + IMAGE_PULL_ALLOWANCE_S,
            "revisionHistoryLimit": _REVISION_HISTORY_LIMIT,
            "template": chosen.template,
        },
    }


def make_strategy(serving: Serving) -> dict[str, Any]:
    """A surge pod needs accelerators that are free, and a volume that two nodes may mount. Without both it would hang."""
    in_place = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    if _has_single_writer_volume(serving):
        # One pod: the old one must be gone before the new one can mount the volume, perhaps on another node.
        return {"type": "Recreate"} if serving.resource.most_replicas <= 1 else in_place
    strategy = serving.spec.rollout.strategy if serving.spec.rollout else RolloutStrategy.AUTO
    if strategy is RolloutStrategy.IN_PLACE or (
        strategy is RolloutStrategy.AUTO and serving.spec.accelerator is not None
    ):
        return in_place
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _has_single_writer_volume(serving: Serving) -> bool:
    """A claim that the user made is taken for one, since nobody told us its access modes."""
    storage = serving.spec.storage
    if storage is None or storage.type is not StorageType.PERSISTENT_VOLUME_CLAIM:
        return False
    return storage.claim_name is not None or "ReadWriteMany" not in storage.access_modes
