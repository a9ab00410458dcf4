"""Five minutes of the soak in CI. `make soak` is an hour of the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.soak.__main__ import soak

from fairlead_cluster.build import Binaries

MINUTES = float(os.environ.get("SOAK_MINUTES", "5"))
SEED = int(os.environ.get("SOAK_SEED", "27"))


@pytest.mark.cluster
@pytest.mark.alone
@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 900)
def test_five_minutes_of_random_life_at_200_models(binaries: Binaries, tmp_path: Path) -> None:
    assert binaries.kubectl.exists()
    summary = soak(tmp_path / "cluster", minutes=MINUTES, size=200, seed=SEED)
    assert summary.failures == [], str(summary)
    assert summary.accidents >= 1
