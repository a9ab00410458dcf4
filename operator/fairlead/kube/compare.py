"""Whether an object on the API server already is what we want, so that nothing need be sent (law 3).

Two questions with one answer each. *Did our wish change?* The digest of the desired body against the annotation of the
last apply: finds removed fields, which the live object cannot show. *Did somebody else change it?* `first_difference`:
every field that we set must have our value in the live object; what others or defaulting added is not ours to judge.

Lists follow the API's own merge rules: containers, env, ports, volumes and mounts are maps by key, so foreign entries
(an injected sidecar) and order do not count; all other lists are atomic. Quantities are compared as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from fairlead.api.quantity import parse_live_quantity
from fairlead.facts.digest import digest_of

Json = Mapping[str, Any]
Path = tuple[str | int, ...]

#: Lists that the API merges by key: field name -> the candidate key tuples, first one that all items carry wins.
#: (`x-kubernetes-list-map-keys` of Kubernetes 1.34-1.37; defaults as the API fills them in, see `_KEY_DEFAULTS`.)
_LIST_MAP_KEYS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "ephemeralContainers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "imagePullSecrets": (("name",),),
    "resourceClaims": (("name",),),
    "claims": (("name",),),
    "schedulingGates": (("name",),),
    "volumeMounts": (("mountPath",),),
    "volumeDevices": (("devicePath",),),
    "hostAliases": (("ip",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "ownerReferences": (("uid",),),
    "conditions": (("type",),),
}
_KEY_DEFAULTS: Final = {"protocol": "TCP"}
#: Lists named `ports` that are atomic all the same: those of NetworkPolicy rules.
_ATOMIC_PORTS_PARENTS: Final = frozenset({"ingress", "egress"})
#: Maps that the API treats as one value: an extra key in them is a difference too.
_ATOMIC_MAPS: Final = frozenset({"nodeSelector", "matchLabels"})
#: Where a value is a quantity ("1000m" and "1" are the same there).
_QUANTITY_PARENTS: Final = frozenset(
    {"requests", "limits", "capacity", "hard", "overhead", "default", "defaultRequest"}
)
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "divisor"})
#: Fields that Go omits when they are false or 0, so that absence and our false or 0 are one. A pointer field (enableServiceLinks,
#: replicas, …) is not among them: there absence has a default of its own.
_ABSENT_IS_ZERO: Final = frozenset(
    {
        "hostNetwork", "hostPID", "hostIPC", "readOnly", "stdin", "stdinOnce", "tty", "paused", "minReadySeconds",
        "publishNotReadyAddresses", "initialDelaySeconds",
    }
)  # fmt: skip
_EMPTY: Final[tuple[Any, ...]] = (None, "", {}, [], ())


def fingerprint(live: Json) -> str:
    """128 bits over what an apply can change of a live object: all but status, resourceVersion, generation and managedFields."""
    metadata = live.get("metadata") or {}
    kept = {key: metadata[key] for key in ("uid", "labels", "annotations", "ownerReferences") if key in metadata}
    rest = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    return digest_of({"metadata": kept, **rest})


def is_covered(desired: Json, live: Json) -> bool:
    """True when every field of `desired` has that value in `live`."""
    return first_difference(desired, live) is None


def first_difference(desired: Json, live: Json) -> str | None:
    """The dotted path of the first field whose value in `live` is not the desired one, or None."""
    path = _compare(desired, live, ())
    return None if path is None else _format(path)


def clashing_lists(desired: Json, live: Json) -> frozenset[str]:
    """Lists right under `spec` in which an entry of ours was given another key by hand.

    Whoever edits a Service's port 80 to 81 made, in the merge's eyes, another entry: ours would come back beside it under
    the same name, and the server refuses two of one name. Such a list cannot be put right by an apply, only replaced.
    """
    wanted, found = (desired.get("spec") or {}).get("ports"), (live.get("spec") or {}).get("ports")
    if not wanted or not found:
        return frozenset()
    keys = _merge_keys(wanted, ("spec", "ports"))
    if keys is None or "port" not in keys:
        return frozenset()
    key_of = _key_function(keys)
    ours, names = {key_of(port) for port in wanted}, {port.get("name") for port in wanted}
    clash = any(port.get("name") in names and key_of(port) not in ours for port in found)
    return frozenset({"ports"}) if clash else frozenset()


def _format(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _compare(desired: Any, live: Any, path: Path) -> Path | None:
    if isinstance(desired, Mapping):
        return _compare_mapping(desired, live, path)
    if isinstance(desired, (list, tuple)):
        return _compare_list(desired, live, path)
    if desired is live or (desired == live and isinstance(desired, bool) == isinstance(live, bool)):
        return None
    if live is None and _is_absence(desired, path):
        return None
    if _is_quantity(path) and _same_quantity(desired, live):
        return None
    return path


def _compare_mapping(desired: Json, live: Any, path: Path) -> Path | None:
    if not isinstance(live, Mapping):
        return (
            None if live is None and all(_is_absence(value, (*path, key)) for key, value in desired.items()) else path
        )
    if _is_atomic_map(path, desired) and set(live) - set(desired):
        return path
    for key, value in desired.items():
        different = _compare(value, live.get(key), (*path, key))
        if different is not None:
            return different
    return None


def _compare_list(desired: Sequence[Any], live: Any, path: Path) -> Path | None:
    if live is None:
        return None if not desired else path
    if not isinstance(live, (list, tuple)):
        return path
    keys = _merge_keys(desired, path)
    pairs: Iterable[tuple[Any, Any]]
    if keys is None:
        if len(desired) != len(live):
            return path
        pairs = zip(desired, live, strict=True)
    else:
        key_of = _key_function(keys)
        by_key = {key_of(item): item for item in live if isinstance(item, Mapping)}
        pairs = ((item, by_key.get(key_of(item))) for item in desired)
    for index, (wanted, found) in enumerate(pairs):
        different = _compare(wanted, found, (*path, index))
        if different is not None:
            return different
        if keys is not None and found is None:
            return (*path, index)
    return None


def _merge_keys(items: Sequence[Any], path: Path) -> tuple[str, ...] | None:
    name = path[-1] if path else ""
    candidates = _LIST_MAP_KEYS.get(name) if isinstance(name, str) else None
    if not candidates or not all(isinstance(item, Mapping) for item in items):
        return None
    if name == "ports" and _ATOMIC_PORTS_PARENTS.intersection(path):
        return None
    for keys in candidates:
        if all(key in item or key in _KEY_DEFAULTS for item in items for key in keys):
            return keys
    return None


def _key_function(keys: tuple[str, ...]) -> Callable[[Json], tuple[Any, ...]]:
    return lambda item: tuple(item.get(key, _KEY_DEFAULTS.get(key)) for key in keys)


def _is_atomic_map(path: Path, desired: Json) -> bool:
    if not path:
        return False
    # Service.spec.selector is an atomic map of strings; a LabelSelector of the same name holds matchLabels, which is one.
    is_plain_selector = path[-1] == "selector" and all(isinstance(value, str) for value in desired.values())
    return path[-1] in _ATOMIC_MAPS or (is_plain_selector and bool(desired))


def _is_absence(desired: Any, path: Path) -> bool:
    if isinstance(desired, Mapping):
        return all(_is_absence(value, (*path, key)) for key, value in desired.items())
    if any(desired is empty or (type(desired) is type(empty) and desired == empty) for empty in _EMPTY):
        return True
    return desired in (False, 0) and bool(path) and path[-1] in _ABSENT_IS_ZERO


def _is_quantity(path: Path) -> bool:
    return path[-1] in _QUANTITY_FIELDS or (len(path) > 1 and path[-2] in _QUANTITY_PARENTS)


def _same_quantity(desired: Any, live: Any) -> bool:
    if isinstance(desired, bool) or isinstance(live, bool):
        return False
    try:
        return parse_live_quantity(str(desired)) == parse_live_quantity(str(live))
    except ValueError:
        return False
