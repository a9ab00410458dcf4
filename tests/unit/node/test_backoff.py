"""The kubelet's back-off over time, and the counting of probe results."""

from __future__ import annotations

import pytest

from fairlead_cluster.node.actions import Result
from fairlead_cluster.node.backoff import BackOff
from fairlead_cluster.node.imagepull import ImagePuller, PullProblem
from fairlead_cluster.node.images import (
    Image,
    ImageNotFoundError,
    ImageReference,
    InvalidImageNameError,
    default_pull_policy,
    find_image,
)
from fairlead_cluster.node.probes import Tally

S, F, U = Result.SUCCESS, Result.FAILURE, Result.UNKNOWN


def delays_of_crashes(back_off: BackOff, runs: int, run_s: float) -> list[float]:
    """How long each restart waits, for a container whose runs take `run_s` seconds."""
    now_s, waited = 1000.0, []
    for _ in range(runs):
        now_s += run_s
        ended_at_s = now_s
        waited.append(back_off.remaining_s(ended_at_s, now_s))
        now_s += waited[-1]
        back_off.note_start(ended_at_s, now_s)
    return waited


def test_delays_double_from_ten_seconds_to_five_minutes_after_an_immediate_restart() -> None:
    assert delays_of_crashes(BackOff(10, 300), 8, 1) == [0, 10, 20, 40, 80, 160, 300, 300]


def test_ten_quiet_minutes_make_the_next_restart_immediate_again() -> None:
    back_off = BackOff(10, 300)
    delays_of_crashes(back_off, 6, 1)
    assert delays_of_crashes(back_off, 3, 601)[1:] == [0, 0]


def test_time_since_the_end_counts() -> None:
    back_off = BackOff(10, 300)
    back_off.note_start(0, 0)
    assert back_off.remaining_s(ended_at_s=5, now_s=9) == 6
    assert back_off.remaining_s(ended_at_s=5, now_s=20) == 0


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ([S, S, S], [None, S, S]),
        ([F, F, F, F], [None, None, F, F]),
        ([F, F, S, F, F, F], [None, None, None, None, None, F]),
        ([F, F, U, F], [None, None, None, F]),
        ([S, S, F, S, S], [None, S, None, None, S]),
        ([U, U, U], [None, None, None]),
    ],
)
def test_a_verdict_needs_a_row_of_equal_results(results: list[Result], verdicts: list[Result | None]) -> None:
    tally = Tally(success_threshold=2, failure_threshold=3)
    assert [tally.add(result) for result in results] == verdicts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", ("busybox", "", "")),
        ("docker.io/library/busybox:1", ("busybox", "1", "")),
        ("busybox:1", ("busybox", "1", "")),
        ("vllm/vllm-openai:v0.33.0", ("vllm/vllm-openai", "v0.33.0", "")),
        ("docker.io/vllm/vllm-openai:v0.33.0", ("vllm/vllm-openai", "v0.33.0", "")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "", "")),
        ("localhost:5000/a/b:c", ("localhost:5000/a/b", "c", "")),
        (f"a/b@sha256:{'0' * 64}", ("a/b", "", f"sha256:{'0' * 64}")),
    ],
)
def test_image_references(text: str, expected: tuple[str, str, str]) -> None:
    found = ImageReference.parse(text)
    assert (found.repository, found.tag, found.digest) == expected


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "a:", "a//b", "-a", "a@sha256:12"])
def test_no_image_references(text: str) -> None:
    with pytest.raises(InvalidImageNameError, match="couldn't parse image name"):
        ImageReference.parse(text)


@pytest.mark.parametrize(
    ("image", "entrypoint"),
    [
        ("vllm/vllm-openai:v0.33.0", ("vllm", "serve")),
        ("vllm/vllm-openai-cpu:v0.33.0-x86_64", ("vllm", "serve")),
        ("vllm/vllm-openai-rocm:v0.33.0", ("vllm", "serve")),
        ("docker.io/ollama/ollama:0.32.15", ("/bin/ollama",)),
    ],
)
def test_engine_images_have_their_entrypoints(image: str, entrypoint: tuple[str, ...]) -> None:
    assert find_image(ImageReference.parse(image), {}).entrypoint == entrypoint


def test_more_images_come_first_and_a_missing_tag_is_never_found() -> None:
    mine = {"ollama/*": Image(entrypoint=("mine",))}
    assert find_image(ImageReference.parse("ollama/ollama:1"), mine).entrypoint == ("mine",)
    with pytest.raises(ImageNotFoundError, match=r"docker\.io/ollama/ollama:missing: not found"):
        find_image(ImageReference.parse("ollama/ollama:missing"), mine)


@pytest.mark.parametrize(
    ("image", "policy"),
    [("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent"), (f"a@sha256:{'0' * 64}", "IfNotPresent")],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert default_pull_policy(ImageReference.parse(image)) == policy


def test_a_failed_pull_is_tried_again_only_after_its_back_off() -> None:
    puller = ImagePuller({}, BackOff(60, 300), retry_s=1)
    first, second = puller.ensure("no/such:1", "Always"), puller.ensure("no/such:1", "Always")
    assert isinstance(first, PullProblem)
    assert isinstance(second, PullProblem)
    assert (first.reason, first.is_back_off) == ("ErrImagePull", False)
    assert (second.reason, second.is_back_off) == ("ImagePullBackOff", True)
    assert second.retry_s == pytest.approx(60, abs=1)
    assert first.message in second.message
