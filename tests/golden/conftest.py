"""`pytest tests/golden --update-golden` writes the golden files anew; look at the diff before you commit it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing with them"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # The option is unknown when pytest was started from a folder above; then nothing is updated.
    return bool(request.config.getoption("--update-golden", default=False))
