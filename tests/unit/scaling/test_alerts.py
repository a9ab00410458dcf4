"""Which alerts fire, told twice, late, in any order or not at all."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.facts.alerts import ActiveAlert, Alert
from fairlead.scaling.alerts import (
    ACTIVE_MAX,
    ENDED_MAX,
    EXPIRES_S,
    LATE_S,
    Book,
    Effect,
    describe_alerts,
    enter,
    expire,
    is_told,
    next_expiry,
    read_book,
)

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def firing(start: float = 0, fingerprint: str = "a", end: float | None = None) -> Alert:
    return Alert(fingerprint, "HighLatency", True, at(start), at(end) if end is not None else None)


def resolved(start: float = 0, fingerprint: str = "a", end: float = 5) -> Alert:
    return Alert(fingerprint, "HighLatency", False, at(start), at(end))


def tell(*told: tuple[float, Alert], book: Book = Book()) -> tuple[Book, list[Effect]]:  # noqa: B008 - it is frozen
    effects = []
    for when, alert in told:
        book, effect = enter(book, alert, at(when))
        effects.append(effect)
    return book, effects


def starts(book: Book) -> list[tuple[str, datetime]]:
    return [(one.fingerprint, one.starts_at) for one in book.active]


def test_an_alert_fires_and_is_resolved() -> None:
    book, effects = tell((1, firing()))
    assert starts(book) == [("a", NOW)]
    book, more = tell((9, resolved()), book=book)
    assert starts(book) == []
    assert effects + more == [Effect.FIRING, Effect.RESOLVED]


def test_the_same_delivery_again_says_nothing_new() -> None:
    once, _ = tell((1, firing()))
    twice, effects = tell((3, firing()), book=once)
    assert twice == once  # not even a write of status
    assert effects == [Effect.REPEATED]


def test_a_repeat_after_a_minute_is_noted_so_that_the_alert_does_not_expire() -> None:
    book, effects = tell((0, firing()), (61, firing()))
    assert effects == [Effect.FIRING, Effect.REPEATED]
    assert book.active[0].last_seen == at(61)
    assert expire(book, at(EXPIRES_S + 1)).active


def test_an_older_resolved_does_not_end_what_fires_since() -> None:
    book, effects = tell((1, firing(30)), (2, resolved(0, end=20)))
    assert effects == [Effect.FIRING, Effect.OUTDATED]
    assert starts(book) == [("a", at(30))]


def test_a_firing_that_comes_after_its_own_resolved_does_not_fire() -> None:
    book, effects = tell((6, resolved(0)), (7, firing(0)))
    assert effects == [Effect.RESOLVED, Effect.OUTDATED]
    assert starts(book) == []


def test_an_older_firing_does_not_replace_a_newer_one() -> None:
    book, effects = tell((1, firing(30)), (2, firing(0)))
    assert effects == [Effect.FIRING, Effect.OUTDATED]
    assert starts(book) == [("a", at(30))]


def test_a_new_start_is_a_new_alert() -> None:
    book, effects = tell((1, firing(0)), (40, firing(30)))
    assert effects == [Effect.FIRING, Effect.FIRING]
    assert starts(book) == [("a", at(30))]


def test_the_same_start_fires_again_once_its_resolved_is_a_minute_old() -> None:
    """Prometheus was away: Alertmanager took the alert for resolved, and it comes back with the start that it had."""
    book, effects = tell((0, firing(0)), (10, resolved(0)), (10 + LATE_S, firing(0)))
    assert effects == [Effect.FIRING, Effect.RESOLVED, Effect.FIRING]
    assert starts(book) == [("a", NOW)]


def test_a_second_resolved_is_no_news() -> None:
    _, effects = tell((0, firing(0)), (10, resolved(0)), (11, resolved(0)))
    assert effects == [Effect.FIRING, Effect.RESOLVED, Effect.REPEATED]


def test_without_its_resolved_an_alert_expires() -> None:
    book, _ = tell((0, firing(0)))
    assert next_expiry(book) == at(EXPIRES_S)
    assert expire(book, at(EXPIRES_S - 1)) is book
    assert expire(book, at(EXPIRES_S)) == Book()
    assert next_expiry(Book()) is None


def test_an_alert_that_says_when_it_ends_ends_then() -> None:
    book, _ = tell((0, firing(0, end=20)))
    assert next_expiry(book) == at(20)
    assert expire(book, at(20)).active == ()


def test_a_firing_that_is_over_already_is_outdated() -> None:
    book, effects = tell((30, firing(0, end=20)))
    assert (book, effects) == (Book(), [Effect.OUTDATED])


def test_what_is_kept_is_bounded_and_those_that_came_first_stay() -> None:
    alerts = [firing(number, fingerprint=f"{number:x}") for number in range(40)]
    book, effects = tell(*((number, alert) for number, alert in enumerate(alerts)))
    assert [one.fingerprint for one in book.active] == [f"{number:x}" for number in range(ACTIVE_MAX)]
    assert effects == [Effect.FIRING] * ACTIVE_MAX + [Effect.LEFT_OUT] * (40 - ACTIVE_MAX)
    again, effects = tell(*((50, alert) for alert in alerts), book=book)
    assert again == book  # no write of status, however often all of them are repeated
    assert effects == [Effect.REPEATED] * ACTIVE_MAX + [Effect.LEFT_OUT] * (40 - ACTIVE_MAX)
    book, effects = tell(
        (51, firing(45, fingerprint="3")), (52, resolved(5, fingerprint="5")), (53, alerts[20]), book=book
    )
    assert effects == [Effect.FIRING, Effect.RESOLVED, Effect.FIRING]
    assert [one.fingerprint for one in book.active][-2:] == ["3", "14"]
    book, _ = tell(*((40, resolved(0, fingerprint=f"{number:x}")) for number in range(100, 150)), book=book)
    assert len(book.ended) == ENDED_MAX


def test_status_and_back() -> None:
    book, _ = tell((0.5, firing(0)), (2, firing(1.25, fingerprint="b")))
    described = describe_alerts(book.active)
    assert described == [
        {
            "fingerprint": "a",
            "name": "HighLatency",
            "startsAt": "2026-11-28T12:00:00.000Z",
            "lastSeen": "2026-11-28T12:00:00Z",
        },
        {
            "fingerprint": "b",
            "name": "HighLatency",
            "startsAt": "2026-11-28T12:00:01.250Z",
            "lastSeen": "2026-11-28T12:00:02Z",
        },
    ]
    again = read_book({"scaling": {"alerts": described}})
    assert describe_alerts(again.active) == described
    assert starts(again) == starts(book)


@pytest.mark.parametrize(
    "status", [{}, {"scaling": None}, {"scaling": {}}, {"scaling": {"alerts": None}}, {"scaling": {"alerts": [{"x": "y"}]}},
               {"scaling": {"alerts": [{"fingerprint": "a", "startsAt": "x", "lastSeen": "y"}]}}]
)  # fmt: skip
def test_a_status_that_has_none_or_that_somebody_else_has_written(status: dict[str, object]) -> None:
    assert read_book(status) == Book()


def test_what_status_tells_of_an_alert() -> None:
    book, _ = tell((0, firing(0)))
    status = {"scaling": {"alerts": describe_alerts(book.active)}}
    later, _ = tell((40, firing(30)), book=book)
    assert is_told(status, book, "a")
    assert not is_told({}, book, "a")
    assert not is_told(status, Book(), "a")  # resolved, and status does not know yet
    assert not is_told(status, later, "a")  # fires anew
    assert is_told({}, Book(), "a")


deliveries = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from("ab")), min_size=1, max_size=6)


@given(deliveries)
def test_the_order_within_a_minute_does_not_matter(told: list[tuple[bool, int, str]]) -> None:
    """Starts are ten seconds apart, and each firing ends five seconds after it began: in whatever order a minute tells of it, and
    however often, the same alerts fire in the end."""
    alerts = [(firing if fires else resolved)(10.0 * start, fingerprint) for fires, start, fingerprint in told]
    ends = set()
    for order in itertools.islice(itertools.permutations(alerts), 120):
        book, _ = tell(*((50 + number, alert) for number, alert in enumerate((*order, order[-1]))))
        ends.add(tuple(sorted(starts(book))))
    assert len(ends) == 1


def test_a_book_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Book().active = (ActiveAlert("a", "x", NOW, NOW),)  # type: ignore[misc]
