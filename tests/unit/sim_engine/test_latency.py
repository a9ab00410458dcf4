"""The latency model: what a step takes, who waits, who is preempted, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_sim.latency import Batch, Limits, Sequence, Speed, Step

SPEED = Speed(prompt_tokens_per_s=1000.0, output_tokens_per_s=100.0, batch_slowdown=0.1, prefill_overhead_s=0.05)


def run(batch: Batch, limit: int = 100_000) -> list[Step]:
    steps: list[Step] = []
    while (step := batch.step()) is not None:
        steps.append(step)
        assert len(steps) < limit, "the batch does not come to an end"
    return steps


def test_a_lone_request_waits_for_its_prompt_and_then_decodes_at_the_rate_of_one_stream() -> None:
    batch = Batch(SPEED, Limits())
    batch.add(Sequence(prompt_tokens=100, max_output_tokens=11))
    steps = run(batch)
    assert steps[0].duration_s == pytest.approx(0.05 + 0.1), "overhead and 100 tokens at 1000/s"
    assert [len(step.produced) for step in steps] == [1] * 11, "the first token comes with the prefill"
    assert sum(step.duration_s for step in steps[1:]) == pytest.approx(10 * 0.01)


def test_each_further_stream_slows_all_down() -> None:
    alone, crowd = (
        SPEED.step_duration_s(prefill_tokens=0, decoding=1),
        SPEED.step_duration_s(prefill_tokens=0, decoding=11),
    )
    assert crowd == pytest.approx(2 * alone)


def test_over_max_sequences_requests_wait_their_turn() -> None:
    batch = Batch(SPEED, Limits(max_sequences=2))
    sequences = [Sequence(10, 5) for _ in range(3)]
    for sequence in sequences:
        batch.add(sequence)
    first = batch.step()
    assert first is not None
    assert first.admitted == sequences[:2]
    assert list(batch.waiting) == sequences[2:]
    steps = run(batch)
    assert steps[-1].finished == [sequences[2]]


def test_a_long_prompt_is_prefilled_in_chunks_while_others_decode() -> None:
    batch = Batch(SPEED, Limits(max_batched_tokens=64))
    short, long = Sequence(10, 50), Sequence(200, 1)
    batch.add(short)
    batch.step()
    batch.add(long)
    steps = run(batch)
    chunks = [step.prefill_tokens for step in steps if step.prefill_tokens]
    assert sum(chunks) == 200
    assert max(chunks) == 63, "one token of the budget is the running stream's"
    assert all(short in step.produced for step in steps[: len(chunks)])


def test_a_full_kv_cache_preempts_the_youngest_and_it_still_finishes() -> None:
    batch = Batch(SPEED, Limits(kv_blocks=4, block_size=4, prefix_caching=False))
    old, young = Sequence(4, 8), Sequence(4, 8)
    batch.add(old)
    batch.add(young)
    steps = run(batch)
    preempted = [sequence for step in steps for sequence in step.preempted]
    assert young in preempted
    assert old not in preempted
    assert (old.output_tokens, young.output_tokens) == (8, 8)
    assert batch.kv_usage == 0


def test_a_request_that_can_never_fit_is_refused_at_once() -> None:
    batch = Batch(SPEED, Limits(kv_blocks=4, block_size=4))
    with pytest.raises(ValueError, match="do not fit in a KV cache of 16"):
        batch.add(Sequence(10, 7))


def test_a_shared_beginning_is_computed_once() -> None:
    batch = Batch(SPEED, Limits(block_size=4))
    prefix = (1, 2, 3)
    batch.add(Sequence(13, 1, prefix))
    first = run(batch)
    batch.add(Sequence(13, 1, (*prefix[:2], 9)))
    second = run(batch)
    assert first[0].cached_tokens == 0
    assert second[0].cached_tokens == 8, "two whole blocks"
    assert second[0].prefill_tokens == 5


def test_without_prefix_caching_nothing_is_shared() -> None:
    batch = Batch(SPEED, Limits(block_size=4, prefix_caching=False))
    for _ in range(2):
        batch.add(Sequence(13, 1, (1, 2, 3)))
        assert run(batch)[0].prefill_tokens == 13


def test_an_embedding_is_only_prefilled() -> None:
    batch = Batch(SPEED, Limits())
    sequence = Sequence(30, 0)
    batch.add(sequence)
    [step] = run(batch)
    assert (step.prefill_tokens, step.produced, step.finished) == (30, [], [sequence])


def test_a_removed_request_gives_its_blocks_back() -> None:
    batch = Batch(SPEED, Limits(kv_blocks=8, block_size=4))
    running, waiting = Sequence(16, 10), Sequence(8, 8)
    batch.add(running)
    batch.step()
    batch.add(waiting)
    assert batch.kv_usage == 0.5
    batch.remove(running)
    batch.remove(waiting)
    batch.remove(waiting)
    assert batch.kv_usage == 0
    assert batch.step() is None


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=12),
    st.integers(1, 6),
    st.integers(4, 64),
)
def test_every_request_gets_exactly_its_tokens_and_every_block_comes_back(
    sizes: list[tuple[int, int]], max_sequences: int, max_batched_tokens: int
) -> None:
    batch = Batch(SPEED, Limits(max_sequences, kv_blocks=26, block_size=4, max_batched_tokens=max_batched_tokens))
    sequences = [Sequence(prompt, output) for prompt, output in sizes]
    for sequence in sequences:
        batch.add(sequence)
    steps = run(batch)
    produced = [sequence for step in steps for sequence in step.produced]
    finished = [sequence for step in steps for sequence in step.finished]
    assert [produced.count(sequence) for sequence in sequences] == [output for _, output in sizes]
    assert sorted(map(id, finished)) == sorted(map(id, sequences)), "each ends once"
    assert batch.kv_usage == 0
    assert all(step.duration_s > 0 for step in steps)
