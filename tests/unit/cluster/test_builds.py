"""The builds that the upgrade tests make of this tree: what they edit is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.upgrade import builds
from tests.cluster.upgrade.builds import Edit, make_build

EDITS = {
    name: edits if isinstance(edits, tuple) else (edits,)
    for name, edits in vars(builds).items()
    if isinstance(edits, Edit) or (isinstance(edits, tuple) and edits and isinstance(edits[0], Edit))
}


@pytest.mark.parametrize("name", EDITS)
def test_a_build_can_be_made(name: str, tmp_path: Path) -> None:
    make_build(tmp_path / "build", *EDITS[name])
