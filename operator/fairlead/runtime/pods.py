"""What is done to pods: those of gateways are told to look at their files, and ended if they go on doing what a route no longer permits;
engines' are told how much they have to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairlead.api.conditions import Reason
from fairlead.errors import ApiError, Conflict, NotFound
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.events import EventRecorder
from fairlead.kube.resources import POD
from fairlead.planning.plan import Nudge, Removal
from fairlead.runtime.applier import NotLeadingError, Outcome, Owner
from fairlead.runtime.refusals import is_transient

logger = logging.getLogger(__name__)

_DELETED = "Pod {} was deleted: it had not loaded in time what withdraws something. Another one takes its place."
_UNLABELLED = (
    "Nobody is led to the gateway in pod {} any more: it had not loaded in time what withdraws something. Its engine goes on."
    " Next: delete the pod, and look at its node if that happens again."
)


class Pods:
    """Annotates and deletes. `may_write` is asked before every write. A pod that is gone, or was never reached, needs nothing: the plan
    of the next pass says so, or says it again."""

    def __init__(self, client: ApiClient, cache: Cache, recorder: EventRecorder, may_write: Callable[[], bool]) -> None:
        self._client = client
        self._cache = cache
        self._recorder = recorder
        self._may_write = may_write

    async def nudge(self, owner: Owner, nudges: Sequence[Nudge], outcome: Outcome) -> None:
        """Annotate pods. Raises NotLeadingError, never an ApiError."""
        for nudge in nudges:
            self._check_leading()
            patch = {"metadata": {"uid": nudge.uid, "annotations": {nudge.annotation: nudge.value}}}
            try:
                answer = await self._client.merge(
                    POD, owner.namespace, nudge.pod, patch, field_manager=owner.kind.field_manager
                )
            except (NotFound, Conflict):
                continue
            except ApiError as error:
                logger.warning("Pod/%s was not annotated: %s", nudge.pod, error, extra={"about": owner.about})
                if is_transient(error):
                    outcome.errors.append(error)
                continue
            self._cache.put(answer, POD.kind)

    async def remove(self, owner: Owner, removals: Sequence[Removal], outcome: Outcome) -> None:
        """Delete pods that must serve nobody any more, or take the label away by which they are found, and say so in an Event. Raises
        NotLeadingError, never an ApiError."""
        for removal in removals:
            self._check_leading()
            try:
                answer = await self._remove(owner, removal)
            except (NotFound, Conflict):
                continue
            except ApiError as error:
                message = "Pod/%s may do what was withdrawn, and was not removed: %s"
                logger.error(message, removal.pod, error, extra={"about": owner.about})
                outcome.errors.append(error)
                continue
            outcome.written.append(f"{'unlabel' if removal.label else 'delete'} Pod/{removal.pod}")
            if answer.get("kind") == POD.kind:
                self._cache.put(answer, POD.kind)
            await self._tell(owner, removal)

    async def _remove(self, owner: Owner, removal: Removal) -> Mapping[str, Any]:
        if not removal.label:
            return await self._client.delete(
                POD, owner.namespace, removal.pod, uid=removal.uid, grace_s=removal.grace_s
            )
        patch = {"metadata": {"uid": removal.uid, "labels": {removal.label: None}}}
        return await self._client.merge(
            POD, owner.namespace, removal.pod, patch, field_manager=owner.kind.field_manager
        )

    async def _tell(self, owner: Owner, removal: Removal) -> None:
        await self._recorder.tell(
            owner.regarding,
            type_="Warning",
            reason=Reason.GATEWAY_REMOVED,
            message=_DELETED.format(removal.pod) if not removal.label else _UNLABELLED.format(removal.pod),
            action="Remove",
        )

    def _check_leading(self) -> None:
        if not self._may_write():
            raise NotLeadingError
