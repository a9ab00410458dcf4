"""What the runtime must know of a kind of custom resource, and the table of the kinds that it serves.

Everything else in this folder is written for any kind: queue, cache, applier and status writer know a custom resource by its
ObjectKey, and look here for what makes its kind another one than the next. A new kind is one more row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fairlead.api import names
from fairlead.config import OperatorConfig
from fairlead.facts.observed import ObjectKey
from fairlead.gateway.envoy import GatewaySettings
from fairlead.kube.cache import Cache, Change
from fairlead.kube.client import ApiClient
from fairlead.kube.informer import Selection
from fairlead.kube.resources import (
    CHILD_RESOURCES,
    CONFIG_MAP,
    HORIZONTAL_POD_AUTOSCALER,
    LLMDEPLOYMENT,
    LLMROUTE,
    NODE,
    ROUTE_CHILD_RESOURCES,
    SECRET,
    Resource,
)
from fairlead.planning.deployment.metadata import describe_taken
from fairlead.planning.route import metadata as route_metadata
from fairlead.runtime.carrying import find_concerned_carriers
from fairlead.runtime.certificates import is_issued_to
from fairlead.runtime.decide import make_planner
from fairlead.runtime.planner import Planner
from fairlead.runtime.refusals import LLMDEPLOYMENT_PATHS, FieldPaths
from fairlead.runtime.routes import RoutePlanner, find_concerned_routes
from fairlead.runtime.scaling import find_scaled
from fairlead.sources.gateway import GatewaySource

#: A change of any object in the cache, whoever made it -> the custom resources of the kind that it concerns though it is not of their
#: own (changes of children and pods reach their owner by themselves). Keys of resources that do not exist are passed over. It is
#: asked at each change, so it must look at the change's kind first; it decides nothing and must not raise.
Concerned = Callable[[Change, Cache], Iterable[ObjectKey]]

#: A child's key and the live object of somebody else that has its name -> what status says of it. The planner of the kind says the
#: same: whoever of the two finds it out, status is written once.
DescribeTaken = Callable[[ObjectKey, Mapping[str, Any]], str]


def _nobody(_: Change, __: Cache) -> Iterable[ObjectKey]:
    return ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of custom resource. Its name must be in `names.OWNER_LABELS` and its resource in `resources.BY_KIND`.

    `field_manager` is of this kind alone (law 2). `children` are the resources that a plan may hold: they are watched wherever they
    carry our managed-by label, and pods with them. `watches` is what else the cache must hold for the planner or for `concerned`.
    `is_needed`: without its CRD nothing is served at all. `has_nudges`: its plans may hold some.
    """

    resource: Resource
    field_manager: str
    planner: Planner
    children: tuple[Resource, ...]
    describe_taken: DescribeTaken
    paths: FieldPaths = ()  # from fields of children to those of the custom resource, for what the API server says of children
    watches: tuple[Selection, ...] = ()
    concerned: Concerned = _nobody
    is_needed: bool = True
    has_nudges: bool = False

    @property
    def name(self) -> str:
        """As manifests spell it."""
        return self.resource.kind

    @property
    def label(self) -> str:
        """The label on children and pods whose value is the custom resource's name."""
        return names.OWNER_LABELS[self.name]


#: By name.
Kinds = Mapping[str, Kind]


def by_name(*kinds: Kind) -> Kinds:
    """The table of these kinds."""
    return {kind.name: kind for kind in kinds}


def make_kinds(config: OperatorConfig, cache: Cache, client: ApiClient) -> Kinds:
    """The kinds that `fairlead run` serves. Planners decide from the cache; the client is for one that must read beside it."""
    source = GatewaySource(GatewaySettings().status_port)
    return by_name(
        make_llmdeployment(config, make_planner(config, cache, client)),
        make_llmroute(config, RoutePlanner(config, cache, client, source)),
    )


def make_llmdeployment(config: OperatorConfig, planner: Planner) -> Kind:
    """LLMDeployment's row."""
    return Kind(
        resource=LLMDEPLOYMENT,
        field_manager=names.FIELD_MANAGER_LLMDEPLOYMENT,
        planner=planner,
        children=CHILD_RESOURCES,
        describe_taken=describe_taken,
        paths=LLMDEPLOYMENT_PATHS,
        watches=(
            Selection(CONFIG_MAP, config.namespace, names.LABEL_ENGINE),
            Selection(SECRET, config.namespace, name=names.AUTHORITY_SECRET, metadata_only=True),
            *(Selection(HORIZONTAL_POD_AUTOSCALER, namespace) for namespace in (config.watch_namespaces or (None,))),
            *((Selection(NODE, is_needed=False),) if config.nodes != "Ignored" else ()),
        ),
        concerned=partial(find_concerned_llmdeployments, config.namespace),
    )


def make_llmroute(config: OperatorConfig, planner: Planner) -> Kind:
    """LLMRoute's row."""
    return Kind(
        resource=LLMROUTE,
        field_manager=names.FIELD_MANAGER_LLMROUTE,
        planner=planner,
        children=ROUTE_CHILD_RESOURCES,
        describe_taken=route_metadata.describe_taken,
        watches=tuple(
            Selection(resource, namespace, names.LABEL_USE, metadata_only=resource is SECRET)
            for namespace in (config.watch_namespaces or (None,))
            for resource in (SECRET, CONFIG_MAP)
        ),
        concerned=find_concerned_routes,
        is_needed=False,
        has_nudges=True,
    )


def find_concerned_llmdeployments(home: str, change: Change, cache: Cache) -> Iterator[ObjectKey]:
    """Those whose engine's ConfigMap, in the operator's namespace `home`, changed; all with certificates by its authority when that
    changed; those that carry a gateway of whose route something changed; and those whose plan left a name alone that is free now,
    because the object was somebody else's."""
    yield from find_concerned_carriers(change, cache)
    yield from find_scaled(change)
    entry = change.after or change.before
    if entry is None:
        return
    if entry.key.kind == CONFIG_MAP.kind and entry.key.namespace == home:
        yield from _find_users_of_engines(_read_engine_labels(change), cache)
    elif entry.key == ObjectKey(SECRET.kind, home, names.AUTHORITY_SECRET):
        yield from _find_issued(cache)
    elif change.after is None and any(entry.key.kind == child.kind for child in CHILD_RESOURCES):
        for name in names.possible_owner_names(entry.key.name):
            yield ObjectKey(LLMDEPLOYMENT.kind, entry.key.namespace, name)


def _read_engine_labels(change: Change) -> set[str]:
    """Of the ConfigMap as it was and as it is."""
    entries = (entry for entry in (change.before, change.after) if entry is not None)
    labels = ((entry.load()["metadata"].get("labels") or {}).get(names.LABEL_ENGINE) for entry in entries)
    return {label for label in labels if label}


def _find_users_of_engines(engines: set[str], cache: Cache) -> Iterator[ObjectKey]:
    for key in cache.keys(LLMDEPLOYMENT.kind) if engines else ():
        entry = cache.get(key)
        if entry is not None and ((entry.load().get("spec") or {}).get("engine") or {}).get("type") in engines:
            yield key


def _find_issued(cache: Cache) -> Iterator[ObjectKey]:
    for key in cache.keys(LLMDEPLOYMENT.kind):
        entry = cache.get(key)
        if entry is not None and is_issued_to(entry.load()):
            yield key


def describe_key(key: ObjectKey) -> str:
    """A custom resource on the pages and in the log: `namespace/name`, with the kind before it where it is not an LLMDeployment."""
    named = f"{key.namespace}/{key.name}"
    return named if key.kind == LLMDEPLOYMENT.kind else f"{key.kind} {named}"
