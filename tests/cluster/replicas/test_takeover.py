"""The leader is taken away under change load: the other takes over in time, nothing is lost, nothing is made twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.replicas.conftest import Team
from tests.cluster.replicas.load import ChangeLoad
from tests.cluster.replicas.replica import Replica

pytestmark = pytest.mark.cluster

#: The contract is 20 s after a crash and 3 s after a clean stop; the rest is for a machine that other tests share.
CRASH_S, CLEAN_S, ALLOWANCE_S = 20.0, 3.0, 5.0
CONVERGED_S = 90.0
QUIET_S = 3.0
#: Short terms for stories of many takeovers. The contract is about the defaults.
SHORT = ("--lease-duration-s=4", "--renew-deadline-s=2.5", "--retry-period-s=0.5")
SHORT_DURATION_S = 4.0
DEFAULT_DURATION_S = 15.0
FREEZES = 4
THAWS = 3
WORKERS = 16


def load_on(team: Team, **options: float) -> ChangeLoad:
    return ChangeLoad(team.cluster.admin_kubeconfig, team.namespace, **options)  # type: ignore[arg-type]


def assert_nothing_lost(team: Team, load: ChangeLoad, *, turns: int, frozen: bool = False) -> None:
    """The end of every story here: what the ledger says is there, and nobody wrote what or when he should not have."""
    ledger = load.stop()
    deadline = time.monotonic() + CONVERGED_S
    while (wrong := ledger.differences(load.state())) and time.monotonic() < deadline:
        time.sleep(0.5)
    written = team.judge.turns(frozen=frozen)
    refused = sum(record.code == 409 for record in team.judge.writes())
    print(
        f"\n{refused} writes refused; {ledger.counts}, then {len(ledger.alive)} alive; " + "; ".join(map(str, written))
    )
    assert wrong == []
    assert ledger.setbacks == [], "an object was set back to an older state"
    assert team.judge.made_after_deletion() == []
    assert team.judge.unexplained_refusals() == []
    assert len(written) <= turns, "their writes interleave"
    time.sleep(QUIET_S)
    mark = team.cluster.audit.mark()
    time.sleep(QUIET_S)
    noise = [
        r
        for user in team.judge.users
        for r in team.cluster.audit.records(user=user, namespace=team.namespace, since=mark)
    ]
    assert [str(record) for record in noise if record.is_write] == [], "not quiet afterwards"


def assert_few_late_writes(team: Team, replica: Replica, duration_s: float) -> None:
    """What a thawed leader still sends is what was on its way, at most one request per worker and freeze."""
    late = team.judge.writes_beyond_lease(replica.user, duration_s)
    print(f"{replica.name} sent {len(late)} writes when it thawed, without effect on a child: {late}")
    assert len(late) <= WORKERS * FREEZES


def wait_for_takeover(team: Team, by: Replica, since: datetime, within_s: float) -> float:
    """Seconds from `since` until `by` had the Lease."""
    took_s: float = until(
        lambda: team.judge.took_over_s(by.user, since), f"{by.name} has the Lease", within_s + 4 * ALLOWANCE_S
    )
    print(f"\n{by.name} had the Lease {took_s:.2f} s later")
    return took_s


@pytest.mark.parametrize(
    ("options", "within_s"),
    [
        pytest.param(SHORT, SHORT_DURATION_S + 1, id="short terms"),
        pytest.param((), CRASH_S, id="defaults", marks=[pytest.mark.long, pytest.mark.alone]),
    ],
)
def test_a_leader_that_crashes_under_load_is_replaced_and_nothing_is_lost(
    team: Team, options: tuple[str, ...], within_s: float
) -> None:
    one, two = team.start_pair(*options)
    with load_on(team, seed=1) as load:
        load.for_s(3)
        one.crash()
        crashed_at = datetime.now(UTC)
        load.for_s(2)
        load.stop()  # nobody leads yet: the next leader must find by itself what was changed meanwhile
        took_s = wait_for_takeover(team, two, crashed_at, within_s)
        assert_nothing_lost(team, load, turns=2)
    assert took_s <= within_s + ALLOWANCE_S


@pytest.mark.alone
@pytest.mark.long
def test_a_leader_that_is_stopped_cleanly_under_load_is_replaced_at_once(team: Team) -> None:
    one, two = team.start_pair()
    with load_on(team, seed=2) as load:
        load.for_s(5)
        one.stop()
        stopped_at = datetime.now(UTC)
        took_s = wait_for_takeover(team, two, stopped_at, CLEAN_S)
        load.for_s(3)
        assert_nothing_lost(team, load, turns=2)
    assert took_s <= CLEAN_S + ALLOWANCE_S


@pytest.mark.alone
@pytest.mark.long
def test_a_leader_that_is_frozen_under_load_is_replaced_in_time_and_stands_by_when_it_thaws(team: Team) -> None:
    one, two = team.start_pair()
    with load_on(team, seed=3) as load:
        load.for_s(3)
        one.freeze()
        frozen_at = datetime.now(UTC)
        took_s = wait_for_takeover(team, two, frozen_at, CRASH_S)
        load.for_s(1)
        one.thaw()
        load.for_s(3)
        assert two.leads
        assert not one.leads
        assert_nothing_lost(team, load, turns=2, frozen=True)
    assert took_s <= CRASH_S + ALLOWANCE_S
    assert team.judge.writes_beyond_lease(one.user, DEFAULT_DURATION_S, frozen=True) == []


@pytest.mark.alone
@pytest.mark.long
def test_a_leader_without_a_rival_that_was_frozen_forgets_nothing_of_what_it_woke_to(team: Team) -> None:
    """It hears of changes before it has renewed its Lease, which nobody took: the same term goes on."""
    one = team.start("one", *SHORT)
    one.wait_leads()
    world = World(team.cluster, team.namespace)
    for round_ in range(THAWS):
        names = [f"m{round_}-{number}" for number in range(8)]
        one.freeze()
        time.sleep(SHORT_DURATION_S)  # the Lease runs out
        world.apply(*(make_cr(team.namespace, name) for name in names))
        one.thaw()
        for name in names:
            world.wait_observed(name)


@pytest.mark.alone
@pytest.mark.long
def test_leaders_that_are_frozen_in_turn_never_write_when_they_thaw(team: Team) -> None:
    """Many times, in the middle of as much work as there can be: a write may be under way at the instant of the freeze."""
    leader, follower = team.start_pair(*SHORT)
    with load_on(team, seed=4, population=20, operations_per_s=40.0) as load:
        for _ in range(FREEZES):
            load.for_s(1.5)
            leader.freeze()
            wait_for_takeover(team, follower, datetime.now(UTC), SHORT_DURATION_S)
            load.for_s(0.5)
            leader.thaw()
            leader, follower = follower, leader
        load.for_s(2)
        assert_nothing_lost(team, load, turns=FREEZES + 1, frozen=True)
    for replica in (leader, follower):
        assert team.judge.writes_beyond_lease(replica.user, SHORT_DURATION_S, frozen=True) == []
        assert_few_late_writes(team, replica, SHORT_DURATION_S)
