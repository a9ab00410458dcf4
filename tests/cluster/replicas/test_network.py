"""The leader's network is taken away, in all the ways in which networks go: told, untold, and with requests that arrive late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.replicas.conftest import Team, delete_lease
from tests.cluster.replicas.load import DEPLOYMENTS, EDIT, LLMDEPLOYMENTS, ChangeLoad
from tests.cluster.replicas.relay import Relay
from tests.cluster.replicas.test_takeover import (
    ALLOWANCE_S,
    SHORT,
    SHORT_DURATION_S,
    assert_nothing_lost,
    load_on,
    wait_for_takeover,
)

from fairlead_cluster.api import Api
from fairlead_cluster.audit import AuditRecord

pytestmark = pytest.mark.cluster


#: A leader has 2.5 s from its last renewal for the edit to reach it and its writes to leave by a connection that is open
#: already: a busy machine can miss that, and then nothing is late.
ATTEMPTS = 4
MODELS = 6
ARRIVED_S = 4.0  # what was kept arrives at once; that nothing was kept is told by nobody


@pytest.mark.alone
@pytest.mark.long
def test_a_request_that_arrives_after_its_sender_was_replaced_sets_nothing_back(team: Team) -> None:
    """The leader wrote in time, the network kept it, and meanwhile another leads and the spec has changed again."""
    for attempt in range(ATTEMPTS):
        names = [f"m{attempt}-{number}" for number in range(MODELS)]
        with team.relay() as relay:
            late = _writes_that_arrive_late(team, relay, names)
        if codes := [record.code for record in late if record.resource == DEPLOYMENTS.plural]:
            print("\n" + "\n".join(map(str, late)))
            assert set(codes) == {409}
            return
        team.end_all()
        delete_lease(team.cluster)
    pytest.fail(f"in {ATTEMPTS} attempts no write was under way when the network took the leader's requests")


def _writes_that_arrive_late(team: Team, relay: Relay, names: list[str]) -> list[AuditRecord]:
    """Edits of all models that the old leader sends and the server hears of only after the new leader's later ones. Asserts
    that all stay as the last edit wants them."""
    one, two = team.start_pair(*SHORT, relay=relay)
    watcher = ChangeLoad(team.cluster.admin_kubeconfig, team.namespace, population=0)
    with watcher:
        # Several at once, so that several connections are open: one of them will be held by the renewal of the Lease.
        asyncio.run(_edit_all(team, names, 1))
        # With a status it knows that they live. Before that it reads them first, and the network would keep the read.
        until(lambda: _observed(watcher, names), "all have a status")
        assert _edits(watcher, names) == {1}
        relay.hold_requests()
        held_at = datetime.now(UTC)
        asyncio.run(_edit_all(team, names, 2))
        wait_for_takeover(team, two, held_at, SHORT_DURATION_S)
        until(lambda: _edits(watcher, names) == {2}, "the second edit, by the new leader")
        asyncio.run(_edit_all(team, names, 3))
        until(lambda: _edits(watcher, names) == {3}, "the third edit")
        assert not one.leads
        mark = team.cluster.audit.mark()
        relay.heal()
        time.sleep(ARRIVED_S)
        ledger = watcher.stop()
    assert _edits(watcher, names) == {3}
    assert ledger.setbacks == []
    return [r for r in team.cluster.audit.records(user=one.user, namespace=team.namespace, since=mark) if r.is_write]


async def _edit_all(team: Team, names: list[str], edit: int) -> None:
    """By a client of our own: kubectl alone can need as long as the leader has."""
    async with Api.from_kubeconfig(team.cluster.admin_kubeconfig, user_agent="edits") as api:
        bodies = [make_cr(team.namespace, name, pod={"annotations": {EDIT: str(edit)}}) for name in names]
        applying = (api.apply(LLMDEPLOYMENTS, body, team.namespace, field_manager="edits") for body in bodies)
        await asyncio.gather(*applying)


def _observed(watcher: ChangeLoad, names: list[str]) -> bool:
    found = {item["metadata"]["name"]: item for item in watcher.state()[LLMDEPLOYMENTS.kind]}
    return all(
        (found[name].get("status") or {}).get("observedGeneration") == found[name]["metadata"]["generation"]
        for name in names
    )


def _edits(watcher: ChangeLoad, names: list[str]) -> set[int | None]:
    """The edits that the pods' templates are of, None for a Deployment that is not there."""
    found = {item["metadata"]["name"]: item for item in watcher.state()[DEPLOYMENTS.kind]}
    return {
        int(found[name]["spec"]["template"]["metadata"]["annotations"][EDIT]) if name in found else None
        for name in names
    }


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.parametrize("fault", [Relay.cut, Relay.black_hole], ids=["told", "untold"])
def test_a_leader_that_is_cut_off_stops_and_another_works_on(team: Team, fault: Callable[[Relay], None]) -> None:
    with team.relay() as relay:
        one, two = team.start_pair(*SHORT, relay=relay)
        with load_on(team, seed=33) as load:
            load.for_s(4)
            fault(relay)
            cut_at = datetime.now(UTC)
            took_s = wait_for_takeover(team, two, cut_at, SHORT_DURATION_S)
            assert not one.leads
            load.for_s(2)
            relay.heal()
            load.for_s(4)
            assert two.leads
            assert not one.leads
            assert_nothing_lost(team, load, turns=2)
        assert took_s <= SHORT_DURATION_S + 1 + ALLOWANCE_S
        assert team.judge.writes_beyond_lease(one.user, SHORT_DURATION_S) == []
        # It came back as a standby that can lead.
        two.stop()
        one.wait_leads()
        World(team.cluster, team.namespace).apply(make_cr(team.namespace, "after"))
        World(team.cluster, team.namespace).wait_observed("after")
