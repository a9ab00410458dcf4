"""`python -m tests.world`: the tables of docs/scaling-simulated.md anew (forty seconds)."""

from __future__ import annotations

from tests.world.table import main

main()
