"""Variables in text, container paths and addresses in text, quantities, durations."""

from __future__ import annotations

import pytest

from fairlead_cluster.node.backoff import format_duration
from fairlead_cluster.node.expansion import expand
from fairlead_cluster.node.quantity import divided_up, parse_quantity
from fairlead_cluster.node.rewriting import Rewriter

# From the table of Kubernetes' own TestMapReference and TestMapping (third_party/forked/golang/expansion).
VARIABLES = {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)-1", "A-1"),
        ("$(VAR_A)_$(VAR_B)_$(VAR_C)", "A_B_C"),
        ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
        ("$$$(VAR_B)", "$B"),
        ("$$$$(VAR_A)", "$$(VAR_A)"),
        ("f000-$$$$$$(VAR_A)", "f000-$$$(VAR_A)"),
        ("$(VAR_DNE)", "$(VAR_DNE)"),
        ("foo$(VAR_EMPTY)bar", "foobar"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("$VAR_A)", "$VAR_A)"),
        ("${VAR_A}", "${VAR_A}"),
        ("$(VAR_B)_______$(A", "B_______$(A"),
        ("$(", "$("),
        ("foo$", "foo$"),
        ("$()", "$()"),
        ("$?_boo_$!", "$?_boo_$!"),
        ("$(VAR_A)$$", "A$"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expanded: str) -> None:
    assert expand(text, VARIABLES) == expanded


REWRITE = Rewriter(
    {"/data": "/host/v/data", "/data/deep": "/host/v/deep", "/dev/shm/": "/host/v/shm", "/app/conf.yaml": "/host/f"},
    "127.244.1.2",
)


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/data", "/host/v/data"),
        ("/data/x", "/host/v/data/x"),
        ("/data/deep/x", "/host/v/deep/x"),
        ("--dir=/data:/data/deep", "--dir=/host/v/data:/host/v/deep"),
        ("ls '/data'; cat \"/data/x\"", "ls '/host/v/data'; cat \"/host/v/data/x\""),
        ("cat </data/x >/data/y", "cat </host/v/data/x >/host/v/data/y"),
        ("/dev/shm", "/host/v/shm"),
        ("file:///data/x", "file:///host/v/data/x"),
        ("/app/conf.yaml", "/host/f"),
        ("In /data.", "In /host/v/data."),
    ],
)
def test_mounted_paths_become_host_paths(text: str, rewritten: str) -> None:
    assert REWRITE(text) == rewritten


@pytest.mark.parametrize(
    "text",
    [
        "/database",
        "/data-2",
        "/data.old",
        "/mnt/data",
        "http://host:80/data",
        "https://host/data/x",
        "$HOME/data",
        "${HOME}/data",
        "~/data",
        "org/data",
        "*/data",
        "data",
        "/app/conf.yaml.bak",
    ],
)
def test_whole_components_of_absolute_paths_only(text: str) -> None:
    assert REWRITE(text) == text


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("0.0.0.0", "127.244.1.2"),
        ("0.0.0.0:8000", "127.244.1.2:8000"),
        ("--host=0.0.0.0", "--host=127.244.1.2"),
        ("http://127.0.0.1:11434/api", "http://127.244.1.2:11434/api"),
        ("http://localhost/x", "http://127.244.1.2/x"),
        ("curl localhost|cat", "curl 127.244.1.2|cat"),
        ("user@localhost:5432", "user@127.244.1.2:5432"),
        ("[::]:8000", "127.244.1.2:8000"),
        ("::", "127.244.1.2"),
    ],
)
def test_this_host_becomes_the_pods_address(text: str, rewritten: str) -> None:
    assert REWRITE(text) == rewritten


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0",
        "127.0.0.0/8",
        "10.0.0.0",
        "127.0.0.11",
        "localhost.example",
        "my-localhost",
        "mylocalhost",
        "version 0.0.0.0.1",
        "std::x",
        "case $h in 0.0.0.0|'') ;; esac",
    ],
)
def test_what_only_looks_like_this_host_stays(text: str) -> None:
    assert REWRITE(text) == text


def test_a_path_is_found_in_the_longest_mount() -> None:
    assert REWRITE.host_path("/data/deep/x") == "/host/v/deep/x"
    assert REWRITE.host_path("/data") == "/host/v/data"
    assert REWRITE.host_path("/database") is None
    assert REWRITE.host_path("/") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500m", 0.5),
        ("1Ki", 1024),
        ("1k", 1000),
        ("1.5Gi", 1610612736),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("-1", -1),
        (".5", 0.5),
        ("100u", 0.0001),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert float(parse_quantity(text)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "Ki", "1ee3", "0x1"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("quantity", "divisor", "text"),
    [("1500m", "1", "2"), ("250m", "1m", "250"), ("128Mi", "1Mi", "128"), ("1", "0", "1"), ("129Mi", "1Gi", "1")],
)
def test_resource_fields_round_up(quantity: str, divisor: str, text: str) -> None:
    assert divided_up(quantity, divisor) == text


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (0.5, "500ms"), (1, "1s")])
def test_durations_as_in_messages(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
