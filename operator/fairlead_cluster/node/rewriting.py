"""What stands in for mount and network namespaces: a container's paths and its own addresses, replaced in text.

Without root a process cannot get a root file system or a loopback interface of its own. So wherever a pod's spec
*says* a mounted path, the process is told the host's directory of that volume, and wherever it says "this host", the
process is told the pod's address. That reaches command, args, values of env, and the commands of probes and hooks.

Files of mounted volumes stay as they are, except for images that say `reads_files` (Envoy: its listeners are in files):
see `views`.

Limits, on purpose visible: a program that has a container path or 0.0.0.0 compiled in, reads it from a file, or builds
it from pieces, sees the host's path or address instead. The root file system is the host's; users, groups,
capabilities and a read-only root are not enforced (HOME and TMPDIR are, see `container_files`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# A path starts where no other path or word goes on: not in `/mnt/data`, `http://host/data` or `$HOME/data`.
_BEFORE_PATH = r"(?:(?<![\w.\-/~@%+)}*?\]])|(?<=file://)|(?<=unix://))"
_AFTER_PATH = r"(?![\w\-]|\.\w)"
# `0.0.0.0|` is not an address to talk to but a pattern in a shell's `case`.
_HOST = re.compile(r"(?<![\w.\-])(?:0\.0\.0\.0(?!\|)|127\.0\.0\.1|localhost)(?![\w\-]|\.\w|/\d)")
_ANY_IPV6 = re.compile(r"^(?:\[::\]|::(?!\S))")
# In files only what is an address field of Envoy's configuration: elsewhere 0.0.0.0 may be a network or a user's text.
_ADDRESS_FIELD = re.compile(
    r"""(?P<key>(?<![\w.\-])["']?address["']?[ \t]*:[ \t]*["']?)"""
    r"""(?:0\.0\.0\.0|127\.0\.0\.1|localhost|::1?)(?=["']?[ \t]*(?:[,}\]#\r\n]|$))"""
)


class Rewriter:
    """Replaces container paths by host paths (`paths`) and tokens for "this host" by `address`.

    The longest path wins, and only whole components count: `/data` is not in `/database`.
    """

    def __init__(self, paths: Mapping[str, str], address: str) -> None:
        self._paths = {path.rstrip("/"): host for path, host in paths.items() if path.rstrip("/")}
        self._address = address
        longest_first = sorted(self._paths, key=len, reverse=True)
        alternatives = "|".join(re.escape(path) for path in longest_first)
        self._pattern = re.compile(f"{_BEFORE_PATH}({alternatives}){_AFTER_PATH}") if alternatives else None

    def __call__(self, text: str) -> str:
        """The text as a process on the host must see it."""
        text = _ANY_IPV6.sub(self._address, self._with_host_paths(text))
        return _HOST.sub(self._address, text)

    def in_file(self, content: bytes) -> bytes:
        """A mounted file as an Envoy on the host must see it; what is not text stays as it is."""
        try:
            text = self._with_host_paths(content.decode())
        except UnicodeDecodeError:
            return content
        return _ADDRESS_FIELD.sub(lambda match: match["key"] + self._address, text).encode()

    def host_path(self, path: str) -> str | None:
        """Where a path lies if it is in a mounted volume, else None."""
        for mounted in sorted(self._paths, key=len, reverse=True):
            if path == mounted or path.startswith(f"{mounted}/"):
                return self._paths[mounted] + path[len(mounted) :]
        return None

    def _with_host_paths(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._paths[match.group(1)], text)
