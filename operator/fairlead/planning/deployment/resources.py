"""Requests and limits of the containers: what the user says, defaults from the model's size for the rest.

Every container gets both: without requests the scheduler packs blindly, without a memory limit one engine takes a node down.
CPU is not limited by default, because throttled engines miss their probes.
"""

from __future__ import annotations

import math

from fairlead.api.quantity import parse_live_quantity
from fairlead.hardware.quantity import canonical
from fairlead.planning.deployment.serving import Serving

__all__ = ["Resources", "make_engine_resources", "make_init_resources"]

Resources = dict[str, dict[str, str]]

_GI = 1024**3
#: Host memory of an engine process and its CUDA context per accelerator; weights stream through the page cache.
_HOST_BYTES = 8 * _GI
_HOST_BYTES_PER_ACCELERATOR = 8 * _GI
#: CPU engines hold weights, KV cache and buffers in memory.
_CPU_ENGINE_FACTOR = 1.3
_CPU_ENGINE_BYTES = 3 * _GI
_UNKNOWN_MODEL_BYTES = 16 * _GI
_CPUS = 2
_CPUS_PER_ACCELERATOR = 2


def make_engine_resources(serving: Serving) -> Resources:
    """What the engine container gets. Quantities are canonical; the accelerator is in requests and limits."""
    wanted = serving.spec.resources
    requests = {name: canonical(value) for name, value in (wanted.requests if wanted else {}).items()}
    limits = {name: canonical(value) for name, value in (wanted.limits if wanted else {}).items()}
    for name, value in limits.items():
        requests.setdefault(name, value)
    requests.setdefault("cpu", _default_cpu(serving))
    requests.setdefault("memory", _default_memory(serving))
    limits.setdefault("memory", requests["memory"])
    for name, value in requests.items():
        # Extended resources cannot be overcommitted: the API server wants them in limits too.
        if "/" in name or name.startswith("hugepages-"):
            limits.setdefault(name, value)
    accelerator = serving.spec.accelerator
    if accelerator is not None:
        requests[accelerator.resource_name] = limits[accelerator.resource_name] = str(accelerator.count)
    return {"requests": dict(sorted(requests.items())), "limits": dict(sorted(limits.items()))}


def make_init_resources(engine: Resources) -> Resources:
    """Init containers run before the engine, so its share of CPU and memory costs the pod nothing more."""
    return {
        kind: {name: value for name, value in values.items() if name in ("cpu", "memory", "ephemeral-storage")}
        for kind, values in engine.items()
    }


def _default_cpu(serving: Serving) -> str:
    return str(_CPUS + _CPUS_PER_ACCELERATOR * serving.context.accelerator.count)


def _default_memory(serving: Serving) -> str:
    count = serving.context.accelerator.count
    if count:
        size_bytes = float(_HOST_BYTES + _HOST_BYTES_PER_ACCELERATOR * count)
    else:
        model_bytes = serving.size.size_bytes if serving.size else _UNKNOWN_MODEL_BYTES
        size_bytes = _CPU_ENGINE_BYTES + _CPU_ENGINE_FACTOR * model_bytes
    if serving.rendered.shared_memory is not None:
        size_bytes += float(parse_live_quantity(serving.rendered.shared_memory.size))
    return canonical(f"{math.ceil(size_bytes / _GI)}Gi")
