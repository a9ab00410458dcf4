"""Having a container's image: the kubelet's words and back-off when that fails."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead_cluster.node.backoff import BackOff
from fairlead_cluster.node.images import (
    Image,
    ImageNotFoundError,
    ImageReference,
    InvalidImageNameError,
    find_image,
)


@dataclass(frozen=True, slots=True)
class PullProblem:
    """Why there is no image now. `retry_s`: when to try again. `is_back_off`: nothing was tried this time."""

    reason: str
    message: str
    retry_s: float
    is_back_off: bool = False


class ImagePuller:
    """One container's attempts to have its image; `retry_s` is the pause after problems without a back-off."""

    def __init__(self, known: Mapping[str, Image], back_off: BackOff, retry_s: float) -> None:
        self._known = known
        self._back_off = back_off
        self._retry_s = retry_s
        self._failed_at_s: float | None = None
        self._failure = ""

    def ensure(self, image: str, policy: str) -> Image | PullProblem:
        """The image, or what a kubelet would say. Call again after `retry_s`."""
        try:
            reference = ImageReference.parse(image)
        except InvalidImageNameError as error:
            return PullProblem("InvalidImageName", str(error), self._retry_s)
        try:
            return find_image(reference, self._known)
        except ImageNotFoundError as error:
            if policy == "Never":
                message = f'Container image "{image}" is not present with pull policy of Never'
                return PullProblem("ErrImageNeverPull", message, self._retry_s)
            return self._failed(image, str(error))

    def _failed(self, image: str, message: str) -> PullProblem:
        now_s = time.monotonic()
        if self._failed_at_s is not None:
            left_s = self._back_off.remaining_s(self._failed_at_s, now_s)
            if left_s > 0:
                words = f'Back-off pulling image "{image}": ErrImagePull: {self._failure}'
                return PullProblem("ImagePullBackOff", words, left_s, is_back_off=True)
        self._back_off.note_start(now_s if self._failed_at_s is None else self._failed_at_s, now_s)
        self._failed_at_s, self._failure = now_s, message
        # A kubelet shows the error until its next look at the pod, which then finds the back-off.
        return PullProblem("ErrImagePull", message, min(1.0, self._back_off.current_s / 4))
