"""The leader's network is taken away, in all the ways in which networks go: told, untold, and with requests that arrive late."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.replicas.conftest import Team
from tests.cluster.replicas.load import DEPLOYMENTS, EDIT, ChangeLoad
from tests.cluster.replicas.relay import Relay
from tests.cluster.replicas.test_takeover import (
    ALLOWANCE_S,
    SHORT,
    SHORT_DURATION_S,
    assert_nothing_lost,
    load_on,
    wait_for_takeover,
)

pytestmark = pytest.mark.cluster


@pytest.mark.long
def test_a_request_that_arrives_after_its_sender_was_replaced_sets_nothing_back(team: Team) -> None:
    """The leader wrote in time, the network kept it, and meanwhile another leads and the spec has changed again."""
    world = World(team.cluster, team.namespace)

    def make(edit: int) -> dict[str, object]:
        return make_cr(team.namespace, "m", pod={"annotations": {EDIT: str(edit)}})

    def edit_of_pods() -> str:
        return str(world.get("deployment/m")["spec"]["template"]["metadata"]["annotations"][EDIT])  # type: ignore[index]

    with team.relay() as relay:
        one, two = team.start_pair(*SHORT, relay=relay)
        watcher = ChangeLoad(team.cluster.admin_kubeconfig, team.namespace, population=0)
        with watcher:
            # Several at once, so that several connections are open: one of them will be held by the renewal of the Lease.
            others = [f"other-{number}" for number in range(6)]
            world.apply(make(1), *(make_cr(team.namespace, name) for name in others))
            for name in ("m", *others):
                world.wait_observed(name)
            relay.hold_requests()
            held_at = datetime.now(UTC)
            world.apply(make(2))
            wait_for_takeover(team, two, held_at, SHORT_DURATION_S)
            until(lambda: edit_of_pods() == "2", "the second edit, by the new leader")
            world.apply(make(3))
            until(lambda: edit_of_pods() == "3", "the third edit")
            assert not one.leads
            mark = team.cluster.audit.mark()
            relay.heal()
            late = until(
                lambda: [
                    r
                    for r in team.cluster.audit.records(user=one.user, since=mark)
                    if r.is_write and r.namespace == team.namespace
                ],
                "the late request arrives",
            )
            time.sleep(2)
            ledger = watcher.stop()
        print("\n" + "\n".join(map(str, late)))
        assert edit_of_pods() == "3"
        assert ledger.setbacks == []
        assert [record.code for record in late if record.resource == DEPLOYMENTS.plural] == [409]


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
