"""Names outside of the cluster that its DNS knows, in a file like /etc/hosts (what CoreDNS' plugin `hosts` reads).

Fake providers get their names here. It is a file because those who write it (a test, the demo, a command) and the DNS
server are different processes; the server reads it again when it has changed.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

_NAME = re.compile(r"^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*$")


class HostsFile:
    """Addresses by name. Every call sees what others have written meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._addresses: dict[str, tuple[str, ...]] = {}

    def find(self, name: str) -> tuple[str, ...]:
        """The addresses of a name (lower case, without the last dot); empty if it is not here."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ()
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:
            self._addresses, self._seen = _parse(self.path.read_text()), seen
        return self._addresses.get(name, ())

    def update(self, changes: Mapping[str, tuple[str, ...] | None]) -> None:
        """Set or (None) remove names, all at once. ValueError for what is no name or no IPv4 address."""
        for name, addresses in changes.items():
            if not _NAME.match(name):
                raise ValueError(f"not a host name in lower case: {name!r}")
            for address in addresses or ():
                ipaddress.IPv4Address(address)
        old = _parse(self.path.read_text()) if self.path.exists() else {}
        new = {name: addresses for name, addresses in {**old, **changes}.items() if addresses}
        lines = [f"{address} {name}\n" for name, addresses in sorted(new.items()) for address in addresses]
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        with os.fdopen(descriptor, "w") as file:
            file.writelines(lines)
        Path(temporary).replace(self.path)


def _parse(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *names = line.split("#", 1)[0].split() or [""]
        for name in names:
            found[name.lower()] = (*found.get(name.lower(), ()), address)
    return found
