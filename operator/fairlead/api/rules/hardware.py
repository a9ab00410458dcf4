"""Rules about what it runs on: accelerators, parallelism, quantities and storage."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

from fairlead.api.formats import OLLAMA, VLLM
from fairlead.api.quantity import QUANTITY_PATTERN, is_quantity, parse_live_quantity, parse_quantity
from fairlead.api.rules.names import DNS_SUBDOMAIN, LABEL_VALUE
from fairlead.api.rules.table import Rule, choose, matches, pattern_rule

_RESOURCE_NAME: Final = f"{DNS_SUBDOMAIN}/[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
_KNOWN_PRODUCT_LABELS: Final = "nvidia[.]com/(gpu([.]shared)?|mig-.+)|amd[.]com/gpu|gpu[.]intel[.]com/.+"
_ACCELERATOR_KEY: Final = f"{_KNOWN_PRODUCT_LABELS}|google[.]com/tpu|habana[.]ai/gaudi|aws[.]amazon[.]com/neuron.*"
_NATIVE: Final = ("cpu", "memory", "ephemeral-storage")
_RESOURCE_KEY: Final = f"cpu|memory|ephemeral-storage|hugepages-[0-9A-Za-z]+|{_RESOURCE_NAME}"
_SMALLEST_BYTES: Final = Decimal(2) ** 20


def _explain_quantity(text: str) -> tuple[str, str]:
    number = re.match("[0-9.]+", text)
    guess = f"{number[0]}Gi" if number and is_quantity(number[0]) else "64Gi"
    return f"{text!r} is not a quantity", f"{guess} would work, or for cpu a number of cores such as 8 or 500m"


def _quantity_rule(rule_id: str, at: str, *, or_integer: bool = False) -> Rule:
    return Rule(
        id=rule_id,
        at=at,
        holds=is_quantity,
        cel="" if or_integer else matches(QUANTITY_PATTERN),
        pattern=QUANTITY_PATTERN if or_integer else "",
        message="is not a quantity",
        remedy="for instance 64Gi, 500m or 8",
        explain=_explain_quantity,
    )


def _bytes_of(text: str | None) -> Decimal | None:
    # As CEL's isQuantity: signs and exponents too, which another rule refuses. Both sides then say the same of them.
    try:
        return parse_live_quantity(text) if text is not None else None
    except ValueError:
        return None


def _size_rule(rule_id: str, at: str) -> Rule:
    return Rule(
        id=rule_id,
        at=at,
        holds=lambda text: not is_quantity(text) or parse_quantity(text) >= _SMALLEST_BYTES,
        cel=f"!{matches(QUANTITY_PATTERN)} || quantity(self).compareTo(quantity('1Mi')) >= 0",
        message="is less than 1Mi of bytes",
        remedy="write the unit, for instance 64Gi (m means thousandths)",
        explain=lambda text: (
            f"{text} is less than 1Mi of bytes",
            f"{re.sub('[^0-9.]', '', text)}Gi would work (m means thousandths, no unit means bytes)",
        ),
    )


def _memory_rule(part: str) -> Rule:
    return Rule(
        id=f"resources.{part}.memory",
        at=f"spec.resources.{part}",
        holds=lambda quantities: (
            "memory" not in quantities
            or not is_quantity(quantities["memory"])
            or parse_quantity(quantities["memory"]) >= _SMALLEST_BYTES
        ),
        cel="!('memory' in self) || !"
        + matches(QUANTITY_PATTERN, "string(self['memory'])")
        + " || quantity(string(self['memory'])).compareTo(quantity('1Mi')) >= 0",
        message="memory is less than 1Mi of bytes",
        remedy="write the unit, for instance 64Gi (m means thousandths)",
        explain=lambda quantities: (
            f"memory {quantities['memory']} is less than 1Mi of bytes",
            f"{re.sub('[^0-9.]', '', quantities['memory'])}Gi would work (m means thousandths, no unit means bytes)",
        ),
    )


def _keys_rule(part: str) -> Rule:
    def explain(quantities: dict[str, str]) -> tuple[str, str]:
        key = next(k for k in quantities if re.fullmatch(_RESOURCE_KEY, k, re.ASCII) is None)
        return f"{key!r} is not a resource", choose(key, _NATIVE) + ", or a domain/name"

    return Rule(
        id=f"resources.{part}.keys",
        at=f"spec.resources.{part}",
        holds=lambda quantities: all(re.fullmatch(_RESOURCE_KEY, key, re.ASCII) for key in quantities),
        cel=f"self.all(k, {matches(_RESOURCE_KEY, 'k')})",
        message="a key is not a resource",
        remedy="cpu, memory, ephemeral-storage, hugepages-<size> or <domain>/<name>",
        explain=explain,
    )


def _is_accelerator(spec: Any, key: str) -> bool:
    asked = spec.accelerator is not None and key == spec.accelerator.resource_name
    return asked or re.fullmatch(_ACCELERATOR_KEY, key, re.ASCII) is not None


def _accelerator_key_rule(part: str) -> Rule:
    def explain(spec: Any) -> tuple[str, str]:
        quantities = getattr(spec.resources, part)
        key = next(k for k in quantities if _is_accelerator(spec, k))
        return f"{key} is an accelerator", f"accelerator: {{resourceName: {key}, count: {quantities[key]}}} would work"

    return Rule(
        id=f"resources.{part}.accelerator",
        at="spec",
        field=f".resources.{part}",
        holds=lambda spec: (
            spec.resources is None or not any(_is_accelerator(spec, k) for k in getattr(spec.resources, part))
        ),
        cel=f"!has(self.resources) || !has(self.resources.{part}) || !self.resources.{part}.exists(k, "
        f"{matches(_ACCELERATOR_KEY, 'k')} || (has(self.accelerator) && k == self.accelerator.resourceName))",
        message="accelerators belong to spec.accelerator",
        remedy="accelerator: {resourceName: nvidia.com/gpu, count: 1} would work",
        explain=explain,
    )


def _cannot_be_overcommitted(key: str) -> bool:
    return "/" in key or key.startswith("hugepages-")


def _over_limit(resources: Any) -> str | None:
    """The first resource that is requested beyond its limit."""
    for key, requested in resources.requests.items():
        value, most = _bytes_of(requested), _bytes_of(resources.limits.get(key))
        if value is not None and most is not None and value > most:
            return str(key)
    return None


def _explain_over_limit(resources: Any) -> tuple[str, str]:
    key = _over_limit(resources) or ""
    requested, limit = resources.requests[key], resources.limits[key]
    return f"{key} requests {requested} and is limited to {limit}", f"limits: {{{key}: {requested}}} would work"


def _overcommitted(resources: Any) -> str | None:
    """The first resource that cannot be overcommitted and whose limit is another one."""
    for key, requested in resources.requests.items():
        if _cannot_be_overcommitted(key) and resources.limits.get(key, requested) != requested:
            return str(key)
    return None


def _explain_overcommitted(resources: Any) -> tuple[str, str]:
    key = _overcommitted(resources) or ""
    return (
        f"{key} cannot be overcommitted: its limit must be the same",
        f"limits: {{{key}: {resources.requests[key]}}} would work",
    )


_REQUEST: Final = "string(self.requests[k])"
_LIMIT: Final = "string(self.limits[k])"

RESOURCE_RULES: Final = (
    _quantity_rule("resources.requests.quantity", "spec.resources.requests[*]", or_integer=True),
    _quantity_rule("resources.limits.quantity", "spec.resources.limits[*]", or_integer=True),
    _keys_rule("requests"),
    _keys_rule("limits"),
    _memory_rule("requests"),
    _memory_rule("limits"),
    _accelerator_key_rule("requests"),
    _accelerator_key_rule("limits"),
    Rule(
        id="resources.requests.limits",
        at="spec.resources",
        field=".requests",
        holds=lambda resources: _over_limit(resources) is None,
        cel="!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits)"
        f" || !isQuantity({_REQUEST}) || !isQuantity({_LIMIT}) || quantity({_REQUEST}).compareTo(quantity({_LIMIT})) <= 0)",
        message="a resource requests more than its limit",
        remedy="raise limits to requests",
        explain=_explain_over_limit,
    ),
    Rule(
        id="resources.requests.overcommitted",
        at="spec.resources",
        field=".requests",
        holds=lambda resources: _overcommitted(resources) is None,
        cel="!has(self.requests) || self.requests.all(k, !(k.contains('/') || k.startsWith('hugepages-'))"
        f" || !has(self.limits) || !(k in self.limits) || {_REQUEST} == {_LIMIT})",
        message="a resource that cannot be overcommitted has another limit",
        remedy="write the same quantity under limits",
        explain=_explain_overcommitted,
    ),
    _quantity_rule("resources.sharedMemory.quantity", "spec.resources.sharedMemory"),
    _size_rule("resources.sharedMemory.size", "spec.resources.sharedMemory"),
    Rule(
        id="resources.sharedMemory.limit",
        at="spec.resources",
        field=".sharedMemory",
        holds=lambda resources: (
            (shared := _bytes_of(resources.shared_memory)) is None
            or (limit := _bytes_of(resources.limits.get("memory"))) is None
            or shared < limit
        ),
        cel=f"!has(self.sharedMemory) || !{matches(QUANTITY_PATTERN, 'self.sharedMemory')} || !has(self.limits)"
        f" || !('memory' in self.limits) || !isQuantity(string(self.limits['memory']))"
        " || quantity(self.sharedMemory).compareTo(quantity(string(self.limits['memory']))) < 0",
        message="counts against limits.memory and leaves nothing of it",
        remedy="raise limits.memory or take 2Gi",
    ),
)

ACCELERATOR_RULES: Final = (
    pattern_rule(
        "accelerator.resourceName.format",
        "spec.accelerator.resourceName",
        _RESOURCE_NAME,
        "is not an extended resource: <domain>/<name>",
        "nvidia.com/gpu would work, or amd.com/gpu",
        explain=lambda name: (
            f"{name!r} is not an extended resource: <domain>/<name>",
            ("amd.com/gpu" if "amd" in name.lower() or "rocm" in name.lower() else "nvidia.com/gpu") + " would work",
        ),
    ),
    pattern_rule(
        "accelerator.products.format",
        "spec.accelerator.products[*]",
        LABEL_VALUE,
        "is not a label value: letters, digits, -, _ and .",
        "write it as the node label does, for instance NVIDIA-H100-80GB-HBM3",
        explain=lambda name: (
            f"{name!r} is not a label value",
            f"{re.sub(r'[^-A-Za-z0-9_.]+', '-', name).strip('-_.') or 'NVIDIA-L4'} would work",
        ),
    ),
    Rule(
        id="accelerator.products.resource",
        at="spec.accelerator",
        field=".products",
        holds=lambda accelerator: (
            not accelerator.products
            or re.fullmatch(_KNOWN_PRODUCT_LABELS, accelerator.resource_name, re.ASCII) is not None
        ),
        cel="!has(self.products) || size(self.products) == 0 || " + matches(_KNOWN_PRODUCT_LABELS, "self.resourceName"),
        message="fairlead knows no node label that names the product of this resource",
        remedy="use spec.pod.nodeSelector or spec.pod.affinity with the label of your nodes",
    ),
    Rule(
        id="accelerator.memoryUtilizationPercent.engine",
        at="spec",
        field=".accelerator.memoryUtilizationPercent",
        holds=lambda spec: (
            spec.engine.type != OLLAMA
            or spec.accelerator is None
            or spec.accelerator.memory_utilization_percent is None
        ),
        cel="self.engine.type != 'Ollama' || !has(self.accelerator) || !has(self.accelerator.memoryUtilizationPercent)",
        message="Ollama takes the memory that the model needs",
        remedy="leave it out; spec.context.maxLength bounds what the KV cache takes",
    ),
)


def _spread(spec: Any) -> int:
    parallelism = spec.parallelism
    return int((parallelism.tensor or 1) * parallelism.pipeline * parallelism.data)


def _checks_product(spec: Any) -> bool:
    return spec.engine.type == VLLM and spec.accelerator is not None and spec.parallelism is not None


def _divides(spec: Any) -> bool:
    return bool(spec.accelerator.count % (spec.parallelism.pipeline * spec.parallelism.data) == 0)


def _explain_product(spec: Any) -> tuple[str, str]:
    parallelism, count = spec.parallelism, spec.accelerator.count
    what = (
        f"tensor {parallelism.tensor} × pipeline {parallelism.pipeline} × data {parallelism.data} is {_spread(spec)}, "
        f"but accelerator.count is {count}"
    )
    return what, f"tensor: {count // (parallelism.pipeline * parallelism.data)} would work"


def _explain_division(spec: Any) -> tuple[str, str]:
    parallelism, count = spec.parallelism, spec.accelerator.count
    rest = parallelism.pipeline * parallelism.data
    up = -(-count // rest) * rest
    return (
        f"accelerator.count {count} cannot be divided by pipeline {parallelism.pipeline} × data {parallelism.data}",
        f"accelerator.count: {up} would work",
    )


_PRODUCT: Final = "self.parallelism.tensor * self.parallelism.pipeline * self.parallelism.data"
_REST: Final = "(self.parallelism.pipeline * self.parallelism.data)"
_NO_PRODUCT: Final = "self.engine.type != 'vLLM' || !has(self.accelerator) || !has(self.parallelism)"

PARALLELISM_RULES: Final = (
    Rule(
        id="parallelism.Ollama",
        at="spec",
        field=".parallelism",
        holds=lambda spec: spec.engine.type != OLLAMA or spec.parallelism is None,
        cel="self.engine.type != 'Ollama' || !has(self.parallelism)",
        message="Ollama spreads the layers over all accelerators by itself",
        remedy="leave it out",
    ),
    Rule(
        id="parallelism.tensor.product",
        at="spec",
        field=".parallelism.tensor",
        holds=lambda spec: (
            not _checks_product(spec)
            or spec.parallelism.tensor is None
            or not _divides(spec)
            or _spread(spec) == spec.accelerator.count
        ),
        cel=f"{_NO_PRODUCT} || !has(self.parallelism.tensor) || self.accelerator.count % {_REST} != 0"
        f" || {_PRODUCT} == self.accelerator.count",
        message="tensor × pipeline × data must be accelerator.count",
        remedy="leave tensor out, it is computed",
        explain=_explain_product,
        cel_message="'tensor × pipeline × data is %d, but accelerator.count is %d; tensor: %d would work'.format("
        f"[{_PRODUCT}, self.accelerator.count, self.accelerator.count / {_REST}])",
    ),
    Rule(
        id="parallelism.division",
        at="spec",
        field=".parallelism",
        holds=lambda spec: not _checks_product(spec) or _divides(spec),
        cel=f"{_NO_PRODUCT} || self.accelerator.count % {_REST} == 0",
        message="accelerator.count must be a multiple of pipeline × data",
        remedy="raise accelerator.count or lower pipeline or data",
        explain=_explain_division,
    ),
)


def _storage_excludes(rule_id: str, field: str, python: str, condition: str, reason: str, *, claimed: bool) -> Rule:
    """A field of storage that means nothing beside another one is refused instead of ignored."""

    def holds(storage: Any) -> bool:
        applies = (storage.claim_name is not None) if claimed else storage.type == "EmptyDir"
        return not (applies and getattr(storage, python))

    given = f"has(self.{field})" + (f" && size(self.{field}) > 0" if field == "accessModes" else "")
    return Rule(
        id=rule_id,
        at="spec.storage",
        field=f".{field}",
        holds=holds,
        cel=f"!({condition}) || !({given})",
        message=reason,
        remedy="leave it out, or take claimName out" if claimed else "type: PersistentVolumeClaim would work",
    )


_CLAIMED: Final = "has(self.claimName)"
_EMPTY_DIR: Final = "self.type == 'EmptyDir'"

STORAGE_RULES: Final = (
    _storage_excludes(
        "storage.claimName.type", "claimName", "claim_name", _EMPTY_DIR, "an EmptyDir has no claim", claimed=False
    ),
    _storage_excludes(
        "storage.storageClassName.type",
        "storageClassName",
        "storage_class_name",
        _EMPTY_DIR,
        "an EmptyDir has no class",
        claimed=False,
    ),
    _storage_excludes(
        "storage.accessModes.type",
        "accessModes",
        "access_modes",
        _EMPTY_DIR,
        "an EmptyDir has no access modes",
        claimed=False,
    ),
    _storage_excludes(
        "storage.size.claimName", "size", "size", _CLAIMED, "the existing claim has its size already", claimed=True
    ),
    _storage_excludes(
        "storage.storageClassName.claimName",
        "storageClassName",
        "storage_class_name",
        _CLAIMED,
        "the existing claim has its class already",
        claimed=True,
    ),
    _storage_excludes(
        "storage.accessModes.claimName",
        "accessModes",
        "access_modes",
        _CLAIMED,
        "the existing claim has its access modes already",
        claimed=True,
    ),
    Rule(
        id="storage.size.required",
        at="spec.storage",
        field=".size",
        holds=lambda storage: storage.type == "EmptyDir" or storage.claim_name is not None or storage.size is not None,
        cel="self.type == 'EmptyDir' || has(self.claimName) || has(self.size)",
        message="is required for a new claim",
        remedy="for instance size: 200Gi, or claimName of an existing claim",
    ),
    _quantity_rule("storage.size.quantity", "spec.storage.size"),
    _size_rule("storage.size.bytes", "spec.storage.size"),
    Rule(
        id="storage.accessModes.pod",
        at="spec.storage",
        field=".accessModes",
        holds=lambda storage: "ReadWriteOncePod" not in storage.access_modes or len(storage.access_modes) == 1,
        cel="!has(self.accessModes) || !('ReadWriteOncePod' in self.accessModes) || size(self.accessModes) == 1",
        message="ReadWriteOncePod stands alone",
        remedy="leave the other modes out",
    ),
    Rule(
        id="storage.accessModes.replicas",
        at="spec",
        field=".storage.accessModes",
        holds=lambda spec: (
            spec.replicas <= 1 or spec.storage is None or "ReadWriteOncePod" not in spec.storage.access_modes
        ),
        cel="self.replicas <= 1 || !has(self.storage) || !has(self.storage.accessModes)"
        " || !('ReadWriteOncePod' in self.storage.accessModes)",
        message="ReadWriteOncePod serves one replica only",
        remedy="ReadWriteMany would work, or replicas: 1",
    ),
)

RULES: Final = (*RESOURCE_RULES, *ACCELERATOR_RULES, *PARALLELISM_RULES, *STORAGE_RULES)
