"""Directories that change as the kubelet changes them: all files at once, by a symlink that is renamed.

The order is the real kubelet's (pkg/volume/util/atomic_writer.go): first `..data` is renamed over, then the links of new files
appear beside it. Between the two a new file is there only by way of `..data`.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Mount"]

_COUNT = itertools.count(1)


class Mount:
    """One volume of a ConfigMap or Secret."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write(self, files: Mapping[str, str], between: Callable[[], None] = lambda: None) -> None:
        """Make it hold exactly these. `between`: done after the swap, before new files have links of their own."""
        data = self.path / "..data"
        old = self.path / data.readlink() if data.is_symlink() else None
        new = self.path / f"..{next(_COUNT):06}"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(new.name)
        fresh.rename(data)
        between()
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for entry in self.path.iterdir():
            if entry.name not in files and not entry.name.startswith(".."):
                entry.unlink()
        if old is not None:
            shutil.rmtree(old)
