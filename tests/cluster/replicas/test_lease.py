"""The Lease in trouble: deleted, edited, refused, and clocks that disagree. Never two who write, and never nobody for long."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cluster.operator_world import until
from tests.cluster.replicas.conftest import Team, delete_lease
from tests.cluster.replicas.replica import LEASE_NAME
from tests.cluster.replicas.test_takeover import ALLOWANCE_S, assert_nothing_lost, load_on, wait_for_takeover

from fairlead_cluster.operators import OPERATOR_NAMESPACE

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.alone]

#: Long pauses between renewals, so that a leader is long unaware of what was done to its Lease.
SLOW = ("--lease-duration-s=8", "--renew-deadline-s=6", "--retry-period-s=2")
SLOW_DURATION_S = 8.0


def edit_lease(team: Team, patch: str) -> None:
    team.cluster.kubectl(
        "patch", "lease", LEASE_NAME, f"--namespace={OPERATOR_NAMESPACE}", "--type=merge", f"--patch={patch}"
    )


def test_a_lease_deleted_by_hand_makes_no_second_leader(team: Team) -> None:
    one, two = team.start_pair(*SLOW)
    with load_on(team, seed=11, operations_per_s=15.0) as load:
        for _ in range(4):
            load.for_s(2.7)
            delete_lease(team.cluster)
        load.for_s(3)
        assert one.leads
        assert not two.leads
        assert_nothing_lost(team, load, turns=1)


def test_a_stranger_in_the_lease_stops_the_leader_until_the_lease_ends(team: Team) -> None:
    one, two = team.start_pair(*SLOW)
    with load_on(team, seed=12) as load:
        load.for_s(3)
        edit_lease(team, '{"spec": {"holderIdentity": "stranger"}}')
        edited_at = datetime.now(UTC)
        load.for_s(3)
        assert not one.leads
        assert not two.leads
        took_s = until(
            lambda: min(
                (s for r in (one, two) if (s := team.judge.took_over_s(r.user, edited_at)) is not None), default=None
            ),
            "one of them has the Lease again",
        )
        print(f"\nled again {took_s:.1f} s after the edit")
        assert took_s >= SLOW_DURATION_S - 1.0, "the stranger's time was not respected"
        load.for_s(2)
        assert_nothing_lost(team, load, turns=2)


def test_a_leader_whose_lease_is_refused_stops_before_another_may_start(team: Team) -> None:
    one, two = team.start_pair(*SLOW)
    with load_on(team, seed=13, operations_per_s=15.0) as load:
        load.for_s(3)
        team.accounts.forbid_lease("one")
        refused_at = datetime.now(UTC)
        wait_for_takeover(team, two, refused_at, SLOW_DURATION_S + ALLOWANCE_S)
        load.for_s(2)
        team.accounts.permit_lease("one")
        load.for_s(4)
        assert two.leads
        assert not one.leads
        assert_nothing_lost(team, load, turns=2)
    assert team.judge.writes_beyond_lease(one.user, SLOW_DURATION_S) == []


def test_clocks_that_disagree_decide_nothing(team: Team) -> None:
    """The leader's clock is a day late, so that its Lease always looks old."""
    launcher = Path(__file__).with_name("skewed.py")
    names = ("one", "two")
    one, two = (
        team.start(name, *SLOW, launcher=launcher, env={"FAIRLEAD_TEST_SKEW_S": str(skew_s)})
        for name, skew_s in zip(names, (-86_400, 86_400), strict=True)
    )
    leader, follower = (one, two) if until(lambda: one.leads or two.leads, "a leader") and one.leads else (two, one)
    with load_on(team, seed=14) as load:
        load.for_s(SLOW_DURATION_S + 3)
        assert leader.leads
        assert not follower.leads, "a Lease that looks old by the wall clock is not old"
        leader.crash()
        took_s = wait_for_takeover(team, follower, datetime.now(UTC), SLOW_DURATION_S)
        assert took_s >= SLOW_DURATION_S - 2 - ALLOWANCE_S / 2
        load.for_s(2)
        assert_nothing_lost(team, load, turns=2)
