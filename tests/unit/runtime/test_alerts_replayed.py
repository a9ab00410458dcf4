"""Deliveries as they come in bad weather, each with its answer, and what status and the law hear of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.unit.runtime.alertdesk import TOKEN, alert_desk
from tests.unit.sources.deliveries import START, make_alert, make_body

LATER = "2026-11-28T12:00:05.000Z"
FIRING, RESOLVED = make_body(), make_body(make_alert("resolved", endsAt="2026-11-28T12:00:04Z"))
MANY = make_body(*(make_alert(fingerprint=f"{number:016x}") for number in range(20)))
FIRING_LATER = make_body(make_alert(startsAt=LATER))
DEEP = b'{"version":"4","alerts":[' + b'{"labels":' * 5000 + b"{}" + b"}" * 5000 + b"]}"


@dataclass(frozen=True)
class Step:
    """One delivery. `after_s`: the time that passes before; `answer`: the status of HTTP."""

    body: bytes
    answer: int = 200
    after_s: float = 0.0
    token: str | None = TOKEN
    effects: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Replay:
    """Deliveries in their order, and in the end: starts in status, evaluations of ml/m, writes of status, answers by result."""

    steps: tuple[Step, ...]
    kept: tuple[str, ...] = ()
    evaluations: int = 0
    writes: int = 0
    results: Mapping[str, int] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # LLMDeployments beside ml/m that were evaluated, too


REPLAYS: dict[str, Replay] = {
    "fires": Replay((Step(FIRING, effects={"firing": 1}),), (START,), 1, 1, {"accepted": 1}),
    "fires and is resolved": Replay((Step(FIRING), Step(RESOLVED, effects={"resolved": 1})), (), 2, 2, {"accepted": 2}),
    "duplicate": Replay((Step(FIRING), *[Step(FIRING, effects={"repeated": 1})] * 5), (START,), 1, 1, {"accepted": 6}),
    "duplicate resolved": Replay((Step(FIRING), Step(RESOLVED), Step(RESOLVED)), (), 2, 2, {"accepted": 3}),
    "two Alertmanagers, one of them behind": Replay(
        (Step(FIRING), Step(FIRING, after_s=15), Step(RESOLVED, after_s=5), Step(FIRING, after_s=10), Step(RESOLVED)),
        (), 2, 2, {"accepted": 5},
    ),
    "reordered: resolved before its firing": Replay(
        (Step(RESOLVED), Step(FIRING, effects={"outdated": 1})), (), 1, 0, {"accepted": 2}
    ),
    "reordered: an older resolved after a newer firing": Replay(
        (Step(FIRING_LATER), Step(RESOLVED, effects={"outdated": 1})), (LATER,), 1, 1, {"accepted": 2}
    ),
    "reordered: an older firing after a newer one": Replay(
        (Step(FIRING_LATER), Step(FIRING, effects={"outdated": 1})), (LATER,), 1, 1, {"accepted": 2}
    ),
    "fires anew": Replay(
        (Step(FIRING), Step(RESOLVED), Step(FIRING_LATER, effects={"firing": 1})), (LATER,), 3, 3, {"accepted": 3}
    ),
    "mixed group: one of two is resolved": Replay(
        (Step(make_body(make_alert(), make_alert(fingerprint="b2"))),
         Step(make_body(make_alert("resolved"), make_alert(fingerprint="b2")), effects={"resolved": 1, "repeated": 1})),
        (START,), 2, 2, {"accepted": 2},
    ),
    "more than are kept, again and again": Replay(
        (Step(MANY, effects={"firing": 16, "left_out": 4}),
         *[Step(MANY, effects={"repeated": 16, "left_out": 4}, after_s=1)] * 3),
        (START,) * 16, 1, 1, {"accepted": 4},
    ),
    "truncated": Replay(
        (Step(make_body(truncatedAlerts=3)), Step(make_body(truncatedAlerts=3), after_s=1)),
        (START,), 2, 1, {"accepted": 2}, others=("other",),
    ),
    "truncated to nothing": Replay(
        (Step(make_body(alerts=[], truncatedAlerts=3)),), (), 1, 0, {"accepted": 1}, others=("other",)
    ),
    "no alerts at all": Replay((Step(make_body(alerts=[])),), (), 0, 0, {"accepted": 1}),
    "unknown LLMDeployment": Replay(
        (Step(make_body(make_alert(labels={"llm_name": "gone"})), effects={"not_concerned": 1}),),
        results={"accepted": 1},
    ),
    "without autoscaling, of another mode, without labels": Replay(
        (Step(make_body(make_alert(labels={"llm_name": "fixed"}), make_alert(labels={"llm_name": "keda"}),
                        make_alert(labels={"llm_name": None})), effects={"not_concerned": 3}),),
        results={"accepted": 1},
    ),
    "unknown beside a known one": Replay(
        (Step(make_body(make_alert(labels={"llm_name": "gone"}), make_alert())),), (START,), 1, 1, {"accepted": 1}
    ),
    "huge labels": Replay(
        (Step(make_body(make_alert(labels={"huge": "x" * 500_000, "alertname": "y" * 500}))),),
        (START,), 1, 1, {"accepted": 1},
    ),
    "junk": Replay((Step(b"GET / HTTP/1.0", 400), Step(b"", 400), Step(b"[]", 400)), results={"junk": 3}),
    "junk among alerts": Replay((Step(make_body(make_alert(), {"status": "firing"}), 400),), results={"junk": 1}),
    "deep JSON": Replay((Step(DEEP, 400),), results={"junk": 1}),
    "oversized": Replay((Step(make_body(make_alert(labels={"x": "y" * 1_100_000})), 413),), results={"oversized": 1}),
    "oversized, of spaces": Replay((Step(b" " * 2_000_000, 413),), results={"oversized": 1}),
    "wrong token": Replay(
        (Step(FIRING, 401, token="token-of-somebody-else"), Step(FIRING, 401, token=None), Step(FIRING, 401, token="")),
        results={"unauthorized": 3},
    ),
    "wrong token and junk": Replay((Step(b"{", 401, token="x"),), results={"unauthorized": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLAYS)
async def test_replay(name: str, tmp_path: Path) -> None:
    replay = REPLAYS[name]
    async with alert_desk(tmp_path) as desk:
        desk.put("other")
        desk.put("fixed", replicas=2)
        desk.put("keda", autoscaling={"mode": "KEDA"})
        for number, step in enumerate(replay.steps):
            desk.now[0] += step.after_s
            answer = await desk.post(step.body, step.token)
            assert answer.status == step.answer, (number, answer)
            if step.effects is not None:
                assert answer.body == dict(step.effects), number
        evaluated = [key.name for key in desk.evaluated]
        assert tuple(desk.kept()) == replay.kept
        assert evaluated.count("m") == replay.evaluations
        assert tuple(name for name in evaluated if name != "m") == replay.others
        assert desk.status_writes == replay.writes
        assert dict(desk.seen.results) == dict(replay.results)


async def test_lost_resolved(tmp_path: Path) -> None:
    """Nobody tells that it is over: five minutes after the last delivery it is."""
    async with alert_desk(tmp_path) as desk:
        await desk.post(FIRING)
        desk.now[0] += 200
        await desk.post(FIRING)
        desk.now[0] += 299
        desk.run_pass()
        assert desk.kept() == [START]
        desk.now[0] += 1
        desk.run_pass()
        assert desk.kept() == []
        assert desk.status_writes == 3
