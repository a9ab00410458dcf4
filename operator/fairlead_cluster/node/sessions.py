"""Everything that runs in one container, found in /proc and killed together.

A container's first process gets a session of its own and a mark in its environment: whatever it starts has one of the
two, even a daemon that leaves its session, unless it also hides its environment. This module needs the standard library
only: the guardian runs it alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

#: The one variable that a container has and its image and spec did not give.
MARK = "FAIRLEAD_CONTAINER"

_ROUNDS = 50
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A line of the process table. `rss_bytes` is resident memory (shared pages counted for each process)."""

    pid: int
    parent: int
    session: int
    state: str
    rss_bytes: int


def process_table() -> list[ProcessEntry]:
    """All processes of the host that can be seen."""
    page_size_bytes = os.sysconf("SC_PAGE_SIZE")
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  # 5 times as fast as Path.iterdir, and called once a second
        if not name.isdigit():
            continue
        try:
            text = Path(f"/proc/{name}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text[text.rindex(")") + 2 :].split()  # the command's name may hold blanks and parentheses
        rss_bytes = int(fields[21]) * page_size_bytes
        found.append(ProcessEntry(int(name), int(fields[1]), int(fields[3]), fields[0], rss_bytes))
    return found


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one container: those of a session, and all that carry its mark in their environment."""

    session: int
    mark: str


def members(groups: Iterable[Group], table: Iterable[ProcessEntry]) -> dict[Group, list[ProcessEntry]]:
    """The live processes of each group by session, with their descendants in other sessions."""
    found: dict[Group, list[ProcessEntry]] = {}
    by_parent: dict[int, list[ProcessEntry]] = {}
    by_session: dict[int, list[ProcessEntry]] = {}
    for entry in table:
        by_parent.setdefault(entry.parent, []).append(entry)
        by_session.setdefault(entry.session, []).append(entry)
    for group in groups:
        todo = list(by_session.get(group.session, ()))
        entries = {entry.pid: entry for entry in todo}
        while todo:
            children = [child for child in by_parent.get(todo.pop().pid, ()) if child.pid not in entries]
            entries |= {child.pid: child for child in children}
            todo += children
        found[group] = [entry for entry in entries.values() if entry.state not in "ZX"]
    return found


def kill_groups(groups: Iterable[Group]) -> None:
    """SIGKILL to all processes of these groups until none is left (or they do not die, which only the kernel knows)."""
    wanted = list(groups)
    marks = {f"{MARK}={group.mark}".encode() for group in wanted}
    for _ in range(_ROUNDS):
        table = process_table()
        victims = {entry.pid for entries in members(wanted, table).values() for entry in entries}
        victims |= {entry.pid for entry in table if entry.state not in "ZX" and _has_mark(entry.pid, marks)}
        if not victims:
            return
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _has_mark(pid: int, marks: AbstractSet[bytes]) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or somebody else's
        return False
    return not marks.isdisjoint(environment.split(b"\0"))
