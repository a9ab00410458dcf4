"""The CRD and the operator are upgraded one after the other: in between they are of different releases, in either order."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.operator_world import World, until
from tests.cluster.replicas.conftest import Team
from tests.cluster.upgrade.builds import Edit, make_build
from tests.cluster.upgrade.pods import read_life
from tests.cluster.upgrade.test_upgrade import assert_quiet, lead, make_model, wait_for_reason

pytestmark = [pytest.mark.cluster, pytest.mark.long]

Json = dict[str, Any]
CURRENT = Path(__file__).parents[3] / "crds" / "llmdeployments.fairlead.dev.yaml"
#: A newer release with one more field in spec and one more in status.
NEWER_API = (
    Edit(
        "api/llmdeployment.py",
        "    suspend: Bool = False\n",
        '    mood: str | None = Field(default=None, max_length=32)\n    """Of the model."""\n    suspend: Bool = False\n',
    ),
    Edit(
        "planning/deployment/planner.py",
        '"endpoint": make_endpoint(serving),',
        '"endpoint": make_endpoint(serving),\n        "mood": serving.spec.mood or "good",',
    ),
)  # fmt: skip


def newer_crd() -> Json:
    """As that release's: optional fields, no defaults (tests/unit/releases holds every release to it)."""
    crd = copy.deepcopy(yaml.safe_load(CURRENT.read_text()))
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        properties[part]["properties"]["mood"] = {"type": "string", "description": "Of the model.", "maxLength": 32}
    return crd  # type: ignore[no-any-return]


def install(crew: Team, crd: Json) -> None:
    crew.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(crd))
    wanted = '"mood"' in json.dumps(crd)
    path = "/openapi/v3/apis/fairlead.dev/v1alpha1"
    until(lambda: ('"mood"' in crew.cluster.kubectl("get", "--raw", path)) is wanted, "the schema is served")


@pytest.fixture(autouse=True)
def current_crd_afterwards(crew: Team) -> Iterator[None]:
    yield
    install(crew, yaml.safe_load(CURRENT.read_text()))


def test_a_newer_crd_disturbs_nothing_and_a_downgrade_of_the_operator_moves_no_pod(crew: Team, tmp_path: Path) -> None:
    """As documented, the CRD first; then the operator; then the operator back, while objects have what only the newer knows."""
    world = World(crew.cluster, crew.namespace)
    older = lead(crew, "one")
    world.apply(make_model(world, "a", replicas=1), make_model(world, "b", replicas=1))
    for name in ("a", "b"):
        wait_for_reason(world, name, "Serving")
    before = read_life(world, "b")
    assert_quiet(crew)
    mark = crew.cluster.audit.mark()
    install(crew, newer_crd())
    time.sleep(3)
    records = crew.cluster.audit.records(user=crew.judge.users, namespace=crew.namespace, since=mark)
    assert [str(record) for record in records if record.is_write] == []

    older.stop()
    newer = lead(crew, "two", make_build(tmp_path / "newer", *NEWER_API))
    world.patch("llmdeployment/a", '{"spec": {"mood": "bad"}}')
    until(lambda: world.status("a").get("mood") == "bad", "the newer operator knows it")
    wait_for_reason(world, "a", "Serving")
    with_mood = read_life(world, "a")
    newer.stop()
    lead(crew, "three")
    condition = world.wait_stalled("a", "InvalidSpec")
    assert "mood" in condition["message"]
    wait_for_reason(world, "b", "Serving")
    until(lambda: not {"mood"} & {*world.status("a"), *world.status("b")}, "status is the older release's again")
    assert_quiet(crew)
    assert read_life(world, "a") == with_mood, "who cannot be understood is left alone"
    assert read_life(world, "b") == before
    # The way out that the message names: without the field all is as the older release knows it.
    world.patch("llmdeployment/a", '{"spec": {"mood": null}}')
    wait_for_reason(world, "a", "Serving")
    assert world.condition("a", "Stalled")["status"] == "False"


def test_a_newer_operator_under_the_older_crd_serves_and_catches_up(crew: Team, tmp_path: Path) -> None:
    world = World(crew.cluster, crew.namespace)
    older = lead(crew, "one")
    world.apply(make_model(world, "a", replicas=1))
    wait_for_reason(world, "a", "Serving")
    before = read_life(world, "a")
    older.stop()
    newer = lead(crew, "two", make_build(tmp_path / "newer", *NEWER_API))
    time.sleep(3)
    assert_quiet(crew)
    world.kubectl("scale", "llmdeployment/a", "--replicas=2")
    wait_for_reason(world, "a", "Serving")
    assert before.pods.items() <= read_life(world, "a").pods.items()
    assert "mood" not in world.status("a")

    install(crew, newer_crd())
    world.patch("llmdeployment/a", '{"spec": {"replicas": 1}}')
    until(lambda: world.status("a").get("mood") == "good", "the new field of status, once the CRD has it", 90)
    assert newer.leads
    assert read_life(world, "a").template == before.template
