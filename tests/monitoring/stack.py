"""A real Prometheus and real Alertmanagers on loopback, with the shipped rules made quick enough for a test."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
        (r" for: \d+m", " for: 1s"),
        # Longer than the window: a scrape that is late on a busy machine is not to end an alert, which would fire anew.
        (r"keep_firing_for: \d+m", "keep_firing_for: 8s"),
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
    """`credentials`: the file from which Alertmanagers take their token at each request."""

    prometheus_url: str
    credentials: Path

    def ask(self, expr: str) -> float | None:
        """The one value of an expression now. None: it has none yet."""
        url = f"{self.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def judges_by(self, requests: int) -> bool:
        """Whether the rules have seen so many requests of models within their window, and alert of none."""
        return (self.ask("llm:requests:increase_5m") or 0.0) >= requests and self.ask('ALERTS{llm_name!=""}') is None


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
    alertmanagers: int = 1,
) -> Iterator[Stack]:
    """Scrapes `engines` (host:port, all of the LLMDeployment m) each second, and sends what fires to `webhook`, each
    Alertmanager for itself: none knows of the others."""
    prometheus_port, *ports = free_ports(1 + alertmanagers)
    credentials = folder / "token"
    credentials.write_text(token)
    (folder / "rules.yml").write_text(quick_rules(first_token_s))
    target = {"targets": list(engines), "labels": {"llm_namespace": namespace, "llm_name": "m"}}
    prometheus = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}]},
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
    servers = {
        f"http://127.0.0.1:{prometheus_port}": [
            tools.prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
        ]
    }
    for port in ports:
        servers[f"http://127.0.0.1:{port}"] = [
            *tools.alertmanager_command,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / f'alertmanager-{port}'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
    started = []
    try:
        for url, command in servers.items():
            name = f"monitoring-{url.rpartition(':')[2]}"
            started.append(spawn(name, command, folder / f"{name}.log", stop_grace_s=5.0))
        for process, url in zip(started, servers, strict=True):
            assert wait_until(partial(is_ready, url), READY_S, 0.1), tail(process.log_path)
        yield Stack(f"http://127.0.0.1:{prometheus_port}", credentials)
    finally:
        for process in started:
            process.stop()


def is_ready(url: str) -> bool:
    """Whether one of them serves."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
