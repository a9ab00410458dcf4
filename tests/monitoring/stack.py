"""A real Prometheus and a real Alertmanager on loopback, with the shipped rules made quick enough for a test."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from hack.prometheus import Monitoring

from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import spawn, tail, wait_until

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0


def quick_rules(first_token_s: float) -> str:
    """The shipped rules with windows of seconds, and another threshold for the time to the first token. Names, labels and the way of
    aggregating stay."""
    text = (ROOT / "manifests/monitoring/rules.yaml").read_text()
    replacements = (
        (r"\[5m\]", "[5s]"),
        (r"for: \d+m", "for: 1s"),  # and keep_firing_for
        (r"(llm:time_to_first_token_seconds:p95_5m >) \d+", rf"\1 {first_token_s}"),
        (r"(llm:requests:increase_5m >=) \d+", r"\1 2"),
    )
    for pattern, replacement in replacements:
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        group["interval"] = "1s"
    return yaml.safe_dump(rules)


@dataclass(frozen=True)
class Stack:
    """Both servers. `credentials`: the file from which Alertmanager takes its token at each request."""

    prometheus_url: str
    alertmanager_url: str
    credentials: Path


@contextmanager
def monitoring_stack(
    tools: Monitoring,
    folder: Path,
    *,
    engines: Sequence[str],
    webhook: str,
    token: str,
    first_token_s: float,
    namespace: str = "ml",
) -> Iterator[Stack]:
    """Scrapes `engines` (host:port, all of the LLMDeployment m) each second, and sends what fires to `webhook`."""
    prometheus_port, alertmanager_port = free_ports(2)
    credentials = folder / "token"
    credentials.write_text(token)
    (folder / "rules.yml").write_text(quick_rules(first_token_s))
    target = {"targets": list(engines), "labels": {"llm_namespace": namespace, "llm_name": "m"}}
    prometheus = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
        "scrape_configs": [{"job_name": "engines", "static_configs": [target]}],
    }
    alertmanager = {
        "route": {
            "receiver": "nobody",
            "routes": [
                {
                    "receiver": "fairlead",
                    "matchers": ['llm_name!=""', 'alertname=~"LLMDeploymentHigh.+"'],
                    "group_by": ["llm_namespace", "llm_name"],
                    "group_wait": "1s",
                    "group_interval": "1s",
                    "repeat_interval": "1m",
                }
            ],
        },
        "receivers": [
            {"name": "nobody"},
            {
                "name": "fairlead",
                "webhook_configs": [
                    {
                        "url": webhook,
                        "send_resolved": True,
                        "max_alerts": 100,
                        "http_config": {"authorization": {"type": "Bearer", "credentials_file": str(credentials)}},
                    }
                ],
            },
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(prometheus))
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager))
    stack = Stack(f"http://127.0.0.1:{prometheus_port}", f"http://127.0.0.1:{alertmanager_port}", credentials)
    commands = {
        "prometheus": [
            tools.prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
        ],
        "alertmanager": [
            *tools.alertmanager_command,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alertmanager_port}",
            "--cluster.listen-address=",
        ],
    }
    started = []
    try:
        for name, command in commands.items():
            started.append(spawn(name, command, folder / f"{name}.log", stop_grace_s=5.0))
        for name, url in (("prometheus", stack.prometheus_url), ("alertmanager", stack.alertmanager_url)):
            assert wait_until(lambda url=url: is_ready(url), READY_S, 0.1), tail(folder / f"{name}.log")  # type: ignore[misc]
        yield stack
    finally:
        for process in started:
            process.stop()


def is_ready(url: str) -> bool:
    """Whether one of the two serves."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
