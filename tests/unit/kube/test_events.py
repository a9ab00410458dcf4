"""Events: each fact once in ten minutes, in the shape of events.k8s.io/v1, and never a reason to fail."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.kube.fake_api import FakeApi, serving

from fairlead.kube.client import ApiClient
from fairlead.kube.events import NOTE_MAX_BYTES, EventRecorder, Regarding

EVENTS = "/apis/events.k8s.io/v1/namespaces/ml/events"
ABOUT = Regarding("fairlead.dev/v1alpha1", "LLMDeployment", "ml", "m", "uid-1")


def recorder(client: ApiClient, now: list[float]) -> EventRecorder:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return EventRecorder(
        client, instance="pod-1", clock=lambda: now[0], wall=lambda: start.replace(microsecond=int(now[0]))
    )


async def test_a_fact_is_told_once_and_again_after_ten_minutes() -> None:
    api, now = FakeApi(), [0.0]
    async with serving(api) as (client, _):
        tell = recorder(client, now).tell
        fact = {"type_": "Warning", "reason": "InvalidSpec", "message": "no", "action": "Reconcile"}
        assert await tell(ABOUT, **fact)
        now[0] = 599.0
        assert not await tell(ABOUT, **fact)
        assert await tell(ABOUT, **{**fact, "message": "other"})
        assert await tell(Regarding("v", "k", "ml", "m", "uid-2"), **fact)
        now[0] = 601.0
        assert await tell(ABOUT, **fact)
    assert len(api.objects) == 4


async def test_the_shape_is_the_apis() -> None:
    api = FakeApi()
    async with serving(api) as (client, _):
        await recorder(client, [7.0]).tell(
            ABOUT, type_="Normal", reason="Serving", message="2 of 2", action="Reconcile"
        )
    (path, event) = next(iter(api.objects.items()))
    assert path.startswith(f"{EVENTS}/m.")
    assert event["eventTime"] == "2026-01-02T03:04:05.000007Z"
    assert event["regarding"] == {
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "LLMDeployment", "namespace": "ml", "name": "m", "uid": "uid-1",
    }  # fmt: skip
    assert (event["type"], event["reason"], event["note"], event["action"]) == (
        "Normal",
        "Serving",
        "2 of 2",
        "Reconcile",
    )
    assert (event["reportingController"], event["reportingInstance"]) == ("fairlead.dev/operator", "pod-1")


@pytest.mark.parametrize("character", ["x", "×"])
async def test_a_long_note_is_cut_at_a_whole_character(character: str) -> None:
    api = FakeApi()
    async with serving(api) as (client, _):
        await recorder(client, [0.0]).tell(ABOUT, type_="Normal", reason="R", message=character * 2000, action="A")
    note = next(iter(api.objects.values()))["note"]
    assert len(note.encode()) <= NOTE_MAX_BYTES
    assert note.endswith("…")
    assert set(note[:-1]) == {character}


@pytest.mark.parametrize("code", [403, 409, 422, 500])
async def test_an_event_that_is_refused_is_tried_again_only_by_its_next_cause(code: int) -> None:
    api = FakeApi()
    api.fail(code, method="POST")
    async with serving(api) as (client, _):
        tell = recorder(client, [0.0]).tell
        fact = {"type_": "Normal", "reason": "R", "message": "m", "action": "A"}
        assert not await tell(ABOUT, **fact)
        assert await tell(ABOUT, **fact)
