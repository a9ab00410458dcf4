"""Two leaders at once, as no election should allow: they do the same thing, so no harm lasts."""

from __future__ import annotations

import time

import pytest
from tests.cluster.replicas.conftest import Team
from tests.cluster.replicas.test_takeover import QUIET_S, SHORT, assert_nothing_lost, load_on

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.alone]


def test_two_leaders_at_once_converge_and_are_quiet(team: Team) -> None:
    one, two = team.start("one", "--no-leader-elect"), team.start("two", "--no-leader-elect")
    for replica in (one, two):
        replica.wait_leads()
    with load_on(team, seed=21) as load:
        load.for_s(15)
        assert_nothing_lost(team, load, turns=100_000)
    writes = team.judge.writes()
    assert {record.user for record in writes} == {one.user, two.user}, "both worked"
    conflicts = [record for record in writes if record.code == 409]
    print(f"\n{len(writes)} writes by two leaders, {len(conflicts)} of them refused")


def test_two_leaders_that_start_on_a_cluster_in_order_write_nothing(team: Team) -> None:
    one = team.start("one", *SHORT)
    one.wait_leads()
    with load_on(team, seed=22) as load:
        load.for_s(3)
        assert_nothing_lost(team, load, turns=1)
    mark = team.cluster.audit.mark()
    two, three = team.start("two", "--no-leader-elect"), team.start("three", "--no-leader-elect")
    for replica in (two, three):
        replica.wait_leads()
    time.sleep(2 * QUIET_S)
    records = team.cluster.audit.records(user=team.judge.users, namespace=team.namespace, since=mark)
    assert [str(record) for record in records if record.is_write] == []


def test_a_rolling_restart_under_load_loses_nothing(team: Team) -> None:
    """As a Deployment does it: a new replica, ready; then an old one is ended; and so on."""
    running = list(team.start_pair(*SHORT))
    with load_on(team, seed=23) as load:
        load.for_s(2)
        for name in ("three", "four"):
            running.append(team.start(name, *SHORT))
            load.for_s(1)
            running.pop(0).stop()
            load.for_s(2)
        assert sum(replica.leads for replica in running) == 1
        assert_nothing_lost(team, load, turns=3)
