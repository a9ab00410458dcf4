"""`python -m tests.world`: the table of docs/scaling-simulated.md anew (half a minute)."""

from __future__ import annotations

from tests.world.table import main

main()
