"""Files of a ConfigMap, Secret or projected volume, changed all at once by the kubelet's symlink swap.

Readers see `file -> ..data/file` and `..data -> ..2026_11_25_17_52_01.123456`. A change writes a new dated folder and
renames `..data` over: whoever watches the folder gets the events that a real kubelet causes, and no half-written set.
"""

from __future__ import annotations

import datetime as dt
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DATA = "..data"
_NEW_DATA = "..data_tmp"


@dataclass(frozen=True, slots=True)
class File:
    """Content and permission bits."""

    content: bytes
    mode: int


def write_atomically(directory: Path, files: Mapping[str, File]) -> bool:
    """Make `directory` hold exactly these files (paths may have folders). False if it did already."""
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / _DATA
    old = directory / link.readlink() if link.is_symlink() else None
    if old is not None and _read(old) == dict(files):
        return False
    now = dt.datetime.now(dt.UTC)
    new = directory / f"..{now:%Y_%m_%d_%H_%M_%S}.{secrets.randbelow(10**10)}"
    new.mkdir(mode=0o755)
    for path, file in files.items():
        target = new / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    _link_first_components(directory, files)
    temporary = directory / _NEW_DATA
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(new.name)
    temporary.rename(link)
    _unlink_stale(directory, files)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def read_files(directory: Path) -> dict[str, File]:
    """What `write_atomically` has written last."""
    return _read(directory / (directory / _DATA).readlink())


def _read(folder: Path) -> dict[str, File]:
    return {
        str(path.relative_to(folder)): File(path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in folder.rglob("*")
        if path.is_file()
    }


def _link_first_components(directory: Path, files: Mapping[str, File]) -> None:
    for name in {path.split("/", 1)[0] for path in files}:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")


def _unlink_stale(directory: Path, files: Mapping[str, File]) -> None:
    wanted = {path.split("/", 1)[0] for path in files}
    for entry in directory.iterdir():
        # Only links of ours: there may be one to a volume that is mounted inside of this one.
        if entry.is_symlink() and entry.name not in wanted and entry.readlink().parts[0] == _DATA:
            entry.unlink()
