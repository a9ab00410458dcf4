"""kind-config.yaml is what kind takes: checked by kind itself, with a `docker` in PATH that only writes down what is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from hack.tools.build import Tools

# Answers what kind asks before it starts nodes, and refuses to start one.
DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >> "$DOCKER_LOG"
case "$1" in
  info) case "$*" in *json*) echo '{"CgroupVersion":"2","MemoryLimit":true,"PidsLimit":true,"CPUShares":true}' ;; esac ;;
  version) echo '28.2.2' ;;
  run) exit 1 ;;
esac
exit 0
"""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with the stand-in for docker, and its log beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "docker"
    script.write_text(DOCKER)
    script.chmod(0o755)
    return folder


def create_cluster(kind: Path, config: Path, docker: Path) -> tuple[str, list[str]]:
    """kind's words, and what it asked docker to run."""
    log = docker.parent / "docker.log"
    log.touch()
    environment = {"PATH": f"{docker}:{os.environ['PATH']}", "HOME": str(docker.parent), "DOCKER_LOG": str(log)}
    done = subprocess.run(
        [kind, "create", "cluster", "--config", config, "--retain"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stderr, [line for line in log.read_text().splitlines() if line.startswith("run ")]


def test_config_is_one_that_kind_takes(root: Path, tools: Tools, docker: Path) -> None:
    words, runs = create_cluster(tools.kind, root / "kind-config.yaml", docker)
    assert "Preparing nodes" in words, words
    wanted = yaml.safe_load((root / "kind-config.yaml").read_text())["nodes"]
    assert runs
    assert all(run.endswith(wanted[0]["image"]) for run in runs)


def test_kind_would_refuse_a_typo(root: Path, tools: Tools, docker: Path, tmp_path: Path) -> None:
    broken = tmp_path / "kind.yaml"
    broken.write_text((root / "kind-config.yaml").read_text().replace("role: worker", "rol: worker"))
    words, runs = create_cluster(tools.kind, broken, docker)
    assert "rol" in words
    assert runs == []


def test_make_kind_up_uses_the_names_of_the_manifests(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    deployment = yaml.safe_load((root / "manifests/base/deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert yaml.safe_load((root / "kind-config.yaml").read_text())["name"] == "fairlead"
    assert f"docker build -t {container['image']} ." in makefile
    assert f"kind load docker-image {container['image']} --name fairlead" in makefile
    assert container["imagePullPolicy"] == "IfNotPresent"  # the image is on the nodes and nowhere else
