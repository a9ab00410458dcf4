"""Packing: what comes out is what went in, equal texts are equal bytes, and alike objects take little."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.kube.cache import Cache
from fairlead.kube.packing import Sample, Samples

WORDS = [f"--flag-{number}=value-{number * number}" for number in range(400)]


def deployment(name: str, words: int = 100, **status: object) -> dict[str, object]:
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "ml", "uid": f"uid-of-{name}", "resourceVersion": "1"},
        "spec": {"template": {"spec": {"containers": [{"name": "engine", "args": WORDS[:words]}]}}},
        "status": status,
    }


@given(st.binary(max_size=2_000), st.binary(max_size=2_000))
def test_any_text_comes_back_by_any_sample(sample: bytes, text: bytes) -> None:
    made = Sample(sample)
    assert made.unpack(made.pack(text)) == text


@pytest.mark.parametrize("length", [0, 1, 200, 201, 511, 512, 8_191, 26_000, 26_215, 32_768, 200_000])
def test_a_sample_of_any_length_serves(length: int) -> None:
    text = (b"".join(b"%d," % number for number in range(40_000)))[:length]
    sample = Sample(text)
    for other in (text, text + b"more", b"less", b""):
        assert sample.unpack(sample.pack(other)) == other


@pytest.mark.parametrize("words", [10, 100, 300])
def test_what_is_like_the_sample_takes_a_tenth(words: int) -> None:
    one, two = (orjson.dumps(deployment(name, words)) for name in ("chat", "embed"))
    assert len(Sample(one).pack(two)) < max(60, len(two) / 10)


def test_packing_one_text_leaves_no_trace_in_the_next() -> None:
    sample = Sample(orjson.dumps(deployment("chat")))
    before = sample.pack(b"the same words")
    sample.pack(orjson.dumps(deployment("embed")))
    assert sample.pack(b"the same words") == before


def test_the_first_of_a_kind_stays_its_sample() -> None:
    samples = Samples()
    first = samples.of("Service", b"one")
    assert samples.of("Service", b"two") is first
    assert samples.of("Pod", b"two") is not first


def test_the_cache_keeps_alike_objects_packed_and_tells_changes_apart() -> None:
    cache = Cache()
    sizes = []
    for number in range(50):
        after = cache.put(deployment(f"model-{number}")).after
        assert after is not None
        sizes.append(len(after.body))
        assert after.load() == {"apiVersion": "apps/v1", **deployment(f"model-{number}")}
    assert max(sizes[1:]) < len(orjson.dumps(deployment("model-0"))) / 10

    again = deployment("model-7")
    again["metadata"] |= {"resourceVersion": "2"}  # type: ignore[operator]
    assert not cache.put(again).is_meaningful
    ready = deployment("model-7", readyReplicas=1)
    ready["metadata"] |= {"resourceVersion": "3"}  # type: ignore[operator]
    assert cache.put(ready).is_meaningful


def test_config_maps_are_not_packed() -> None:
    """They are few, differ, and each pass reads those that describe engines."""
    cache = Cache()
    metadata = {"name": "engine", "namespace": "fairlead-system", "uid": "u", "resourceVersion": "1"}
    after = cache.put({"kind": "ConfigMap", "metadata": metadata, "data": {"engine.yaml.j2": "x" * 500}}).after
    assert after is not None
    assert b"x" * 500 in after.body
