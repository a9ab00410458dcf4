"""Copies of mounted files in which a program of the host finds its pod's address and the host's paths.

Envoy reads its listeners, and the paths of its certificates, from files that change while it runs. What a container
with an image like that mounts from ConfigMaps and Secrets is therefore a copy of its own: the same folders, links and
swaps, and in the texts only what `Rewriter.in_file` changes. The volume itself stays exactly what the cluster has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead_cluster.node.atomicwriter import File, write_atomically
from fairlead_cluster.node.rewriting import Rewriter


@dataclass(frozen=True, slots=True)
class View:
    """The copies that one container sees, below `directory` by the names of the `volumes` that it mounts."""

    directory: Path
    volumes: frozenset[str]
    rewrite: Rewriter

    def write(self, volume: str, files: Mapping[str, File]) -> None:
        """Make the copy of a volume what its files are now, by a swap if they have changed."""
        if volume not in self.volumes:
            return
        copied = {path: File(self.rewrite.in_file(file.content), file.mode) for path, file in files.items()}
        write_atomically(self.directory / volume, copied)

    def write_pins(self, pins: Path) -> None:
        """Files mounted by subPath never change: rewrite them in place (a pin is a link, its target stays)."""
        for pin in pins.iterdir() if pins.is_dir() else ():
            content, mode = pin.read_bytes(), pin.stat().st_mode & 0o7777
            pin.unlink()
            pin.write_bytes(self.rewrite.in_file(content))
            pin.chmod(mode)
