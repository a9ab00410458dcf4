"""Builds of the operator that differ from this tree's, as an older or newer release would: copies with edited sources."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.replicas.replica import SOURCE_ROOT


@dataclass(frozen=True)
class Edit:
    """In `path` below `fairlead/`, each `old` becomes `new`; it must be there."""

    path: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """AssertionError if the text is not there: the source moved on, and this edit must follow it."""
        file = root / "fairlead" / self.path
        text = file.read_text()
        assert self.old in text, f"{self.path} has no {self.old!r} any more"
        file.write_text(text.replace(self.old, self.new))


def make_build(directory: Path, *edits: Edit) -> Path:
    """A source root with the operator of this tree, edited; for `Team.start(source_root=…)`."""
    directory.mkdir()
    shutil.copytree(SOURCE_ROOT / "fairlead", directory / "fairlead", ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        edit.apply(directory)
    return directory


ENGINE_FILE = "engines/vllm.yaml.j2"
PLANNING = "planning/deployment"
NEWER_VARIABLE = "FAIRLEAD_TEST_NEWER"
NEWER_ANNOTATION = "test.example/newer"
NEWER_PORT = 8011
NEWER_VERSION = "0.34.0"

#: What a release changes about pods: a variable, the default image, the port, a probe, the grace period, and the builder.
NEWER_PODS = (
    Edit(ENGINE_FILE, "{% set env = [\n", '{% set env = [\n  {"name": "' + NEWER_VARIABLE + '", "value": "1"},\n'),
    Edit(ENGINE_FILE, 'default: "0.33.0"', f'default: "{NEWER_VERSION}"'),
    Edit(ENGINE_FILE, 'newest: "0.33.0"', f'newest: "{NEWER_VERSION}"'),
    Edit(ENGINE_FILE, '["--port", "8000"]', f'["--port", "{NEWER_PORT}"]'),
    Edit(ENGINE_FILE, "port: 8000", f"port: {NEWER_PORT}"),
    Edit(ENGINE_FILE, "periodSeconds: 5, timeoutSeconds: 5", "periodSeconds: 4, timeoutSeconds: 4"),
    Edit(f"{PLANNING}/pod.py", "POD_BUILDER_REVISION = 2", "POD_BUILDER_REVISION = 3"),
    Edit(
        f"{PLANNING}/pod.py",
        '"enableServiceLinks": False,',
        '"enableServiceLinks": False,\n        "hostname": "newer",',
    ),
)
#: What a release changes about everything else, the Deployment around its template included.
NEWER_OTHERS = (
    Edit(
        "planning/ownership.py",
        "    if annotations:\n",
        f'    annotations = {{**(annotations or {{}}), "{NEWER_ANNOTATION}": "yes"}}\n    if annotations:\n',
    ),
    Edit(f"{PLANNING}/workload.py", "_REVISION_HISTORY_LIMIT = 3", "_REVISION_HISTORY_LIMIT = 4"),
    Edit(f"{PLANNING}/workload.py", "IMAGE_PULL_ALLOWANCE_S = 600", "IMAGE_PULL_ALLOWANCE_S = 700"),
    Edit(
        f"{PLANNING}/network_policy.py",
        '{"podSelector": {}},',
        '{"podSelector": {}},\n        {"ipBlock": {"cidr": "198.51.100.0/24"}},',
    ),
    Edit(f"{PLANNING}/disruption.py", '"maxUnavailable": 1', '"maxUnavailable": "50%"'),
)
NEWER = (*NEWER_PODS, *NEWER_OTHERS)

MARK = "-- a newer release"
#: What a release changes about gateways: the pod, the listeners, the classifier.
NEWER_GATEWAYS = (
    Edit("planning/gateway.py", '"initialDelaySeconds": 10,', '"initialDelaySeconds": 11,'),
    Edit("gateway/envoy/listeners.py", 'request_headers_timeout="10s"', 'request_headers_timeout="11s"'),
    Edit("gateway/lua/answer.lua", 'local MARK = "checked"', f'local MARK = "checked" {MARK}'),
)
