"""What is read of Prometheus' text, against prometheus_client's own parser and against texts that are not what they should be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fairlead.facts.scaling import Measure
from fairlead.sources.exposition import read_text
from fairlead.sources.readings import Cumulative

NAMES = {
    Measure.TIME_TO_FIRST_TOKEN: ("new:ttft_seconds", "old:ttft_seconds"),
    Measure.RUNNING_REQUESTS: ("running",),
    Measure.QUEUED_REQUESTS: ("waiting",),
    Measure.KV_CACHE_USAGE: ("kv_usage_perc", "gpu_usage_perc"),
}
TTFT = Measure.TIME_TO_FIRST_TOKEN


def buckets(name: str, labels: str = "", **counts: float) -> str:
    """`b1=3` is a bucket up to 1, `inf=4` the one up to +Inf."""
    sep = "," if labels else ""
    les = (
        (key.removeprefix("b").replace("_", ".") if key != "inf" else "+Inf", value) for key, value in counts.items()
    )
    return "".join(f'{name}_bucket{{{labels}{sep}le="{le}"}} {value}\n' for le, value in les)


def ttft(text: str) -> Cumulative | None:
    return read_text(text.encode(), NAMES, 0.0).times.get(TTFT)


def test_one_histogram_and_the_gauges() -> None:
    text = buckets("new:ttft_seconds", b0_5=1, b1=3, inf=4) + "running 2\nwaiting 7.0\nkv_usage_perc 0.25\n"
    reading = read_text(text.encode(), NAMES, 12.5)
    assert reading.times == {TTFT: Cumulative((0.5, 1.0), (1, 3), 4)}
    assert (reading.at, reading.running, reading.waiting, reading.kv_cache_usage) == (12.5, 2.0, 7.0, 0.25)


def test_engines_and_models_in_one_pod_are_added_up_and_the_cache_is_their_mean() -> None:
    text = "".join(
        buckets("new:ttft_seconds", f'engine="{n}",model_name="m"', b1=n + 1, inf=n + 2)
        + f'running{{engine="{n}"}} {n}\nkv_usage_perc{{engine="{n}"}} {n * 0.5}\n'
        for n in (0, 1)
    )
    reading = read_text(text.encode(), NAMES, 0.0)
    assert reading.times == {TTFT: Cumulative((1.0,), (3,), 5)}
    assert (reading.running, reading.kv_cache_usage) == (1.0, 0.25)


@pytest.mark.parametrize("le", ["5", "5.0", "5e0", "+5"])
def test_bounds_are_numbers_however_they_are_written(le: str) -> None:
    assert ttft(f'new:ttft_seconds_bucket{{le="{le}"}} 1\nnew:ttft_seconds_bucket{{le="+Inf"}} 2\n') == Cumulative(
        (5.0,), (1,), 2
    )


def test_the_newest_name_that_is_there_counts_and_they_are_never_added() -> None:
    old = buckets("old:ttft_seconds", b1=5, inf=5)
    assert ttft(old) == Cumulative((1.0,), (5,), 5)
    assert ttft(old + buckets("new:ttft_seconds", b1=1, inf=1)) == Cumulative((1.0,), (1,), 1)
    assert read_text(b"gpu_usage_perc 0.5\nkv_usage_perc 0.1\n", NAMES, 0.0).kv_cache_usage == 0.1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html><body>running 5 waiting 3</body></html>",
        "running_total 5\nxrunning 5\n# running 5\n running 5\n",
        "running\nrunning {}\nrunning five\n",
        "running NaN\nwaiting +Inf\nkv_usage_perc NaN\n",
        'new:ttft_seconds_bucket{le="1"} 5\n',
        'new:ttft_seconds_bucket{le="+Inf"} 5\n',
        'new:ttft_seconds_bucket{le="NaN"} 5\nnew:ttft_seconds_bucket{le="x"} 5\nnew:ttft_seconds_bucket 5\n',
        'new:ttft_seconds_bucket{le="1"} 5\nnew:ttft_seconds_bucket{le="+Inf"} NaN\n',
        "new:ttft_seconds_sum 5\nnew:ttft_seconds_count 5\n",
        "kv_usage_perc 37.5\n",
        "kv_usage_perc -1\n",
    ],
)
def test_what_is_no_answer_reads_as_nothing(text: str) -> None:
    assert read_text(text.encode(), NAMES, 0.0).is_empty


def test_bytes_that_are_no_text_do_not_hurt() -> None:
    assert read_text(b"\xff\xfe\x00running 3\nrunning 1\n", NAMES, 0.0).running == 1.0


def test_a_bucket_that_only_some_label_sets_have_is_left_out() -> None:
    text = buckets("new:ttft_seconds", 'engine="0"', b1=1, b2=2, inf=3)
    text += buckets("new:ttft_seconds", 'engine="1"', b2=5, inf=6)
    assert ttft(text) == Cumulative((2.0,), (7,), 9)


def test_a_timestamp_and_odd_spaces_are_no_matter() -> None:
    text = 'new:ttft_seconds_bucket{ le = "1" , a="b" } 1 1700000000000\r\nnew:ttft_seconds_bucket{le="+Inf",}  2\t\r\nrunning  4 17\n'
    reading = read_text(text.encode(), NAMES, 0.0)
    assert (reading.times[TTFT], reading.running) == (Cumulative((1.0,), (1,), 2), 4.0)


def test_a_measure_without_a_name_is_not_read() -> None:
    assert read_text(b"running 4\n", {}, 0.0).is_empty


@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=3, unique=True),
    st.lists(st.floats(0.001, 100), max_size=6),
)
def test_as_the_library_reads_it_whatever_the_labels_say(models: list[str], waits: list[float]) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("new:ttft_seconds", "h", ["le_", "model"], buckets=(0.5, 1, 5), registry=registry)
    gauge = Gauge("running", "g", ["model"], registry=registry)
    for model in models:
        gauge.labels(model).set(len(waits))
        for wait in waits:
            histogram.labels('le="7"', model).observe(wait)
    text = generate_latest(registry)
    sums: dict[float, float] = {}
    running = 0.0
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == "new:ttft_seconds_bucket":
                le = float(sample.labels["le"])
                sums[le] = sums.get(le, 0.0) + sample.value
            running += sample.value if sample.name == "running" else 0.0
    reading = read_text(text, NAMES, 0.0)
    assert reading.running == running
    if waits:
        total = sums.pop(math.inf)
        bounds = tuple(sorted(sums))
        assert reading.times[TTFT] == Cumulative(bounds, tuple(sums[bound] for bound in bounds), total)
