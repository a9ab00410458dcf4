"""`fairlead crds`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairlead.api.crd import make_llmdeployment_crd
from fairlead.cli import main


def test_crds_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds"]) == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == [make_llmdeployment_crd()]


def test_crds_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds", "--output-dir", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == ""
    [file] = (tmp_path / "new").iterdir()
    assert file.name == "llmdeployments.fairlead.dev.yaml"
    assert yaml.safe_load(file.read_text()) == make_llmdeployment_crd()


def test_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["crds", "--output-dir", str(tmp_path / "file")]) == 1
    assert "fairlead crds: " in capsys.readouterr().err
