"""What older releases stored, under the CRD of this tree: still read, whole, valid, writable. On the real API server."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_cluster.api import Api, ApiError, Resource
from fairlead_cluster.cluster import LocalCluster

Json = dict[str, Any]

pytestmark = pytest.mark.cluster

RELEASES = sorted(path for path in (Path(__file__).parents[2] / "data" / "releases").iterdir() if path.is_dir())
CURRENT = Path(__file__).parents[3] / "crds" / "llmdeployments.fairlead.dev.yaml"
LLMDEPLOYMENTS = Resource("fairlead.dev", "v1alpha1", "llmdeployments", "LLMDeployment")
#: The API server takes a moment to serve a CRD's new schema.
SERVED_S = 30.0
MARK = "schema-under-test"


def read_crd(path: Path) -> Json:
    crd: Json = yaml.safe_load(path.read_text())
    return crd


def read_objects(release: Path) -> dict[str, Json]:
    """By name, as the release stored them."""
    lines = (json.loads(line)["object"] for line in (release / "objects.jsonl").read_text().splitlines())
    return {one["metadata"]["name"]: one for one in lines}


@dataclass
class Store:
    """The API server with a CRD of the test's choice."""

    cluster: LocalCluster
    namespace: str

    def install(self, crd: Json) -> None:
        """Apply it as helm and kustomize do, and wait until the API server serves it."""
        marked = copy.deepcopy(crd)
        description = f"{MARK} {time.monotonic_ns()}"
        marked["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = description
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(marked))
        deadline = time.monotonic() + SERVED_S
        while description not in self.cluster.kubectl("get", "--raw", "/openapi/v3/apis/fairlead.dev/v1alpha1"):
            assert time.monotonic() < deadline, "the schema is not served"
            time.sleep(0.1)

    def create(self, objects: dict[str, Json]) -> list[str]:
        """Store them, status included; what was refused."""
        return asyncio.run(self._each(objects, self._create))

    def find_losses(self, objects: dict[str, Json]) -> list[str]:
        """What is not as it was stored, is not valid any more, or cannot be written any more."""
        return asyncio.run(self._each(objects, self._examine))

    async def _each(self, objects: dict[str, Json], work: Callable[[Api, Json], Any]) -> list[str]:
        async with Api.from_kubeconfig(self.cluster.admin_kubeconfig) as api:
            found: list[str] = []
            for name, stored in objects.items():
                try:
                    found += [f"{name}: {line}" for line in await work(api, stored)]
                except ApiError as error:
                    found.append(f"{name}: {error}")
            return found

    async def _create(self, api: Api, stored: Json) -> list[str]:
        metadata = {key: value for key, value in stored["metadata"].items() if key != "generation"}
        body = {**stored, "metadata": metadata}
        status = body.pop("status", None)
        await api.create(LLMDEPLOYMENTS, body, self.namespace)
        if status is not None:
            await self._put_status(api, metadata["name"], status)
        live = await api.get(LLMDEPLOYMENTS, metadata["name"], self.namespace)
        return self._compare(stored, live)

    async def _examine(self, api: Api, stored: Json) -> list[str]:
        name = stored["metadata"]["name"]
        live = await api.get(LLMDEPLOYMENTS, name, self.namespace)
        if lost := self._compare(stored, live):
            return lost
        # Valid as a whole: an update would be forgiven what it does not touch (ratcheting), a new object is not.
        metadata = {**{k: v for k, v in stored["metadata"].items() if k != "generation"}, "name": f"{name[:46]}-x"}
        fresh = {key: value for key, value in stored.items() if key != "status"} | {"metadata": metadata}
        await self._dry_create(api, fresh)
        edited = {"metadata": {"name": name, "annotations": {"test.example/edited": "yes"}}, "spec": stored["spec"]}
        applied = await api.apply(LLMDEPLOYMENTS, edited, self.namespace, field_manager="kubectl")
        if applied["metadata"]["generation"] != live["metadata"]["generation"]:
            lost.append("applying what is stored changed the spec")
        if "status" in stored:
            moved = {**stored["status"], "readyOfDesired": "7/7"}
            answer = await self._put_status(api, name, moved)
            if answer["status"] != moved:
                lost.append(f"status is {answer['status']}, not {moved}")
            await self._put_status(api, name, stored["status"])
        return lost

    async def _put_status(self, api: Api, name: str, status: Json) -> Json:
        body = {"metadata": {"name": name}, "status": status}
        manager = "fairlead-llmdeployment"
        return await api.apply(
            LLMDEPLOYMENTS, body, self.namespace, field_manager=manager, force=True, subresource="status"
        )

    async def _dry_create(self, api: Api, body: Json) -> None:
        path = f"{LLMDEPLOYMENTS.path(self.namespace)}?dryRun=All&fieldValidation=Strict"
        await api._request(
            "POST", path, body={"apiVersion": LLMDEPLOYMENTS.api_version, "kind": "LLMDeployment", **body}
        )

    def _compare(self, stored: Json, live: Json) -> list[str]:
        parts = ["spec", *(["status"] if "status" in stored else [])]
        return [
            f"{part} is {json.dumps(live.get(part), sort_keys=True)}, not {json.dumps(stored[part], sort_keys=True)}"
            for part in parts
            if live.get(part) != stored[part]
        ]


@pytest.fixture
def store(control_plane: LocalCluster, namespace: str) -> Iterator[Store]:
    made = Store(control_plane, namespace)
    try:
        yield made
    finally:
        control_plane.kubectl("delete", "llmdeployments", "--all", f"--namespace={namespace}", "--wait=false")
        control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CURRENT))


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_what_a_release_stored_is_whole_and_writable_under_this_crd(store: Store, release: Path) -> None:
    objects = read_objects(release)
    store.install(read_crd(release / "crd.yaml"))
    assert store.create(objects) == [], "the fixture is not what the release would have stored"
    store.install(read_crd(CURRENT))
    assert store.find_losses(objects) == []


def test_the_older_crd_put_back_loses_nothing_of_what_it_knows(store: Store) -> None:
    """A downgrade of the CRD, right after its upgrade."""
    objects = dict(list(read_objects(RELEASES[-1]).items())[:20])
    store.install(read_crd(CURRENT))
    assert store.create(objects) == []
    store.install(read_crd(RELEASES[-1] / "crd.yaml"))
    assert store.find_losses(objects) == []


def spec_of(crd: Json) -> Json:
    found: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return found["spec"]["properties"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda crd: spec_of(crd).pop("suspend"), "spec is "),
        (lambda crd: spec_of(crd)["replicas"].update(maximum=1), "should be less than or equal to 1"),
        (lambda crd: spec_of(crd).update(mood={"type": "string", "default": "good"}), '"mood": "good"'),
    ],
    ids=["a field removed", "a bound tightened", "a default for all"],
)
@pytest.mark.long
def test_a_crd_that_breaks_stored_objects_is_found_out(
    store: Store, change: Callable[[Json], object], words: str
) -> None:
    objects = read_objects(RELEASES[-1])
    store.install(read_crd(RELEASES[-1] / "crd.yaml"))
    assert store.create(objects) == []
    broken = read_crd(CURRENT)
    change(broken)
    store.install(broken)
    losses = store.find_losses(objects)
    assert any(words in line for line in losses), losses[:3]
