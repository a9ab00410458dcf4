"""Reads what Alertmanager's webhook receiver is sent (payload version "4").

Nothing in a delivery is believed: whoever has the token may send anything. What is no such payload is refused as a whole, with the
field and the reason. Of labels only four are looked at, so that users' own may be as many and as long as they like; labels that cannot
be those of an LLMDeployment make an alert that speaks of none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from fairlead.errors import FairleadError
from fairlead.facts.alerts import Alert, Delivery

__all__ = ["LABEL_NAME", "LABEL_NAMESPACE", "AlertmanagerError", "parse_delivery"]

#: The labels that say which LLMDeployment an alert speaks of. The shipped rules keep them.
LABEL_NAMESPACE: Final = "llm_namespace"
LABEL_NAME: Final = "llm_name"

#: More than `max_alerts` of any receiver that is of use: grouped by LLMDeployment a delivery has one or two.
ALERTS_MAX: Final = 1000
NAME_MAX: Final = 128
_VERSION: Final = "4"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{1,64}")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,46}[a-z0-9])?")
_TIME_MAX: Final = 64
#: Go's zero time, or a moment of another zone near it: not known.
_NEVER_YEAR: Final = 1


class AlertmanagerError(FairleadError):
    """A body that is no delivery. `str()` names the field and the reason, and quotes nothing of the body."""


def parse_delivery(body: bytes) -> Delivery:
    """The alerts of one request. Raises AlertmanagerError.

    Source of the format: Prometheus' documentation of `webhook_config`, and deliveries of Alertmanager 0.25.
    """
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise AlertmanagerError(f"the body is not JSON ({error.msg.partition(':')[0]})") from None
    if not isinstance(payload, dict):
        raise AlertmanagerError("the body is not a JSON object")
    if payload.get("version") != _VERSION:
        raise AlertmanagerError(f'version: only "{_VERSION}" is known, which webhook_configs of Alertmanager send')
    alerts = payload.get("alerts")
    if not isinstance(alerts, list):
        raise AlertmanagerError("alerts: a list is needed")
    if len(alerts) > ALERTS_MAX:
        raise AlertmanagerError(f"alerts: at most {ALERTS_MAX} in one delivery, set max_alerts of the receiver")
    truncated = payload.get("truncatedAlerts", 0)
    if type(truncated) is not int or truncated < 0:
        raise AlertmanagerError("truncatedAlerts: a number from 0 on is needed")
    return Delivery(tuple(_read_alert(alert, f"alerts[{number}]") for number, alert in enumerate(alerts)), truncated)


def _read_alert(alert: object, path: str) -> Alert:
    if not isinstance(alert, dict):
        raise AlertmanagerError(f"{path}: an object is needed")
    status = alert.get("status")
    if status not in ("firing", "resolved"):
        raise AlertmanagerError(f"{path}.status: firing or resolved is needed")
    fingerprint = alert.get("fingerprint")
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise AlertmanagerError(f"{path}.fingerprint: at most 64 hexadecimal digits are needed")
    labels = alert.get("labels")
    if not isinstance(labels, dict):
        raise AlertmanagerError(f"{path}.labels: an object is needed")
    starts_at = _read_time(alert, "startsAt", path)
    if starts_at is None:
        raise AlertmanagerError(f"{path}.startsAt: the time is needed at which the alert began")
    return Alert(
        fingerprint=fingerprint,
        name=_read_text(labels, "alertname"),
        is_firing=status == "firing",
        starts_at=starts_at,
        ends_at=_read_time(alert, "endsAt", path),
        about=_find_subject(labels),
    )


def _read_text(labels: Mapping[str, Any], name: str) -> str:
    """Only what is shown to people, so what cannot be shown is left out of it."""
    value = labels.get(name)
    text = value[:NAME_MAX] if isinstance(value, str) else ""
    return "".join(character for character in text if character.isprintable())


def _find_subject(labels: Mapping[str, Any]) -> tuple[str, str] | None:
    namespace, name = labels.get(LABEL_NAMESPACE), labels.get(LABEL_NAME)
    if not isinstance(namespace, str) or not isinstance(name, str):
        return None
    if not _NAMESPACE.fullmatch(namespace) or not _NAME.fullmatch(name):
        return None
    return namespace, name


def _read_time(alert: Mapping[str, Any], field: str, path: str) -> datetime | None:
    """To the millisecond, which is what Prometheus counts in; None for none and for Go's zero time."""
    text = alert.get(field)
    if text is None:
        return None
    try:
        if not isinstance(text, str) or len(text) > _TIME_MAX:
            raise ValueError
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError
        if time.year <= _NEVER_YEAR:
            return None
        time = time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise AlertmanagerError(
            f"{path}.{field}: a time with its zone is needed, as 2026-11-28T12:00:00.000Z"
        ) from None
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
