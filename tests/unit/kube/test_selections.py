"""Two informers of one kind in one cache, each with the objects that its labels select: neither drops what is the other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.kube.fake_api import FakeApi, serving
from tests.unit.kube.test_informer import until

from fairlead.api import names
from fairlead.facts.observed import ObjectKey
from fairlead.kube.cache import Cache, Change
from fairlead.kube.informer import Informer, Selection
from fairlead.kube.resources import CONFIG_MAP, SERVICE

HOME = "fairlead-system"
MANAGED = Selection(CONFIG_MAP, None, f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}")
ENGINES = Selection(CONFIG_MAP, HOME, names.LABEL_ENGINE)
OURS = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
ENGINE = {names.LABEL_ENGINE: "mine"}


class Shared:
    """ConfigMaps of the operator's namespace, and both informers at work."""

    def __init__(self, api: FakeApi, cache: Cache, informers: tuple[Informer, ...], changes: list[Change]) -> None:
        self.api, self.cache, self.informers, self.changes = api, cache, informers, changes

    def put(self, name: str, labels: dict[str, str], namespace: str = HOME) -> None:
        self.api.put(
            f"/api/v1/namespaces/{namespace}/configmaps",
            name,
            apiVersion="v1",
            kind="ConfigMap",
            metadata={"labels": labels},
            data={},
        )

    def remove(self, name: str, *, tell: bool = True) -> None:
        self.api.remove(f"/api/v1/namespaces/{HOME}/configmaps/{name}", tell=tell)

    @property
    def known(self) -> list[str]:
        return sorted(key.name for key in self.cache.keys("ConfigMap"))

    def labels(self, name: str) -> Any:
        entry = self.cache.get(ObjectKey("ConfigMap", HOME, name))
        return entry.load()["metadata"].get("labels") if entry is not None else None

    async def list_again(self) -> None:
        """Each watch expires, and each informer lists."""
        lists = self.count_lists()
        self.api.expire_watches()
        await until(
            lambda: self.count_lists() >= lists + len(self.informers) and len(self.api.streams) == len(self.informers)
        )

    def count_lists(self) -> int:
        return sum(1 for _, path, query in self.api.requests if path.endswith("/configmaps") and "watch" not in query)


@asynccontextmanager
async def sharing(*selections: Selection, others: tuple[Selection, ...] = ()) -> AsyncIterator[Shared]:
    api, changes = FakeApi(), []
    async with serving(api) as (client, _):
        cache = Cache()
        informers = tuple(
            Informer(
                client,
                cache,
                selection,
                changes.append,
                clock=asyncio.get_running_loop().time,
                jitter=lambda: 0.0,
                others=(*selections, *others),
            )
            for selection in selections
        )
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            await until(lambda: len(api.streams) == len(informers))
            yield Shared(api, cache, informers, changes)
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("selections", [(MANAGED, ENGINES), (ENGINES, MANAGED)], ids=["managed first", "engines first"])
async def test_a_list_of_one_drops_nothing_of_the_others_and_what_is_gone_of_its_own(
    selections: tuple[Selection, Selection],
) -> None:
    async with sharing(*selections) as shared:
        shared.put("child", OURS)
        shared.put("elsewhere", OURS, "ml")
        shared.put("engine", ENGINE)
        shared.put("nobody's", {})
        shared.put("engine elsewhere", ENGINE, "ml")
        await until(lambda: shared.known == ["child", "elsewhere", "engine"])
        await shared.list_again()
        assert shared.known == ["child", "elsewhere", "engine"]
        shared.remove("child", tell=False)
        await shared.list_again()
        await until(lambda: shared.known == ["elsewhere", "engine"])
        shared.remove("engine", tell=False)
        await shared.list_again()
        await until(lambda: shared.known == ["elsewhere"])
        gone = [change.before.key.name for change in shared.changes if change.after is None and change.before]
        assert gone == ["child", "engine"]


@pytest.mark.parametrize("selections", [(MANAGED, ENGINES), (ENGINES, MANAGED)], ids=["managed first", "engines first"])
async def test_what_leaves_one_for_the_other_with_one_change_stays(selections: tuple[Selection, Selection]) -> None:
    """The one hears that it is deleted and the other that it is added, both at one version and in any order."""
    async with sharing(*selections) as shared:
        shared.put("moved", OURS)
        await until(lambda: shared.labels("moved") == OURS)
        for labels in (ENGINE, OURS, {**OURS, **ENGINE}, OURS, {**OURS, **ENGINE}, ENGINE):
            shared.put("moved", labels)
            await until(lambda labels=labels: shared.labels("moved") == labels)  # type: ignore[misc]
            await asyncio.sleep(0.05)
            assert shared.labels("moved") == labels, "nor does later news of the change take it away"
        shared.remove("moved")
        await until(lambda: shared.known == [])
        await asyncio.sleep(0.05)
        assert shared.known == []


@pytest.mark.parametrize("first", [0, 1])
def test_the_deletion_and_the_arrival_agree_in_both_orders(first: int) -> None:
    cache = Cache()
    key = ObjectKey("ConfigMap", HOME, "moved")

    def live(version: int, labels: dict[str, str]) -> dict[str, Any]:
        metadata = {"name": "moved", "namespace": HOME, "uid": "u", "resourceVersion": str(version), "labels": labels}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}

    cache.put(live(5, OURS))
    news = [lambda: cache.remove(key, "u", 6 - 1), lambda: cache.put(live(6, ENGINE))]
    for tell in news if first == 0 else reversed(news):
        tell()
    entry = cache.get(key)
    assert entry is not None
    assert entry.resource_version == 6


async def test_an_object_of_both_goes_when_it_is_gone() -> None:
    async with sharing(MANAGED, ENGINES) as shared:
        shared.put("both", {**OURS, **ENGINE})
        await until(lambda: shared.known == ["both"])
        shared.remove("both", tell=False)
        await shared.list_again()
        await until(lambda: shared.known == [])


async def test_what_is_selected_by_nobody_any_more_goes_with_the_next_list() -> None:
    """An answer to a write of ours can bring what somebody has just stripped of its labels."""
    async with sharing(MANAGED, ENGINES) as shared:
        shared.put("stripped", {})
        shared.cache.put(shared.api.objects[f"/api/v1/namespaces/{HOME}/configmaps/stripped"])
        assert shared.known == ["stripped"]
        await shared.list_again()
        await until(lambda: shared.known == [])


async def test_what_was_written_and_not_heard_of_yet_survives_the_others_list() -> None:
    """Only the engines are listed here: the informer of the children is slow."""
    async with sharing(ENGINES, others=(MANAGED,)) as shared:
        shared.put("child", OURS)
        shared.cache.put(shared.api.objects[f"/api/v1/namespaces/{HOME}/configmaps/child"])
        await shared.list_again()
        assert shared.known == ["child"]


def test_a_selection_knows_what_it_shows() -> None:
    assert MANAGED.covers("anywhere", OURS)
    assert not MANAGED.covers("anywhere", {names.LABEL_MANAGED_BY: "Helm"})
    assert ENGINES.covers(HOME, ENGINE)
    assert not ENGINES.covers("ml", ENGINE)
    assert not ENGINES.covers(HOME, OURS)
    both = Selection(CONFIG_MAP, None, f"{MANAGED.label_selector},!{names.LABEL_ENGINE}")
    assert both.covers(HOME, OURS)
    assert not both.covers(HOME, {**OURS, **ENGINE})
    assert Selection(SERVICE).covers("ml", {})
    named = Selection(CONFIG_MAP, HOME, name="c")
    assert named.covers(HOME, {}, "c")
    assert not named.covers(HOME, {}, "d")
    assert not named.covers("ml", {}, "c")
    assert str(named) == "configmaps c in fairlead-system"


def test_selections_meet_where_one_object_may_be_in_either_by_its_labels() -> None:
    assert MANAGED.meets(ENGINES)
    assert ENGINES.meets(MANAGED)
    assert not MANAGED.meets(MANAGED)
    assert ENGINES.meets(Selection(CONFIG_MAP, HOME, name="c"))
    assert Selection(CONFIG_MAP, HOME, name="c").meets(Selection(CONFIG_MAP, HOME, name="d"))
    assert not ENGINES.meets(Selection(CONFIG_MAP, "ml", MANAGED.label_selector))
    assert not MANAGED.meets(Selection(SERVICE, HOME, names.LABEL_ENGINE))


async def test_one_that_is_watched_by_its_name_is_shown_alone_and_kept_by_those_who_list_others() -> None:
    api, cache, changes = FakeApi(), Cache(), []
    named = Selection(CONFIG_MAP, HOME, name="c")
    async with serving(api) as (client, _):
        loop = asyncio.get_running_loop()
        informers = tuple(
            Informer(client, cache, one, changes.append, clock=loop.time, others=(MANAGED, ENGINES, named))
            for one in (MANAGED, ENGINES, named)
        )
        shared = Shared(api, cache, informers, changes)
        for name, labels in (("a", OURS), ("b", ENGINE), ("c", {}), ("d", {})):
            shared.put(name, labels)
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            await until(lambda: all(informer.synced.is_set() for informer in informers))
            assert shared.known == ["a", "b", "c"]
            await until(lambda: len(api.streams) == len(informers))
            await shared.list_again()
            assert shared.known == ["a", "b", "c"]
            shared.remove("c", tell=False)
            await shared.list_again()
            await until(lambda: shared.known == ["a", "b"])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
