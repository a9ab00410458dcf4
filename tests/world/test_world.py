"""The simulated world is believable: the engine bears what it should, nobody is lost, the same seed gives the same."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from tests.world.engine import QWEN3_32B_2H100, Pod, Request
from tests.world.heldout import GENERATED, PUBLIC
from tests.world.policies import Law, Static, policy
from tests.world.table import CONVERSATIONS, PAGE, TABLES, TRACES, fill
from tests.world.traces import RAMP, constant, quiet, ramp
from tests.world.world import PROMETHEUS, live


def test_one_request_alone_takes_what_arithmetic_says() -> None:
    """0.25 s and two steps for 4,000 tokens at 16,000 a second; 14.2 ms and 49 ns for each token of context for each token after."""
    pod = Pod(QWEN3_32B_2H100, 0.0)
    request = Request(0.0, 4000, 1000)
    pod.add(request, 0.0)
    pod.advance(100.0)
    assert request.time_to_first_token_s == pytest.approx(0.25 + 2 * 0.0142, rel=0.01)
    assert request.output_token_s == pytest.approx(0.0142 + 49e-9 * 4000, rel=0.03)
    assert pod.in_flight == 0
    assert pod.kv_used == 0


@pytest.mark.parametrize(("per_s", "is_borne"), [(1.3, True), (1.5, False)])
def test_a_replica_bears_as_much_as_was_measured(per_s: float, is_borne: bool) -> None:
    """llm-d measured 1.4 to 1.5 requests a second; beyond that the queue grows without end."""
    outcome = live(constant(per_s, 3600), QWEN3_32B_2H100, Static(1), start=1)
    late = [one.time_to_first_token_s for one in outcome.requests[-100:]]
    assert (max(late) < 20) == is_borne


def test_the_published_ramp_has_as_many_requests_and_is_served_by_eight() -> None:
    """12,480 requests, all of them within both objectives with 8 replicas, as published."""
    outcome = live(ramp(), QWEN3_32B_2H100, Static(8), start=8)
    assert len(outcome.requests) == 12480 == sum(rate * seconds for rate, seconds in RAMP)
    assert outcome.attainment == 1
    assert outcome.average == 8


def test_everybody_is_served_once_and_in_order_of_time() -> None:
    outcome = live(ramp(by_chance=True), QWEN3_32B_2H100, Law(policy()), start=3)
    for one in outcome.requests:
        assert one.at < one.first_token < one.end < math.inf


def test_who_comes_to_zero_replicas_is_held_until_one_is_ready() -> None:
    outcome = live(quiet(), QWEN3_32B_2H100, Law(policy(minimum=0)), start=2, source=PROMETHEUS)
    assert [number for at, number in outcome.replicas if 900 < at < 4200] == [0]
    assert all(one.end < math.inf for one in outcome.requests)
    woken = next(one for one in outcome.requests if one.at > 4200)
    assert woken.time_to_first_token_s <= QWEN3_32B_2H100.load_s + 5
    assert outcome.average < 1.6


def test_the_same_seed_gives_the_same() -> None:
    first, second = (live(constant(5, 900), QWEN3_32B_2H100, Law(policy()), start=3) for _ in range(2))
    assert first.replicas == second.replicas
    assert [one.end for one in first.requests] == [one.end for one in second.requests]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_the_tables_in_the_documents_are_fresh(table: str) -> None:
    text = PAGE.read_text()
    assert f"<!-- generated: {table} -->" in text
    assert text == fill(text, {table}), "stale: run python -m tests.world"


def test_what_is_held_out_is_none_of_what_the_law_was_tuned_on() -> None:
    """Neither a trace nor the chance behind it: each of these seeds is used once."""
    known = [make().arrivals for _, make in TRACES] + [CONVERSATIONS.make().arrivals]
    held = [make().arrivals for _, make in GENERATED] + [service.make().arrivals for service in PUBLIC]
    assert all(one[:50] != other[:50] for one in held for other in known)
    assert [len(service.make().arrivals) for service in PUBLIC] == [8819, 12031]
    source = (Path(__file__).parent / "heldout.py").read_text()
    seeds = re.findall(r"48_1\d\d", source)
    assert len(seeds) == len(set(seeds)) == 7
