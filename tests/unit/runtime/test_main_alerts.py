"""The whole operator takes an alert: the port, the queue, the pass, the status at the API server, the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from tests.unit.kube.fake_api import FakeApi
from tests.unit.runtime.alertdesk import AUTOSCALING, TOKEN
from tests.unit.runtime.test_main import CRS, LEASE, Running, running, until
from tests.unit.sources.deliveries import make_alert, make_body

from fairlead.facts.observed import Observed
from fairlead.planning.plan import Plan
from fairlead.runtime.alerts import PATH
from fairlead.scaling.alerts import describe_alerts


def flags(folder: Path) -> dict[str, Any]:
    (folder / "token").write_text(TOKEN)
    return {"alerts_token_file": str(folder / "token"), "alerts_address": "127.0.0.1", "alerts_port": 0}


async def deliver(run: Running, body: bytes, token: str = TOKEN) -> tuple[int, dict[str, Any]]:
    server = run.operator.alert_server
    assert server is not None
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
        session.post(PATH, data=body, headers={"Authorization": f"Bearer {token}"}) as answer,
    ):
        return answer.status, await answer.json()


def write_alerts(run: Running) -> None:
    """The planner writes what the inbox knows, as the real one does."""
    plan = run.planner.plan

    async def plan_with_alerts(raw: Mapping[str, Any], observed: Observed, now: datetime) -> Plan:
        planned = await plan(raw, observed, now)
        alerts = describe_alerts(observed.signals.alerts)
        return replace(planned, status={**planned.status, "scaling": {"alerts": alerts}} if alerts else planned.status)

    run.planner.plan = plan_with_alerts  # type: ignore[method-assign]


def stored(run: Running) -> list[str]:
    alerts = run.api.objects[f"{CRS}/m"].get("status", {}).get("scaling", {}).get("alerts", [])
    return [one["name"] for one in alerts]


async def test_an_alert_is_in_status_before_it_is_accepted_and_within_a_second(tmp_path: Path) -> None:
    async with running(**flags(tmp_path)) as run:
        write_alerts(run)
        run.put_cr("m", autoscaling=AUTOSCALING)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "first state")
        began = time.monotonic()
        assert await deliver(run, make_body()) == (200, {"firing": 1})
        assert time.monotonic() - began < 1.0
        assert stored(run) == ["LLMDeploymentHighLatency"]
        writes = len(run.api.writes())
        assert await deliver(run, make_body()) == (200, {"repeated": 1})
        assert len(run.api.writes()) == writes
        assert await deliver(run, make_body(make_alert("resolved"))) == (200, {"resolved": 1})
        assert stored(run) == []
        assert (
            run.operator.metrics.registry.get_sample_value("fairlead_alert_deliveries_total", {"result": "accepted"})
            == 3
        )


async def test_an_alert_outlives_the_operator(tmp_path: Path) -> None:
    api = FakeApi()
    async with running(api, **flags(tmp_path)) as run:
        write_alerts(run)
        run.put_cr("m", autoscaling=AUTOSCALING)
        await until(lambda: run.has_children("m") and run.observed("m") == 1, "first state")
        assert (await deliver(run, make_body()))[0] == 200
    async with running(api, **flags(tmp_path)) as run:
        write_alerts(run)
        await until(lambda: run.operator.controller.is_working and not run.operator.queue.busy, "it works")
        assert await deliver(run, make_body()) == (200, {"repeated": 1})
        assert stored(run) == ["LLMDeploymentHighLatency"]


async def test_a_replica_that_stands_by_refuses_and_one_without_a_token_file_has_no_port(tmp_path: Path) -> None:
    lease = {
        "metadata": {"name": "fairlead", "namespace": "fairlead-system"},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 15, "leaseTransitions": 1,
                 "acquireTime": "2100-01-01T00:00:00.000000Z", "renewTime": "2100-01-01T00:00:00.000000Z"},
    }  # fmt: skip
    api = FakeApi()
    api.put(LEASE.rpartition("/")[0], "fairlead", **{key: value for key, value in lease.items() if key != "metadata"})
    async with running(api, leader_elect=True, **flags(tmp_path)) as run:
        await until(lambda: run.operator.alert_server and run.operator.alert_server.port, "the port")
        assert (await deliver(run, make_body()))[0] == 503
        assert (await deliver(run, make_body(), "a-token-that-is-wrong"))[0] == 401
    async with running() as run:
        assert run.operator.alert_server is None


async def test_what_is_about_nobody_is_accepted_and_the_page_shows_what_fires(tmp_path: Path) -> None:
    async with running(**flags(tmp_path)) as run:
        write_alerts(run)
        run.put_cr("m", autoscaling=AUTOSCALING)
        run.put_cr("fixed", x=1)
        await until(lambda: run.observed("m") == run.observed("fixed") == 1, "first state")
        assert await deliver(run, make_body(make_alert(labels={"llm_name": "fixed"}))) == (200, {"not_concerned": 1})
        await deliver(run, make_body())
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{run.operator.server.port}") as session,
            session.get("/debug/queue") as answer,
        ):
            assert json.loads(await answer.text())["alerts"] == {"ml/m": ["LLMDeploymentHighLatency"]}
