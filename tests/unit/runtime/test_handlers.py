"""kopf as fairlead sets it: it never gives up, and it has nothing to write with."""

from __future__ import annotations

import itertools

from fairlead.runtime.handlers import BACKOFF_MAX_S, EndlessBackoffs, NoDiffBase, NoProgress, make_settings
from fairlead.runtime.server import STREAM_SILENCE_MAX_S


def test_delays_never_end_grow_to_half_a_minute_and_begin_anew_for_each_request() -> None:
    backoffs = EndlessBackoffs()
    for _ in range(2):
        delays = list(itertools.islice(backoffs, 200))
        assert 0.5 <= delays[0] <= 1.0
        assert max(delays) <= BACKOFF_MAX_S
        assert all(delay >= BACKOFF_MAX_S / 2 for delay in delays[6:])


def test_kopf_writes_nothing_and_is_bounded() -> None:
    settings = make_settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert isinstance(settings.persistence.diffbase_storage, NoDiffBase)
    assert isinstance(settings.persistence.progress_storage, NoProgress)
    assert settings.networking.request_timeout == 30
    assert settings.networking.connect_timeout == 5
    assert settings.watching.inactivity_timeout > 60, "above the period of bookmarks"


def test_a_stream_begins_anew_before_the_watchdog_loses_patience() -> None:
    """kopf does not tell of bookmarks: the beginning of a stream is its only regular sign of life."""
    settings = make_settings()
    assert settings.watching.client_timeout is not None
    assert settings.watching.client_timeout + 30 < STREAM_SILENCE_MAX_S
