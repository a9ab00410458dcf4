"""Each kind of failure can be told from the pages alone: what /debug/queue and /metrics show while it lasts, and after it.

The whole operator runs against an API server that fails on command, and is asked over HTTP as a person would ask it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.kube.fake_api import FakeApi
from tests.unit.runtime.test_main import LEASE, Running, running, until
from tests.unit.runtime.world import CRS, DEPLOYMENTS, SERVICES

from fairlead import errors
from fairlead.facts.observed import ObjectKey
from fairlead.runtime.troubles import Troubles, name_error

Json = dict[str, Any]
CANARY = "c4naryZq7Xw93LmKd82Tb"


async def read(run: Running, path: str) -> str:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{run.operator.server.port}") as session,
        session.get(path) as response,
    ):
        return await response.text()


async def debug(run: Running) -> Json:
    found: Json = json.loads(await read(run, "/debug/queue"))
    return found


async def metric(run: Running, name: str, **labels: str) -> float:
    """The sum of the samples of this name with these labels."""
    families = text_string_to_metric_families(await read(run, "/metrics"))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    assert samples, name
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


async def shown(run: Running, what: Callable[[Json], Any], limit_s: float = 10.0) -> Any:
    """What /debug/queue has at some place, once it has something there."""
    await until(lambda: run.operator.server.port, "it serves")
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not (found := what(await debug(run))):
        assert loop.time() < end, await debug(run)
        await asyncio.sleep(0.02)
    return found


async def test_a_healthy_operator_shows_its_streams_its_tasks_and_no_trouble() -> None:
    async with running() as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "served")
        page = await debug(run)
        assert page["leading"]
        assert page["lease"] is None, "nobody elects here"
        assert page["lastErrors"] == page["refused"] == page["waitingForDeletion"] == page["failures"] == {}
        assert page["cache"] == {"Deployment": 1, "LLMDeployment": 1, "Service": 1}
        assert set(page["streams"]) >= {"llmdeployments", "deployments", "services", "pods"}
        assert all(stream["listed"] and stream["silentSeconds"] < 60 for stream in page["streams"].values())
        assert page["tasks"]["worker"] == run.operator.config.workers
        assert page["tasks"]["all"] >= sum(page["tasks"].values()) - page["tasks"]["all"]
        assert abs(await metric(run, "fairlead_tasks") - page["tasks"]["all"]) <= 4, "but for those of the scrape"
        assert await metric(run, "fairlead_watch_silence_seconds", stream="pods") < 60
        assert await metric(run, "fairlead_refused_children") == await metric(run, "fairlead_failing_keys") == 0


async def test_a_silent_stream_is_named_with_its_age() -> None:
    async with running() as run:
        await until(lambda: run.operator.health.readiness() == [], "ready")
        await until(lambda: any(stream.path.endswith("/pods") for stream in run.api.streams), "watched")
        await asyncio.sleep(0.5)  # its beginning is a sign of life, too, and must not come after the next line
        run.operator.streams["pods"].last_heard_at -= 500.0
        assert "pods: nothing heard for 50" in await read(run, "/readyz")
        assert await read(run, "/healthz") == "ok\n", "it was tried a moment ago: a restart would not help"
        run.operator.streams["pods"].last_tried_at -= 500.0
        assert (await debug(run))["streams"]["pods"]["silentSeconds"] >= 500
        assert await metric(run, "fairlead_watch_silence_seconds", stream="pods") >= 500
        assert await metric(run, "fairlead_watch_silence_seconds", stream="services") < 500
        assert "the watch of pods has been silent" in await read(run, "/healthz")


async def test_api_errors_are_shown_by_kind_until_they_end_and_no_word_of_them_is() -> None:
    async with running() as run:
        await until(lambda: run.operator.controller.is_working, "works")
        run.api.fail(503, method="PATCH", contains="/services", times=10_000, message=f"token={CANARY}")
        run.put_cr("m", x=1)
        error = await shown(run, lambda page: page["lastErrors"].get("ml/m"))
        assert error["error"] == "Unavailable (503)"
        assert len(error["reconcileId"]) == 12
        await shown(run, lambda page: page["lastErrors"]["ml/m"]["times"] >= 3 and page["failures"]["ml/m"] >= 3)
        assert await metric(run, "fairlead_failing_keys") == 1
        assert await metric(run, "rest_client_requests_total", code="503", method="PATCH") >= 3
        assert CANARY not in await read(run, "/debug/queue") + await read(run, "/metrics")
        run.api.faults.clear()
        await shown(run, lambda page: not page["lastErrors"])
        assert await metric(run, "fairlead_failing_keys") == 0


async def test_no_answer_at_all_is_told_from_a_bad_one() -> None:
    async with running() as run:
        await until(lambda: run.operator.controller.is_working, "works")
        run.api.fail(0, method="PATCH", contains="/services", times=10_000)
        run.put_cr("m", x=1)
        error = await shown(run, lambda page: page["lastErrors"].get("ml/m"))
        assert error["error"] == "Unavailable (no answer)"
        assert await metric(run, "rest_client_requests_total", code="<error>", method="PATCH") >= 1


@pytest.mark.parametrize(("code", "reason"), [(403, "ChildRefused"), (422, "InvalidChild")])
async def test_a_refused_child_is_named_with_its_reason_and_its_next_attempt(code: int, reason: str) -> None:
    async with running() as run:
        await until(lambda: run.operator.controller.is_working, "works")
        run.api.fail(code, method="PATCH", contains="/services", times=10_000, message=f"no {CANARY}")
        run.put_cr("m", x=1)
        refused = await shown(run, lambda page: page["refused"].get("ml/m"))
        assert list(refused) == ["Service/m"]
        assert refused["Service/m"]["reason"] == reason
        assert refused["Service/m"]["attempts"] == 1
        assert 0 < refused["Service/m"]["againInSeconds"] <= 15
        assert await metric(run, "fairlead_refused_children", reason=reason) == 1
        assert await metric(run, "fairlead_refused_children") == 1
        assert CANARY not in await read(run, "/debug/queue") + await read(run, "/metrics")
        run.api.faults.clear()
        run.put_cr("m", x=2)  # another generation is another wish
        await shown(run, lambda page: not page["refused"])


async def test_a_child_that_a_predecessor_left_behind_is_named_from_the_first_second_on() -> None:
    async with running() as run:
        await until(lambda: run.operator.controller.is_working, "works")
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m"), "children")
        assert (await debug(run))["waitingForDeletion"] == {}
        service = run.api.objects[f"{SERVICES}/m"]
        run.api.put(
            SERVICES, "m", **{**service, "metadata": {**service["metadata"], "finalizers": ["example.com/hold"]}}
        )
        run.api.remove(f"{CRS}/m")
        await until(lambda: not run.operator.cache.keys("LLMDeployment"), "its end is heard of")
        run.put_cr("m", x=1)
        waiting = await shown(run, lambda page: page["waitingForDeletion"].get("ml/m"))
        assert waiting["Service/m"]["uid"] == service["metadata"]["uid"]
        assert 0 <= waiting["Service/m"]["forSeconds"] < 30
        assert await metric(run, "fairlead_left_behind_children") == len(waiting)
        for path in (f"{SERVICES}/m", f"{DEPLOYMENTS}/m"):
            if path in run.api.objects:
                run.api.remove(path)
        await shown(run, lambda page: not page["waitingForDeletion"])
        assert await metric(run, "fairlead_left_behind_children") == 0


async def test_a_bug_in_planning_is_named_by_its_place_and_harms_nobody_else() -> None:
    async with running() as run:
        run.planner.error = KeyError(CANARY)
        run.put_cr("broken", broken=True)
        run.put_cr("m", x=1)
        error = await shown(run, lambda page: page["lastErrors"].get("ml/broken"))
        assert error["error"].startswith("KeyError in ")
        assert await metric(run, "controller_runtime_reconcile_panics_total") >= 1
        await until(lambda: run.has_children("m"), "the other is served")
        assert CANARY not in await read(run, "/debug/queue")


async def test_who_holds_the_lease_and_for_how_long_it_was_not_renewed() -> None:
    api = FakeApi()
    leases = LEASE.rpartition("/")[0]
    api.put(leases, "fairlead", spec={"holderIdentity": "other", "leaseDurationSeconds": 3600, "leaseTransitions": 4})
    async with running(api, leader_elect=True, retry_period_s=0.05, renew_deadline_s=0.5) as run:
        lease = await shown(run, lambda page: page["lease"])
        assert (lease["holder"], lease["transitions"]) == ("other", 4)
        await asyncio.sleep(0.3)
        page = await debug(run)
        assert not page["leading"]
        assert page["lease"]["renewedSecondsAgo"] >= 0.3, "the holder is silent"
        assert await metric(run, "fairlead_lease_age_seconds") >= 0.3
        assert await metric(run, "leader_election_master_status") == 0
        api.put(leases, "fairlead", spec={"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 4})
        page = await shown(run, lambda page: page["leading"] and page)
        assert page["lease"]["holder"] == page["identity"]
        assert page["lease"]["transitions"] == 5
        assert page["lease"]["renewedSecondsAgo"] < 0.5


async def test_a_fight_over_a_field_names_the_field(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="fairlead")
    async with running() as run:
        run.put_cr("m", x=1)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "served")
        run.api.put(SERVICES, "m", **{**run.api.objects[f"{SERVICES}/m"], "spec": {"x": 9}})
        await until(lambda: run.api.objects[f"{SERVICES}/m"]["spec"] == {"x": 1}, "healed")
        await until(lambda: "Service/m (spec.x was changed)" in caplog.text, "the log names it")
        assert await metric(run, "fairlead_applies_total", cause="drift", kind="Service") == 1


async def test_a_resource_that_is_gone_leaves_no_trouble_behind() -> None:
    async with running() as run:
        await until(lambda: run.operator.controller.is_working, "works")
        run.api.fail(503, method="PATCH", contains="/services", times=10_000)
        run.put_cr("m", x=1)
        await shown(run, lambda page: page["lastErrors"])
        run.api.remove(f"{CRS}/m")
        await shown(run, lambda page: not page["lastErrors"])
        assert f"{SERVICES}/m" not in run.api.objects


def test_the_latest_troubles_are_shown_and_no_more_than_asked_for() -> None:
    now = [0.0]
    troubles = Troubles(lambda: now[0])
    for number in range(5):
        now[0] += 1.0
        troubles.failed(ObjectKey("LLMDeployment", "ml", f"m{number}"), errors.Unavailable("x", status=500), "id")
    assert list(troubles.describe(2)) == ["ml/m4", "ml/m3"]
    assert troubles.describe(1)["ml/m4"] == {
        "error": "Unavailable (500)", "times": 1, "secondsAgo": 0.0, "reconcileId": "id",
    }  # fmt: skip
    troubles.recovered(ObjectKey("LLMDeployment", "ml", "m4"))
    assert "ml/m4" not in troubles.describe(9)


def test_errors_are_named_without_their_words() -> None:
    assert name_error(errors.Unavailable("secret words")) == "Unavailable (no answer)"
    assert name_error(errors.Forbidden("secret words", status=403)) == "Forbidden (403)"
    assert name_error(TimeoutError("secret words")) == "TimeoutError"
