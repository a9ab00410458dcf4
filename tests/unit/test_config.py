"""Options of `fairlead run`: flags over variables over defaults, and mistakes named by what was written."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from pydantic import ValidationError

from fairlead.cli import run
from fairlead.config import ConfigError, OperatorConfig, make_config, parse_bytes_per_s


def parse(*argv: str, **environ: str) -> OperatorConfig:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return make_config(vars(parser.parse_args(argv)), environ)


def test_defaults_are_those_of_a_cluster_wide_replica() -> None:
    config = parse()
    assert config.watch_namespaces == ()
    assert config.namespace == config.leases_in == "fairlead-system"
    assert config.leader_elect
    assert (config.lease_duration_s, config.renew_deadline_s, config.retry_period_s) == (15, 10, 2)
    assert config.metrics_port == 8080
    assert config.log_format == "json"


def test_a_flag_wins_over_its_variable_and_that_over_the_default() -> None:
    assert parse(FAIRLEAD_WORKERS="4").workers == 4
    assert parse("--workers=8", FAIRLEAD_WORKERS="4").workers == 8
    assert parse(FAIRLEAD_LEADER_ELECT="false").leader_elect is False
    assert parse("--leader-elect", FAIRLEAD_LEADER_ELECT="false").leader_elect is True
    assert parse("--no-leader-elect").leader_elect is False
    assert parse(FAIRLEAD_WORKERS="").workers == 16


def test_the_pod_says_its_name_and_namespace() -> None:
    config = parse(POD_NAME="fairlead-0", POD_NAMESPACE="ops")
    assert (config.identity, config.namespace, config.leases_in) == ("fairlead-0", "ops", "ops")
    assert parse("--namespace=x", "--lease-namespace=y", POD_NAMESPACE="ops").leases_in == "y"


def test_two_local_processes_do_not_share_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    first = parse().identity
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert parse().identity != first


@pytest.mark.parametrize(
    "argv", [["--watch-namespaces=b,a"], ["--watch-namespaces", "a", "--watch-namespaces", "b"], ["--namespaces=a, b,"]]
)
def test_namespaces_come_in_one_flag_or_several(argv: list[str]) -> None:
    assert parse(*argv).watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50M", 50_000_000),
        ("50MB/s", 50_000_000),
        ("200Mi", 209_715_200),
        ("1.5G", 1_500_000_000),
        ("1234", 1234),
        (99, 99),
    ],
)
def test_bandwidth(text: object, value: int) -> None:
    assert parse_bytes_per_s(text) == value


MISTAKES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "no number": (["--workers=many"], {}, "--workers"),
    "too few": (["--workers=0"], {}, "--workers"),
    "variable": ([], {"FAIRLEAD_METRICS_PORT": "http"}, "FAIRLEAD_METRICS_PORT"),
    "no such format": (["--log-format=xml"], {}, "--log-format"),
    "no namespace": (["--watch-namespaces=Team_A"], {}, "'Team_A' is not a namespace's name"),
    "no bandwidth": (["--download-bandwidth=fast"], {}, "is not a bandwidth"),
    "nothing at all": (["--download-bandwidth=0"], {}, "--download-bandwidth"),
    "timings": (["--lease-duration-s=5"], {}, "retry_period_s < renew_deadline_s < lease_duration_s"),
    "no URL": (["--prometheus-url=prometheus:9090"], {}, "is not like http://"),
    "a URL with a user": (["--prometheus-url=http://me:secret@prometheus:9090"], {}, "no user, query or fragment"),
    "a URL with a query": (["--prometheus-url=http://prometheus/?x=1"], {}, "no user, query or fragment"),
    "no header": (["--prometheus-url=http://p", "--prometheus-headers=X-Scope-OrgID"], {}, "its value"),
    "a secret header": (
        ["--prometheus-url=http://p", "--prometheus-headers=Authorization=x"],
        {},
        "--prometheus-token-file",
    ),
    "no label": (["--prometheus-pod-label=a-b"], {}, "'a-b' is not a label's name"),
    "a token for nobody": (["--prometheus-token-file=/t"], {}, "needs prometheus_url"),
    "a port that there is not": (["--prometheus-url=http://p:99999"], {}, "is not like http://"),
    "port 0": (["--prometheus-url=http://p:0"], {}, "is not like http://"),
    "no host": (["--prometheus-url=http://:9090"], {}, "is not like http://"),
    "neither host nor port": (["--prometheus-url=http://:"], {}, "is not like http://"),
    "half an address": (["--prometheus-url=http://[::1"], {}, "is not like http://"),
    "a header of two lines": (
        ["--prometheus-url=http://p", "--prometheus-headers=X-A=b\nX-C: d"],
        {},
        "one line of ASCII",
    ),
    "an empty header": (["--prometheus-url=http://p", "--prometheus-headers=X-A="], {}, "one line of ASCII"),
    "a timeout for nobody": (["--prometheus-timeout-s=9"], {}, "prometheus_timeout_s needs prometheus_url"),
    "a label for nobody": ([], {"FAIRLEAD_PROMETHEUS_POD_LABEL": "p"}, "prometheus_pod_label needs prometheus_url"),
    "a port for no alerts": (["--alerts-port=9000"], {}, "alerts_port needs alerts_token_file"),
    "an address for no alerts": (["--alerts-address=::1"], {}, "alerts_address needs alerts_token_file"),
    "two": (["--workers=0", "--metrics-port=99999"], {}, "--metrics-port"),
}


def test_a_prometheus_with_all_that_can_be_said_of_it() -> None:
    config = parse(
        "--prometheus-url=https://mimir.monitoring.svc:8080/prometheus/",
        "--prometheus-headers=X-Scope-OrgID=ml,X-Other=a=b",
        "--prometheus-token-file=/var/run/token",
        "--prometheus-ca-file=/etc/ca.crt",
        FAIRLEAD_PROMETHEUS_TIMEOUT_S="2.5",
    )
    assert config.prometheus_url == "https://mimir.monitoring.svc:8080/prometheus"
    assert config.prometheus_headers == ("X-Scope-OrgID=ml", "X-Other=a=b")
    assert (config.prometheus_timeout_s, config.facts.prometheus.url) == (2.5, config.prometheus_url)
    assert parse().facts.prometheus is None


@pytest.mark.parametrize("url", ["http://p", "https://[::1]:9", "http://a_b.c:65535/x/", "http://10.0.0.1:1"])
def test_urls_of_prometheus(url: str) -> None:
    assert parse(f"--prometheus-url={url}").prometheus_url == url.rstrip("/")


def test_what_is_the_default_anyway_needs_nothing() -> None:
    """As a template writes it that always names it."""
    said = ("--prometheus-timeout-s=5", "--prometheus-pod-label=pod", "--alerts-port=8081", "--alerts-address=0.0.0.0")
    assert parse(*said).alerts_port == 8081


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_by_what_was_written(name: str) -> None:
    argv, environ, said = MISTAKES[name]
    with pytest.raises(ConfigError, match=r".+") as caught:
        parse(*argv, **environ)
    assert said in str(caught.value)


def test_a_mistake_ends_the_command_with_2_and_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    assert run.run(parser.parse_args(["--workers=0", "--log-level=loud"])) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_the_configuration_cannot_change_and_knows_no_other_options() -> None:
    config = parse()
    with pytest.raises(ValidationError):
        config.workers = 3  # type: ignore[misc]
    unknown: dict[str, Any] = {"colour": "blue"}
    with pytest.raises(ConfigError, match="colour"):
        make_config(unknown, {})


def test_every_option_says_what_it_means() -> None:
    for name, field in OperatorConfig.model_fields.items():
        assert len(field.description or "") >= 30, name
