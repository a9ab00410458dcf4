"""What is held of pods' answers at the same time."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from tests.unit.sources.pods import answer, serving_pods

from fairlead.sources.fetching import LARGE_AT_ONCE, LARGE_BYTES, Fetcher, FetchError

LARGE = answer("x" * (LARGE_BYTES + 1))
SMALL = answer("x" * LARGE_BYTES)


async def test_large_answers_have_few_places_and_small_ones_do_not_wait_for_them() -> None:
    fetcher = Fetcher(timeout_s=1.0, parallel=LARGE_AT_ONCE)
    async with serving_pods(lambda address: SMALL if address == "127.0.0.9" else LARGE) as pods:
        async with AsyncExitStack() as held:
            for _ in range(LARGE_AT_ONCE):
                body = await held.enter_async_context(fetcher.open("http", "127.0.0.2", pods.port, "/metrics"))
                assert len(body) == LARGE_BYTES + 1
            with pytest.raises(FetchError, match="no answer within 1 s"):
                await fetcher.get("http", "127.0.0.2", pods.port, "/metrics")
            assert len(await fetcher.get("http", "127.0.0.9", pods.port, "/metrics")) == LARGE_BYTES
        for _ in range(LARGE_AT_ONCE + 1):
            assert len(await fetcher.get("http", "127.0.0.2", pods.port, "/metrics")) == LARGE_BYTES + 1
    await fetcher.close()


async def test_a_place_is_given_back_by_an_answer_that_is_too_large() -> None:
    fetcher = Fetcher(timeout_s=1.0, max_bytes=LARGE_BYTES + 1000)
    too_large = answer("x" * (2 * LARGE_BYTES))
    async with serving_pods(lambda address: LARGE if address == "127.0.0.9" else too_large) as pods:
        for _ in range(LARGE_AT_ONCE + 1):
            with pytest.raises(FetchError, match="more than"):
                await fetcher.get("http", "127.0.0.2", pods.port, "/metrics")
        assert await fetcher.get("http", "127.0.0.9", pods.port, "/metrics")
    await fetcher.close()
