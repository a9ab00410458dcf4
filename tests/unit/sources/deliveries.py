"""Webhook payloads as Alertmanager 0.25 sends them, and pieces to make others of."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]
START = "2026-11-28T12:00:00.123Z"
END = "2026-11-28T12:03:00Z"
NEVER = "0001-01-01T00:00:00Z"


def make_alert(status: str = "firing", labels: Json | None = None, **fields: Any) -> Json:
    """One alert about ml/m; `fields` replace or add, `labels` add."""
    base: Json = {
        "status": status,
        "labels": {
            "alertname": "LLMDeploymentHighLatency",
            "llm_namespace": "ml",
            "llm_name": "m",
            "severity": "warning",
        }
        | (labels or {}),
        "annotations": {"summary": "p95 of ml/m is 12s", "runbook_url": "docs/runbooks/LLMDeploymentHighLatency.md"},
        "startsAt": START,
        "endsAt": NEVER if status == "firing" else END,
        "generatorURL": "http://prometheus.example:9090/graph?g0.expr=x",
        "fingerprint": "6d9fa5e1c2b3a4f0",
    }
    return base | fields


def make_payload(*alerts: Json, **fields: Any) -> Json:
    """One delivery."""
    alerts = alerts or (make_alert(),)
    firing = any(alert.get("status") == "firing" for alert in alerts if isinstance(alert, dict))
    base: Json = {
        "version": "4",
        "groupKey": '{}:{alertname="LLMDeploymentHighLatency", llm_name="m", llm_namespace="ml"}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "fairlead",
        "groupLabels": {"alertname": "LLMDeploymentHighLatency", "llm_name": "m", "llm_namespace": "ml"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example:9093",
        "alerts": list(alerts),
    }
    return base | fields


def make_body(*alerts: Json, **fields: Any) -> bytes:
    """The same as bytes."""
    return json.dumps(make_payload(*alerts, **fields)).encode()
