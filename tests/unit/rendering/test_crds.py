"""`fairlead crds`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairlead.api.crd import make_crds
from fairlead.cli import main


def test_crds_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds"]) == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == list(make_crds())


def test_crds_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds", "--output-dir", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == ""
    files = sorted((tmp_path / "new").iterdir())
    assert [file.name for file in files] == ["llmdeployments.fairlead.dev.yaml", "llmroutes.fairlead.dev.yaml"]
    assert [yaml.safe_load(file.read_text()) for file in files] == list(make_crds())


def test_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["crds", "--output-dir", str(tmp_path / "file")]) == 1
    assert "fairlead crds: " in capsys.readouterr().err
