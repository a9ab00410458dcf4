"""The port for alerts: who is let in, what each answer says, and that nothing is accepted before status tells of it."""

from __future__ import annotations

import asyncio
import gzip
import logging
from pathlib import Path

import pytest
from tests.unit.runtime.alertdesk import AUTOSCALING, KEY, TOKEN, Desk, alert_desk
from tests.unit.sources.deliveries import START, make_alert, make_body

from fairlead.runtime import alerts
from fairlead.runtime.alerts import BURST, PATH, RATE_PER_S, WAITING_MAX, WRONG_BURST, WRONG_PER_S, Bucket, TokenFile
from fairlead.runtime.inbox import ALL_AGAIN_S

OTHER_TOKEN = "token-of-alertmanager-2"


async def test_nothing_is_accepted_before_status_tells_of_it(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.writes_status = False
        delivery = asyncio.create_task(desk.post(make_body()))
        while not desk.evaluated:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert not delivery.done()
        desk.run_pass()
        assert (await delivery).status == 200
        assert desk.kept() == [START]


async def test_what_is_not_kept_in_time_is_503_and_the_repeat_is_accepted(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.writes_status = False
        answer = await desk.post(make_body())
        assert (answer.status, answer.body) == (503, {"error": "not written to status within 0 s"})
        desk.writes_status = True
        assert (await desk.post(make_body())).status == 200
        assert desk.evaluated == [KEY, KEY]  # the repeat asks again: the first pass may have failed
        assert desk.kept() == [START]


async def test_a_resolved_that_is_not_kept_is_503_too(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        await desk.post(make_body())
        desk.writes_status = False
        assert (await desk.post(make_body(make_alert("resolved")))).status == 503
        assert (await desk.post(make_body(make_alert("resolved")))).status == 503
        desk.run_pass()
        assert (await desk.post(make_body(make_alert("resolved")))).status == 200


async def test_a_replica_that_does_not_lead_sends_the_next_request_elsewhere(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.leading = False
        answer = await desk.post(make_body())
        assert (answer.status, answer.headers["Connection"]) == (503, "close")
        assert desk.seen.results == {"not_leading": 1}
        assert desk.evaluated == []


async def test_who_stops_leading_meanwhile_has_accepted_nothing(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.writes_status = False
        delivery = asyncio.create_task(desk.post(make_body()))
        while not desk.evaluated:
            await asyncio.sleep(0.005)
        desk.leading = False
        desk.inbox.forget()
        assert (await delivery).status == 503


async def test_a_new_leader_knows_what_its_predecessor_accepted(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        await desk.post(make_body())
        desk.inbox.forget()
        assert [one.fingerprint for one in desk.inbox.book_of(desk.live()).active] == ["6d9fa5e1c2b3a4f0"]
        answer = await desk.post(make_body())
        assert (answer.status, answer.body) == (200, {"repeated": 1})
        assert (desk.evaluated, desk.status_writes) == ([KEY], 1)
        assert (await desk.post(make_body(make_alert("resolved")))).body == {"resolved": 1}
        assert desk.kept() == []


async def test_deleted_while_somebody_waits(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.writes_status = False
        delivery = asyncio.create_task(desk.post(make_body()))
        while not desk.evaluated:
            await asyncio.sleep(0.005)
        desk.remove()
        assert (await delivery).status == 200
        assert desk.inbox.count_firing() == 0


async def test_one_that_is_being_deleted_is_not_concerned(tmp_path: Path) -> None:
    """Its status is not written any more, for as long as a finalizer holds it."""
    async with alert_desk(tmp_path) as desk:
        desk.writes_status = False
        delivery = asyncio.create_task(desk.post(make_body()))
        while not desk.evaluated:
            await asyncio.sleep(0.005)
        desk.put(deleted=START)
        assert (await delivery).status == 200
        answer = await desk.post(make_body())
        assert (answer.status, answer.body) == (200, {"not_concerned": 1})
        assert desk.evaluated == [KEY]


async def test_a_successor_of_the_same_name_has_no_alerts_of_its_predecessor(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        await desk.post(make_body())
        desk.remove()
        desk.put(uid="another")
        assert desk.inbox.book_of(desk.live()).active == ()
        assert (await desk.post(make_body())).body == {"firing": 1}


async def test_both_tokens_of_a_rotation_are_admitted_and_the_file_is_read_again(tmp_path: Path) -> None:
    async with alert_desk(tmp_path, TOKEN, OTHER_TOKEN) as desk:
        for token in (TOKEN, OTHER_TOKEN):
            assert (await desk.post(make_body(), token)).status == 200
        desk.token_file.write_text(f"{OTHER_TOKEN}\n")
        desk.now[0] += 1.0
        assert (await desk.post(make_body(), TOKEN)).status == 401
        assert (await desk.post(make_body(), OTHER_TOKEN)).status == 200


async def test_a_mounted_secret_is_swapped(tmp_path: Path) -> None:
    """The kubelet replaces a link beside the file."""
    for name, token in (("..1", TOKEN), ("..2", OTHER_TOKEN)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(token)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    now = [0.0]
    tokens = TokenFile(tmp_path / "token", lambda: now[0])
    assert tokens.admits(f"Bearer {TOKEN}")
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert tokens.admits(f"Bearer {TOKEN}")
    now[0] = 1.0
    assert not tokens.admits(f"Bearer {TOKEN}")
    assert tokens.admits(f"bearer {OTHER_TOKEN}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "0 tokens; needed: one or two lines"),
        ("\n \n", "0 tokens; needed: one or two lines"),
        (f"{TOKEN}\n" * 3, "3 tokens; needed: one or two lines"),
        ("short", "line 1: at least 16 ASCII characters without spaces are needed"),
        (f"{TOKEN}\nwith a space in between", "line 2: at least 16 ASCII"),
        (f"{TOKEN}é", "line 1: at least 16 ASCII"),
        ("x" * 5000, "more than 4096 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_file_that_cannot_be_used_admits_nobody(
    content: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.token_file.write_text(content)
        tokens = TokenFile(desk.token_file, lambda: 0.0)
        assert not tokens.has_tokens
        assert not tokens.admits("Bearer ")
        assert reason in caplog.text
        assert "nobody is admitted" in caplog.text
        assert not content.strip() or content.split()[0] not in caplog.text


async def test_without_tokens_alertmanager_is_told_to_come_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "absent")
    await desk.server.start()
    try:
        assert (await desk.post(make_body())).status == 503
        assert desk.seen.results == {"no_token": 1}
        desk.token_file.write_text(TOKEN)
        desk.put()
        desk.now[0] += 1.0
        assert (await desk.post(make_body())).status == 200
    finally:
        await desk.server.stop()


async def test_a_file_that_is_broken_later_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with alert_desk(tmp_path) as desk:
        assert (await desk.post(make_body())).status == 200
        for _ in range(3):
            desk.token_file.write_text("x")
            desk.now[0] += 1.0
            assert (await desk.post(make_body())).status == 200
        desk.token_file.unlink()
        desk.now[0] += 1.0
        assert (await desk.post(make_body())).status == 200
        assert caplog.text.count("those before stay") == 2


@pytest.mark.parametrize(
    "header", ["", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", f"Bearer {TOKEN} {TOKEN}", "Bearer é"]
)
async def test_other_headers_are_not_let_in(header: str, tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        answer = await desk.post(make_body(), None, Authorization=header)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.headers["Connection"] == "close"


async def test_a_wrong_token_is_counted_always_and_logged_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with alert_desk(tmp_path) as desk:
        for _ in range(20):
            await desk.post(make_body(), "a-token-that-is-wrong")
        assert caplog.text.count("without a token that is admitted") == 1
        desk.now[0] += 60.0
        await desk.post(make_body(), "a-token-that-is-wrong")
        assert desk.seen.results == {"unauthorized": 21}
        assert [getattr(record, "more", None) for record in caplog.records] == [0, 19]
        assert "a-token-that-is-wrong" not in caplog.text


async def test_more_than_the_rate_is_429_with_the_time_to_wait(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        for _ in range(BURST):
            assert desk.server._bucket.take() == 0.0
        answer = await desk.post(make_body())
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        desk.now[0] += 2.0 / RATE_PER_S
        assert (await desk.post(make_body())).status == 200
        assert desk.seen.results == {"limited": 1, "accepted": 1}


async def test_who_has_no_token_uses_up_nobodys_rate(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        left = desk.server._bucket._left
        await desk.post(make_body(), "a-token-that-is-wrong")
        assert desk.server._bucket._left == left


async def test_wrong_tokens_have_a_rate_and_a_right_one_is_let_in_all_the_same(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        for _ in range(WRONG_BURST):
            assert (await desk.post(make_body(), "a-token-that-is-wrong")).status == 401
        answer = await desk.post(make_body(), "a-token-that-is-wrong")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await desk.post(make_body())).status == 200
        desk.now[0] += 1.0 / WRONG_PER_S
        assert (await desk.post(make_body(), "a-token-that-is-wrong")).status == 401
        assert desk.seen.results == {"unauthorized": WRONG_BURST + 1, "limited": 1, "accepted": 1}


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What was said before. A connection that stays open fails."""
    async with asyncio.timeout(10.0):
        return await reader.read()


@pytest.mark.parametrize("sent", [b"", f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bear".encode()])
async def test_a_head_that_does_not_come_ends_the_connection(
    sent: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "HEAD_TIMEOUT_S", 0.1)
    async with alert_desk(tmp_path) as desk:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port)
        writer.write(sent)
        assert await until_closed(reader) == b""
        writer.close()
        assert desk.seen.results == {}


async def test_a_body_that_nobody_wants_is_waited_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "LINGER_S", 0.1)
    async with alert_desk(tmp_path) as desk:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        assert (await until_closed(reader)).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_connections_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "CONNECTIONS_MAX", 3)
    async with alert_desk(tmp_path) as desk:
        writers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port)
            writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".encode())
            assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
            writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port)
        assert await until_closed(reader) == b""
        assert "More connections to the port for alerts than 3" in caplog.text
        for one in (*writers, writer):
            one.close()
        while desk.server._runner.server.connections:  # type: ignore[union-attr]
            await asyncio.sleep(0.005)
        assert (await desk.post(make_body())).status == 200


async def test_a_head_of_many_lines_is_not_read(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        assert (await desk.post(make_body(), **{f"X-{number}": "x" for number in range(20)})).status == 200
        assert (await desk.post(make_body(), **{f"X-{number}": "x" for number in range(40)})).status == 400


def test_a_bucket_fills_up_to_its_burst() -> None:
    now = [0.0]
    bucket = Bucket(2.0, 3, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


async def test_those_who_wait_are_bounded(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.server._waiting = WAITING_MAX
        answer = await desk.post(make_body())
        assert (answer.status, desk.seen.results) == (503, {"busy": 1})


async def test_a_compressed_body_is_measured_unpacked(tmp_path: Path) -> None:
    packed, bomb = gzip.compress(make_body()), gzip.compress(b" " * 50_000_000)
    async with alert_desk(tmp_path) as desk:
        assert (await desk.post(packed, **{"Content-Encoding": "gzip"})).status == 200
        assert (await desk.post(bomb, **{"Content-Encoding": "gzip"})).status == 413
        assert (await desk.post(b"not gzip at all", **{"Content-Encoding": "gzip"})).status == 400


async def test_nothing_else_is_served(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        assert (await desk.post(b"", method="GET")).status == 405
        for path in ("/", "/metrics", "/alertmanager/v2", "/alertmanager/v1/x"):
            assert (await desk.post(make_body(), path=path)).status == 404


async def test_truncated_deliveries_look_at_all_once_in_a_while(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        body = make_body(alerts=[], truncatedAlerts=1)
        for _ in range(3):
            await desk.post(body)
        assert desk.evaluated == [KEY]
        desk.now[0] += ALL_AGAIN_S
        await desk.post(body)
        assert desk.evaluated == [KEY, KEY]


async def test_of_the_unknown_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with alert_desk(tmp_path) as desk:
        for _ in range(3):
            await desk.post(make_body(make_alert(labels={"llm_name": "gone"}), make_alert(labels={"llm_name": ""})))
        assert caplog.text.count("ml/gone, which is not there") == 1
        assert caplog.text.count("has no labels llm_namespace and llm_name") == 1
        assert desk.seen.effects == {"not_concerned": 6}


async def test_autoscaling_that_is_taken_away_while_somebody_waits(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        desk.writes_status = False
        delivery = asyncio.create_task(desk.post(make_body()))
        while not desk.evaluated:
            await asyncio.sleep(0.005)
        desk.put(autoscaling={**AUTOSCALING, "mode": "External"})
        assert (await delivery).status == 200


async def test_the_page_and_the_gauge_show_what_fires(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        assert (desk.inbox.describe(), desk.inbox.count_firing()) == ({}, 0)
        await desk.post(make_body())
        assert desk.inbox.describe() == {"ml/m": ["LLMDeploymentHighLatency"]}
        assert desk.inbox.count_firing() == 1
        desk.now[0] += 300.0
        assert desk.inbox.count_firing() == 0
        desk.run_pass()
        assert desk.inbox.describe() == {}


async def test_a_book_that_is_empty_is_not_kept_in_memory(tmp_path: Path) -> None:
    async with alert_desk(tmp_path) as desk:
        for name in ("a", "b", "c"):
            desk.put(name)
            desk.inbox.book_of(desk.live(name))
        assert desk.inbox._books == {}
