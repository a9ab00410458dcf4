"""Compares what the files say (`envoy_reader`) with what the law says (`truth`). Knows both and nothing of fairlead.

A violation is one line of text: what was asked, what the law says, what the gateway does.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tests.law.addresses import Facts, local_facts, provider_facts
from tests.law.envoy_reader import Gateway, Reached, Refused, Unreadable
from tests.law.truth import CLASS_RULE, CLASSES, ENDPOINTS, Law, Request, Ruling, Target, attempts, rank

__all__ = ["ATTACKS", "Judge"]

Json = Mapping[str, Any]
#: How the targets of one priority are to be called (None: they do not speak the endpoint): who is asked first with which share (empty:
#: nobody is drawn), and all of them.
Step = tuple[Counter[tuple[Facts | None, int]], Counter[Facts | None]]

#: What reached a provider with its key before there was a law (research/review.md, section 0), and what looks like an endpoint.
ATTACKS: Final = (
    "/v1/fine_tuning/jobs", "/v1/assistants", "/v1/batches", "/v1/organization/admin_api_keys", "/v1/load_lora_adapter",
    "/v1/realtime/sessions", "/v1/realtime", "/v1/files", "/v1/threads", "/v1/vector_stores", "/v1/audio/transcriptions",
    "/v1/images/generations", "/v1/moderations", "/v1/unload_lora_adapter", "/v1/chat/completions/", "/v1/chat/completions/x",
    "/v1/chat/completionsx", "/v1/chat", "/v1/", "/v1", "/", "", "/metrics", "/generation", "/api/chat", "/api/pull", "/tokenize",
    "/V1/CHAT/COMPLETIONS", "//v1/chat/completions", "/v1/chat/completions%2f", "/v1/chat/completions/../../files", "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel", "/v1/conversations", "/v1/messages/batches", "/v1/models/gpt", "/openai/v1/chat/completions",
)  # fmt: skip
#: Marks that mean no class.
BAD_MARKS: Final = (None, "", "public", "PUBLIC", "Public ", "Public|Internal", "PublicX", "XPublic", "Secret", ".*")


class Judge:
    """One route in one world, and the files that were rendered for it."""

    def __init__(self, route: Json, world: Json, files: Mapping[str, str]) -> None:
        self.law = Law(route, world)
        self.gateway = Gateway(files)
        self._facts: dict[tuple[str, str, str], Facts | None] = {}

    def facts(self, backend: str, model: str, path: str) -> Facts | None:
        """How a target must be called; None if it does not speak this endpoint."""
        key = (backend, model, path)
        if key not in self._facts:
            self._facts[key] = self._make_facts(*key)
        return self._facts[key]

    def _make_facts(self, name: str, model: str, path: str) -> Facts | None:
        backend = self.law.backends[name]
        if "provider" in backend:
            return provider_facts(name, backend["provider"], path, model)
        found = self.law.world["deployments"][backend["deployment"]["name"]]
        return local_facts(backend["deployment"]["name"], found["port"], path, model, is_tls=found["tls"])

    # One request ------------------------------------------------------------------------------------------------------------

    def check(self, request: Request, ruling: Ruling) -> str:
        """What is wrong with what the gateway does with a request; "" if nothing is."""
        try:
            reached = self.gateway.ask(
                request.consumer, request.model, request.declared, request.found, request.opaque, request.method, request.path,
                request.stream,
            )  # fmt: skip
            problem = self._compare(request, ruling, reached)
        except (Unreadable, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        return f"{request}: {problem}" if problem else ""

    def _compare(self, request: Request, ruling: Ruling, reached: Reached) -> str:
        if ruling.statuses:
            if reached.status in ruling.statuses:
                return ""
            return f"must be {sorted(ruling.statuses)}, is {reached.status or [_names(g) for g in reached.attempts]}"
        if reached.status is not None:
            return f"must reach {[t.backend for t in ruling.tried]}, is {reached.status}"
        if reached.mark not in ruling.classes:
            return f"is {ruling.classes}, is marked {reached.mark}"
        wanted = self._wanted(request.model, ruling.tried, request.path)
        if not _follows(wanted, reached):
            got = [_names(group) for group in reached.attempts]
            return f"must try {[[*map(str, members)] for _, members in wanted]}, tries {got}"
        return ""

    def _wanted(self, model: str, tried: Sequence[Target], path: str) -> list[Step]:
        def facts(target: Target) -> Facts | None:
            return self.facts(target.backend, target.model, path)

        return [
            (Counter((facts(target), weight) for target, weight in shares), Counter(map(facts, members)))
            for shares, members in attempts(tried, comes_back=self.law.comes_back(model, tried))
        ]

    # The walls --------------------------------------------------------------------------------------------------------------

    def walls(self) -> Iterator[str]:
        """What is wrong whoever asks: without a mark, at other paths, and at the egress side by itself."""
        try:
            yield from self._without_mark()
            yield from self._other_paths()
            yield from self._egress()
            yield from self._own_places()
            yield from self._patterns()
        except (Unreadable, KeyError) as error:
            yield f"{type(error).__name__}: {error}"

    def _without_mark(self) -> Iterator[str]:
        chains = {key.partition("|")[0] for key in self.gateway.keys}
        profiles = set(self.gateway.lookup["verdicts"])
        keys = ["-|-", "", "|", "-|true", "-|false", "|true", "models|-", "models|", "models|true"]
        keys += [key for chain in sorted(chains) for key in (chain, f"{chain}|-", f"{chain}|", f"{chain}|TRUE")]
        for key in keys:
            reached = self.gateway.reach(key, "Public", ENDPOINTS[0])
            if reached.status != 403 or reached.attempts:
                yield f"the key {key!r} must be denied, gets {reached}"
        for profile in sorted(profiles):
            reached = self.gateway.reach(f"models|{profile}", None, "/v1/models")
            if reached.status != 200 or reached.attempts:
                yield f"the list of models is {reached}"

    def _other_paths(self) -> Iterator[str]:
        for path in ATTACKS:
            for method in ("POST", "GET", "PUT", "DELETE"):
                for caller in (None, *self.gateway.lookup["consumers"], "whoever"):
                    reached = self.gateway.ask(
                        caller, next(iter(self.law.models)), None, (), False, method, path, False
                    )
                    if reached.status not in (401, 403, 404):
                        yield f"{method} {path} of {caller} gets {reached}"

    def _egress(self) -> Iterator[str]:
        for domain in ("*", "", "localhost", "api.openai.com", "x.attempt", "6d.x.y.cloud"):
            if not isinstance(self.gateway.ask_egress(domain, "POST", ENDPOINTS[0], "Public"), Refused):
                yield f"the egress side forwards for the host {domain!r}"
        for domain in self.gateway.egress_hosts:
            yield from self._egress_host(domain)

    def _egress_host(self, domain: str) -> Iterator[str]:
        """For each class: at most the endpoints of one backend that may take it, and nothing for anything else."""
        asked = [("POST", path, mark) for path in ENDPOINTS for mark in (*CLASSES, *BAD_MARKS)]
        asked += [("GET", path, mark) for path in ENDPOINTS for mark in CLASSES]
        asked += [("POST", path, mark) for path in ATTACKS for mark in CLASSES]
        for idle in self.gateway.idles:
            for method, path, mark in asked:
                hop = self.gateway.ask_egress(domain, method, path, mark, idle)
                if isinstance(hop, Facts) and not self._may_leave(hop, method, path, mark):
                    yield f"{method} {path} with the class {mark!r} leaves from {domain} to {hop}"

    def _may_leave(self, hop: Facts, method: str, path: str, mark: str | None) -> bool:
        """Whether some backend of the route may take it so. Its own name for the model does not matter here."""
        if method != "POST" or path not in ENDPOINTS or mark not in CLASSES:
            return False
        return any(
            CLASS_RULE[self.law.kinds[name]][rank(mark)] and self.facts(name, hop.model, path) == hop
            for name in self.law.there
        )

    def _own_places(self) -> Iterator[str]:
        """Each attempt's virtual host belongs to one target of the route, and each class of its backend is let through."""
        targets = {
            (t.backend, t.model)
            for model in self.law.models
            for t in self.law.targets(model)
            if t.backend in self.law.there
        }
        for domain, idle in itertools.product(self.gateway.egress_hosts, self.gateway.idles):
            for data_class in CLASSES:
                reached = {self.gateway.ask_egress(domain, "POST", path, data_class, idle) for path in ENDPOINTS}
                facts = {hop for hop in reached if isinstance(hop, Facts)}
                owners = [t for t in targets if facts == self._places(t, data_class)]
                if not owners:
                    yield f"the host {domain} with the class {data_class} leads to {facts}, which is no target's place"

    def _patterns(self) -> Iterator[str]:
        """Each pattern is looked for as it is written, anywhere in the text, and counts as its detector says."""
        wanted = {
            (detector["class"], detector["name"], rf"\C*(?m:{pattern})\C*")
            for detector in self.law.policy.get("detectors", ())
            for pattern in detector.get("patterns", ())
        }
        if set(self.gateway.patterns) != wanted:
            yield f"the patterns are {self.gateway.patterns}, not {wanted}"

    def _places(self, target: tuple[str, str], data_class: str) -> set[Facts]:
        if not self.law.class_permits(target[0], data_class):
            return set()
        return {facts for path in ENDPOINTS if (facts := self.facts(*target, path)) is not None}

    def lists(self, consumer: str | None, requests: Sequence[Request]) -> str:
        """What is wrong with the list of models that a caller gets."""
        reached = self.gateway.ask(consumer, "", None, (), False, "GET", "/v1/models", False)
        if self.law.roles_of(consumer) is None:
            return "" if reached.status == 401 else f"nobody is listed models for: {reached}"
        listed = {entry["id"] for entry in json.loads(reached.body)["data"]} if reached.status == 200 else set()
        wanted = self.law.lists(consumer, requests)
        return "" if listed == wanted else f"{consumer} is shown {sorted(listed)}, not {sorted(wanted)}"


def _follows(wanted: Sequence[Step], reached: Reached) -> bool:
    """Whether the attempts are these, in this order. Those that do not speak the endpoint are tried in vain: the second wall refuses
    them, and may refuse nobody else, since the first wall lets nothing else so far."""
    rest = [[(m if isinstance(m, Facts) else None, weight) for m, weight in group] for group in reached.attempts]
    for shares, members in wanted:
        taken, rest = rest[: members.total()], rest[members.total() :]
        if not taken:
            return False
        # One draw counts for all attempts: only with the same weights everywhere does it fall into one column.
        weights = [[weight for _, weight in group] for group in taken]
        if any(row != weights[0] for row in weights) or (not shares and len(weights[0]) != 1):
            return False
        if shares and Counter(taken[0]) != shares:
            return False
        if any(Counter(m for m, _ in column) != members for column in zip(*taken, strict=True)):
            return False
    return not rest


def _names(group: Iterable[tuple[Facts | Refused, int]]) -> list[str]:
    return [f"{m.addresses[0][0]}/{m.model}×{weight}" if isinstance(m, Facts) else f"{m}" for m, weight in group]
