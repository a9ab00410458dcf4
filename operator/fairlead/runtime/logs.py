"""One format for fairlead's, kopf's and aiohttp's log lines: JSON for machines, or text for people.

What a line is about travels as `extra={"about": {...}}` and becomes JSON keys: controller, namespace, name, uid,
reconcile_id, generation (as one dict, because `name` itself belongs to logging). Values are ours or names of objects;
bodies of objects are never logged, and what a message or a traceback quotes of others is told without credentials.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from fairlead.facts.words import redact

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: kopf's own extras: a whole object reference and per-object settings, which say nothing that ours do not.
_FOREIGN: Final = frozenset({"k8s_ref", "k8s_skip", "settings"})
_QUIET: Final = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "kopf": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
}


class JsonFormatter(logging.Formatter):
    """One object per line: ts, level, logger, msg, what the line is about, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": redact(record.getMessage()),
        }
        line.update(_extras(record))
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


class PlainFormatter(logging.Formatter):
    """`12:00:00.000 info fairlead.x: message key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        text = f"{clock} {record.levelname.lower()} {record.name}: {record.getMessage()}"
        for key, value in _extras(record).items():
            text += f" {key}={value}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redact(text)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    extras = {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in _FOREIGN}
    about = extras.pop("about", None)
    return {**about, **extras} if isinstance(about, dict) else extras


def configure_logging(log_format: Literal["json", "plain"], level: str) -> None:
    """Send everything to stderr in one format. Chatty libraries speak from WARNING on, unless the level is debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" and name != "asyncio" else quiet)
