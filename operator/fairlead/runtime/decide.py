"""The real planner: parse, then plan; in this process for the engines that come with fairlead, in a bounded one for others.

An engine from a ConfigMap is a template that somebody wrote: it may loop, or ask for all memory there is. So a custom
resource that uses one is planned in the sandbox, and one that takes too long stalls with the reason, alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NoReturn

from fairlead.api import names
from fairlead.api.resource import Finding, LLMDeployment, Metadata
from fairlead.api.validation import parse_llmdeployment
from fairlead.config import OperatorConfig
from fairlead.engines.loader import Engine, EngineCatalog
from fairlead.errors import EngineTemplateError
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.kube.resources import CONFIG_MAP
from fairlead.planning.deployment import Blueprint, Draw, draw_blueprint, plan_deployment, plan_invalid
from fairlead.planning.plan import Plan
from fairlead.runtime.carrying import find_gateway
from fairlead.runtime.certificates import Certificates, Issuer
from fairlead.runtime.sandbox import Sandbox, SandboxError

#: The one key of an engine's ConfigMap.
ENGINE_KEY: Final = "engine.yaml.j2"

#: Verdicts on specs and their blueprints, some 12 kB together for each custom resource. Enough for those that are under way at once.
SPECS_KEPT: Final = 1024
#: Those that still have their bodies, 25 kB more. They are read while children are applied, and then seldom.
BLUEPRINTS_OPEN: Final = 64

Overrides = Mapping[str, tuple[str, str]]  # engine's name -> (what messages call its source, its text)


def decide(
    raw: Mapping[str, Any], observed: Observed, overrides: Overrides, facts: OperatorFacts, now: datetime
) -> Plan:
    """The plan for one custom resource as the API server has it, in this process."""
    return _decide(raw, observed, _catalog(overrides), facts, now)


def _catalog(overrides: Overrides) -> EngineCatalog:
    engines = EngineCatalog.builtin()
    return engines.with_overrides(overrides) if overrides else engines


class ParsedSpecs:
    """The verdict on the newest spec of each object. A spec cannot change without its generation, and most passes are about the
    same one again. Of objects that are not asked for any more, the oldest go first."""

    def __init__(self, kept: int = SPECS_KEPT) -> None:
        self._kept = kept
        self._parsed: OrderedDict[str, tuple[int, LLMDeployment | tuple[Finding, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parsed)

    def parse(self, raw: Mapping[str, Any]) -> LLMDeployment | tuple[Finding, ...]:
        """As `parse_llmdeployment`, with this object's own metadata and status."""
        metadata = Metadata.of(raw)
        generation, parsed = self._parsed.pop(metadata.uid, (-1, ()))
        if generation != metadata.generation:
            parsed = parse_llmdeployment({**raw, "status": {}})
        self._parsed[metadata.uid] = (metadata.generation, parsed)
        if len(self._parsed) > self._kept:
            self._parsed.popitem(last=False)
        if isinstance(parsed, LLMDeployment):
            return replace(parsed, metadata=metadata, status=raw.get("status") or {})
        return parsed


class Blueprints:
    """The blueprints that were asked for last, and of those before the last few what is left when their bodies are let go."""

    def __init__(self, kept: int = SPECS_KEPT, kept_open: int = BLUEPRINTS_OPEN) -> None:
        self._kept = kept
        self._kept_open = kept_open
        self._drawn: OrderedDict[str, _Drawn] = OrderedDict()
        self._open: OrderedDict[str, Blueprint] = OrderedDict()

    def draw(self, resource: LLMDeployment, engines: EngineCatalog, facts: OperatorFacts) -> Blueprint:
        """As `draw_blueprint`. Another generation, number of replicas, engine file or other facts make another blueprint."""
        metadata, engine = resource.metadata, engines.get(resource.spec.engine.type)
        drawn = self._drawn.get(metadata.uid)
        replicas = resource.replicas
        if drawn is None or not drawn.is_of(metadata.generation, replicas, engine, facts):
            drawn = _Drawn(metadata.generation, replicas, engine, facts, draw_blueprint(resource, engines, facts))
            self._drawn[metadata.uid] = drawn
        self._drawn.move_to_end(metadata.uid)
        if len(self._drawn) > self._kept:
            self._drawn.popitem(last=False)
        self._keep_open(metadata.uid, drawn.blueprint)
        return drawn.blueprint

    def _keep_open(self, uid: str, blueprint: Blueprint) -> None:
        self._open.pop(uid, None)
        self._open[uid] = blueprint
        if len(self._open) > self._kept_open:
            _, oldest = self._open.popitem(last=False)
            oldest.let_go()


@dataclass(frozen=True, slots=True)
class _Drawn:
    generation: int
    replicas: int
    engine: Engine
    facts: OperatorFacts
    blueprint: Blueprint

    def is_of(self, generation: int, replicas: int, engine: Engine, facts: OperatorFacts) -> bool:
        same_spec = self.generation == generation and self.replicas == replicas
        return same_spec and self.engine is engine and self.facts == facts


def _decide(
    raw: Mapping[str, Any],
    observed: Observed,
    engines: EngineCatalog,
    facts: OperatorFacts,
    now: datetime,
    parse: Callable[[Mapping[str, Any]], LLMDeployment | tuple[Finding, ...]] = parse_llmdeployment,
    draw: Draw = draw_blueprint,
) -> Plan:
    parsed = parse(raw)
    if isinstance(parsed, LLMDeployment):
        return plan_deployment(parsed, observed, engines, facts, now, draw)
    return plan_invalid(raw, parsed, observed, now)


class _StoppedEngines(EngineCatalog):
    """A catalog whose engines cannot be rendered, because the sandbox had to stop one. `texts` has the source and why."""

    def get(self, name: str) -> Engine:
        source, reason = self.texts[name]
        _stop(source, reason)


def _stop(source: str, reason: str) -> NoReturn:
    raise EngineTemplateError(f"{source}:1: {reason}")


class DeploymentPlanner:
    """Plans LLMDeployments with the engines that the operator's namespace holds at that moment."""

    def __init__(
        self, config: OperatorConfig, cache: Cache, sandbox: Sandbox, make_issuer: Callable[[], Issuer]
    ) -> None:
        self._namespace = config.namespace
        self._cache = cache
        self._specs = ParsedSpecs()
        self._blueprints = Blueprints()
        self._sandbox = sandbox
        self._facts = config.facts
        self._certificates = Certificates(make_issuer)

    async def plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        """The plan. Takes as long as the sandbox allows at most when the engine is somebody's own. Keys of certificates are not among what
        is planned with, so that no template comes near one."""
        certificate = await self._certificates.prepare(raw, observed, now)
        return certificate.complete(await self._plan(raw, certificate.show(observed), now))

    async def _plan(self, raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        overrides = self._overrides()
        engine = _engine_of(raw)
        observed = replace(observed, gateway=find_gateway(self._cache, raw, self._facts.local_images))
        if engine not in overrides:
            # The names of the others still count: they are what a message about an unknown engine offers.
            return _decide(
                raw, observed, _catalog(overrides), self._facts, now, self._specs.parse, self._blueprints.draw
            )
        source, text = overrides[engine]
        if not text:
            return self._stall(raw, observed, source, f"the ConfigMap has no key {ENGINE_KEY}", engine, now)
        try:
            return await self._sandbox.decide(raw, observed, overrides, self._facts, now)
        except SandboxError as error:
            return self._stall(raw, observed, source, str(error), engine, now)

    async def close(self) -> None:
        """End the sandbox's process."""
        await self._sandbox.close()

    def _stall(
        self, raw: Mapping[str, Any], observed: Observed, source: str, reason: str, engine: str, now: datetime
    ) -> Plan:
        return _decide(raw, observed, _StoppedEngines({engine: (source, reason)}), self._facts, now)

    def _overrides(self) -> dict[str, tuple[str, str]]:
        overrides: dict[str, tuple[str, str]] = {}
        for key in sorted(self._cache.keys(CONFIG_MAP.kind, self._namespace)):
            entry = self._cache.get(key)
            assert entry is not None
            if entry.owner is not None:
                continue  # the routing of a gateway, which may have a megabyte
            config_map = entry.load()
            name = (config_map["metadata"].get("labels") or {}).get(names.LABEL_ENGINE)
            if name and name not in overrides:
                text = str((config_map.get("data") or {}).get(ENGINE_KEY, ""))
                overrides[name] = (f"ConfigMap {key.namespace}/{key.name} {ENGINE_KEY}", text)
        return overrides


def _engine_of(raw: Mapping[str, Any]) -> str:
    engine = (raw.get("spec") or {}).get("engine")
    return str(engine.get("type", "")) if isinstance(engine, Mapping) else ""


def make_planner(config: OperatorConfig, cache: Cache, client: ApiClient) -> DeploymentPlanner:
    """What `fairlead run` decides with."""

    def make_issuer() -> Issuer:
        from fairlead.runtime.authority import CertificateAuthority

        return CertificateAuthority(config.namespace, cache, client)

    return DeploymentPlanner(config, cache, Sandbox(), make_issuer)
