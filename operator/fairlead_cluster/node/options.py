"""What may be set about the node stand-in: by default a kubelet's own values, shortened by tests that must be quick."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fairlead_cluster.node.images import Image


class VolumeSync(StrEnum):
    """When a changed ConfigMap or Secret reaches the files of its volumes."""

    QUICK = "quick"  # within a second: most tests want to see what follows from the change, not to wait for it
    KUBELET = "kubelet"  # at the pod's periodic sync (60 to 90 s), or at once when the pod itself changes


class Engines(StrEnum):
    """Which programs pods get for vLLM and Ollama. FAIRLEAD_ENGINES says it where nothing else does."""

    AUTO = "auto"  # a real one if the cache or PATH has it, else the simulator
    REAL = "real"  # never the simulator: a pod without a real one fails to start
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Options:
    """Times in seconds. Back-offs double from the first to the maximum and start anew after twice the maximum."""

    crash_back_off_s: float = 10.0
    crash_back_off_max_s: float = 300.0
    image_back_off_s: float = 10.0
    image_back_off_max_s: float = 300.0
    sync_retry_s: float = 10.0  # between two attempts to make a container's configuration
    mount_retry_max_s: float = 122.0  # attempts to mount a volume double from 0.5 s to this
    volume_sync: VolumeSync = VolumeSync.QUICK
    volume_sync_period_s: float = 60.0
    engines: Engines = field(default_factory=lambda: Engines(os.environ.get("FAIRLEAD_ENGINES") or Engines.AUTO))
    enforce_memory_limits: bool = True
    simulated_ready_delay_s: float = 0.5
    images: Mapping[str, Image] = field(default_factory=dict)  # more images: repository pattern -> image
