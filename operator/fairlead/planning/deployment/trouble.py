"""What a container's state means, and what a person can do about it.

The kubelet's reasons say that something is wrong; why, only the container's own last words say. They are quoted, shortened
and stripped of anything that looks like a credential (law 6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairlead.api.conditions import Reason
from fairlead.facts.words import redact
from fairlead.planning.conditions import truncate

__all__ = ["LAST_WORDS_LENGTH", "Trouble", "diagnose_container", "seconds_between"]

Json = Mapping[str, Any]

LAST_WORDS_LENGTH = 500
#: Restarts after which a container that keeps dying young counts as a crash loop.
_CRASH_LOOP_RESTARTS = 2
#: A container that lived this long came up; its death is an accident, not a loop. Seconds, as the kubelet's back-off reset.
_LONG_LIFE_S = 600
#: A container that outlives its start-up budget is killed by the kubelet within this: probe period, preStop, grace. Seconds.
_KILL_WINDOW_S = 300
_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

# What hubs and engines print when a model cannot be had. Sources: huggingface_hub's error classes, transformers'
# cached_file, Ollama's server/images.go, fairlead's own engine files.
_ACCESS_DENIED = re.compile(
    r"GatedRepo|gated repo|\b40[13] Client Error|(?:Unauthorized|Forbidden) for url|unauthorized: access denied|"
    r"Invalid user(?:name)? (?:token|or password)|you are not authorized|pull model manifest: 40[13]",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"RepositoryNotFound|RevisionNotFound|Repository Not Found|\b404 Client Error|is not a valid model identifier|"
    r"Invalid rev id|not a valid git identifier|pull model manifest: (?:file does not exist|404)|"
    r"cannot read .* on the model volume",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One pod's trouble. `terminal`: it will not go away by itself; `pod` its name; `due_s`: when it becomes terminal, seconds
    from now (None: it is, or never will by time alone)."""

    reason: Reason
    message: str
    pod: str
    terminal: bool
    due_s: float | None = None


def diagnose_container(pod: str, status: Json, startup_timeout_s: int) -> Trouble | None:
    """`status` is one ContainerStatus of pod `pod`. None: nothing is wrong that its state tells."""
    where = f"Pod {pod}, container {status.get('name')}"
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, words = str(waiting.get("reason", "")), _quote(str(waiting.get("message", "")))
    if reason in _IMAGE_REASONS:
        what = f"image {status.get('image')} cannot be pulled: {words or reason}"
        step = "check engine.image, engine.version and pod.imagePullSecrets"
        return Trouble(Reason.IMAGE_PULL_FAILED, f"{where}: {what}. Next: {step}.", pod, terminal=True)
    if reason in _CONFIG_REASONS:
        step = "create what is missing, or correct the reference"
        return Trouble(Reason.CONTAINER_CONFIG_ERROR, f"{where}: {words or reason}. Next: {step}.", pod, terminal=True)
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated")
    if not ended or status.get("ready"):
        return None
    verdict, terminal, what, step = _judge_end(status, ended, startup_timeout_s)
    return Trouble(verdict, f"{where}: {what}. Next: {step}.", pod, terminal)


def _judge_end(status: Json, ended: Json, startup_timeout_s: int) -> tuple[Reason, bool, str, str]:
    """Reason, whether it is terminal, what happened, what to do next."""
    said, restarts = str(ended.get("message") or ""), int(status.get("restartCount", 0))
    words, failed = _last_words(said), ended.get("exitCode") != 0
    lived_s = seconds_between(ended.get("startedAt"), ended.get("finishedAt"))
    if failed and _ACCESS_DENIED.search(said):
        step = "accept the model's terms and give a token that may read it in model.secretRef"
        return Reason.MODEL_ACCESS_DENIED, True, f"the model may not be downloaded: {words}", step
    if failed and _NOT_FOUND.search(said):
        step = "check model.source and model.revision; private models also need model.secretRef"
        return Reason.MODEL_NOT_FOUND, True, f"there is no such model: {words}", step
    oom = ended.get("reason") == "OOMKilled"
    if failed and not oom and lived_s is not None and 0 <= lived_s - startup_timeout_s <= _KILL_WINDOW_S:
        step = "raise probes.startupTimeout, or keep the model on a volume (storage)"
        return Reason.STARTUP_TIMEOUT, True, f"was not ready after {startup_timeout_s} s and was restarted", step
    terminal = restarts >= _CRASH_LOOP_RESTARTS and (lived_s is None or lived_s < _LONG_LIFE_S)
    what = f"{'keeps ending' if terminal else 'ended'}: {_describe_exit(ended)}{': ' + words if words else ''}"
    step = "raise resources.limits.memory" if oom else "see its log (kubectl logs --previous)"
    return Reason.CRASH_LOOP, terminal, what, step


def _describe_exit(ended: Json) -> str:
    if ended.get("reason") == "OOMKilled":
        return "out of memory (OOMKilled)"
    return f"signal {ended['signal']}" if ended.get("signal") else f"exit code {ended.get('exitCode')}"


def _last_words(message: str) -> str:
    """The last lines that say something, at most 500 characters: a Python traceback ends with its reason."""
    kept: list[str] = []
    for line in reversed([line for line in map(_quote, redact(message).splitlines()) if line]):
        if kept and sum(map(len, kept)) + len(line) + 3 * len(kept) > LAST_WORDS_LENGTH:
            break
        kept.insert(0, line)
    return truncate(" | ".join(kept), LAST_WORDS_LENGTH)


def _quote(words: str) -> str:
    """Words of others on one line, bounded, without credentials and without a full stop of their own."""
    return truncate(redact(" ".join(words.split())), LAST_WORDS_LENGTH).rstrip(".")


def seconds_between(start: Any, end: Any) -> float | None:
    """Seconds from one RFC 3339 time to another; None when either is missing or no time."""
    try:
        return (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))).total_seconds()
    except (ValueError, TypeError):
        return None
