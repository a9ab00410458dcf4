"""What Alertmanager sends is read; what is no delivery is refused with the field and the reason, and quotes nothing of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.sources.deliveries import NEVER, make_alert, make_body

from fairlead.sources.alertmanager import ALERTS_MAX, AlertmanagerError, parse_delivery


def test_an_alert_that_fires() -> None:
    delivery = parse_delivery(make_body())
    (alert,) = delivery.alerts
    assert alert.is_firing
    assert alert.about == ("ml", "m")
    assert alert.name == "LLMDeploymentHighLatency"
    assert alert.starts_at == datetime(2026, 11, 28, 12, 0, 0, 123_000, UTC)
    assert alert.ends_at is None
    assert delivery.truncated == 0


def test_each_alert_has_its_own_status_whatever_the_group_has() -> None:
    delivery = parse_delivery(make_body(make_alert("resolved"), make_alert(fingerprint="a1"), status="firing"))
    assert [alert.is_firing for alert in delivery.alerts] == [False, True]
    assert delivery.alerts[0].ends_at == datetime(2026, 11, 28, 12, 3, tzinfo=UTC)


def test_alerts_that_were_left_out_are_noted() -> None:
    assert parse_delivery(make_body(truncatedAlerts=7)).truncated == 7


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-28T12:00:00.123456789Z", datetime(2026, 11, 28, 12, 0, 0, 123_000, UTC)),
        ("2026-11-28T14:00:00+02:00", datetime(2026, 11, 28, 12, 0, 0, 0, UTC)),
    ],
)
def test_times_are_read_to_the_millisecond(text: str, time: datetime) -> None:
    (alert,) = parse_delivery(make_body(make_alert(startsAt=text))).alerts
    assert alert.starts_at == time


@pytest.mark.parametrize("text", [NEVER, "0001-01-01T00:00:00+02:00", "0001-01-01T00:00:00-02:00", None])
def test_gos_zero_time_is_no_time(text: str | None) -> None:
    (alert,) = parse_delivery(make_body(make_alert(endsAt=text))).alerts
    assert alert.ends_at is None


@pytest.mark.parametrize(
    "labels",
    [
        {"llm_name": ""},
        {"llm_name": "M"},
        {"llm_name": "x" * 49},
        {"llm_name": "../../secrets"},
        {"llm_name": 5},
        {"llm_namespace": "a" * 64},
        {"llm_namespace": "a b"},
        {"llm_namespace": None},
        {"llm_name": "x" * 100_000},
    ],
    ids=lambda labels: str(labels)[:40],
)
def test_labels_that_name_nothing_make_an_alert_about_nothing(labels: dict[str, Any]) -> None:
    (alert,) = parse_delivery(make_body(make_alert(labels=labels))).alerts
    assert alert.about is None


def test_labels_of_users_may_be_huge_and_names_are_cut() -> None:
    labels = {"alertname": "a\nb\x1b[31m" + "N" * 100_000, "huge": "x" * 200_000}
    (alert,) = parse_delivery(make_body(make_alert(labels=labels))).alerts
    assert alert.name == "ab[31m" + "N" * 120
    assert alert.about == ("ml", "m")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe{}", "the body is not JSON"),
        (b'{"version": "4", "alerts": [NaN]}', "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b"null", "the body is not a JSON object"),
        (b"{}", 'version: only "4" is known'),
        (make_body(version="3"), 'version: only "4" is known'),
        (make_body(version=4), 'version: only "4" is known'),
        (make_body(alerts={}), "alerts: a list is needed"),
        (make_body(alerts=[{}] * (ALERTS_MAX + 1)), "alerts: at most 1000 in one delivery"),
        (make_body(truncatedAlerts=-1), "truncatedAlerts: a number"),
        (make_body(truncatedAlerts="many"), "truncatedAlerts: a number"),
        (make_body(truncatedAlerts=True), "truncatedAlerts: a number"),
        (make_body(alerts=["x"]), "alerts[0]: an object is needed"),
        (make_body(make_alert(), make_alert("suppressed")), "alerts[1].status: firing or resolved is needed"),
        (make_body(make_alert(fingerprint="")), "alerts[0].fingerprint: at most 64 hexadecimal digits"),
        (make_body(make_alert(fingerprint="zz")), "alerts[0].fingerprint: at most 64 hexadecimal digits"),
        (make_body(make_alert(fingerprint="a" * 65)), "alerts[0].fingerprint: at most 64 hexadecimal digits"),
        (make_body(make_alert(fingerprint=12)), "alerts[0].fingerprint: at most 64 hexadecimal digits"),
        (make_body(make_alert() | {"labels": []}), "alerts[0].labels: an object is needed"),
        (make_body(make_alert(startsAt=None)), "alerts[0].startsAt: the time is needed"),
        (make_body(make_alert(startsAt=NEVER)), "alerts[0].startsAt: the time is needed"),
        (make_body(make_alert(startsAt="yesterday")), "alerts[0].startsAt: a time with its zone is needed"),
        (make_body(make_alert(startsAt="2026-11-28T12:00:00")), "alerts[0].startsAt: a time with its zone"),
        (make_body(make_alert(startsAt=1764331200)), "alerts[0].startsAt: a time with its zone"),
        (make_body(make_alert(endsAt="9999-12-31T23:59:59-12:00")), "alerts[0].endsAt: a time with its zone"),
        (make_body(make_alert(endsAt="2" * 100_000)), "alerts[0].endsAt: a time with its zone"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_delivery_is_refused_with_its_reason(body: bytes, message: str) -> None:
    with pytest.raises(AlertmanagerError) as refused:
        parse_delivery(body)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value)) < 200


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_that(body: bytes) -> None:
    with pytest.raises(AlertmanagerError):
        parse_delivery(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["status", "labels", "startsAt", "endsAt", "fingerprint", "annotations"]), json_values)
def test_a_field_that_is_anything_is_read_or_refused(field: str, value: Any) -> None:
    try:
        delivery = parse_delivery(make_body(make_alert() | {field: value}))
    except AlertmanagerError:
        return
    assert len(delivery.alerts) == 1
