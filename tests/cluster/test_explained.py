"""What an operator of the operator sees when something is wrong: each row of the table in `docs/operations.md`, brought about on the real
API server and read from `/metrics`, `/debug/queue`, `/healthz` and the log alone.

One operator with an account of its own, whose network and rights belong to the test. EXPLAINED_TO names a folder that gets the pages.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_world import World, make_cr, until
from tests.cluster.test_privileges import NAME, grant, rules_of
from tests.soak.relay import Mode, Relay

from fairlead_cluster.cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.long]

Json = dict[str, Any]
QUICK = ("--lease-duration-s=4", "--renew-deadline-s=3", "--retry-period-s=0.5", "--log-level=info")


@dataclass
class Patient:
    """An operator of one namespace, its network, and where its pages are."""

    cluster: LocalCluster
    namespace: str
    relay: Relay

    @property
    def world(self) -> World:
        """What users do in its namespace."""
        return World(self.cluster, self.namespace)

    def page(self, path: str) -> str:
        """A page as it is, whatever its status."""
        try:
            with urllib.request.urlopen(self.cluster.operator_url(NAME) + path, timeout=10) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    @property
    def debug(self) -> Json:
        """/debug/queue."""
        found: Json = json.loads(self.page("/debug/queue"))
        return found

    def metric(self, pattern: str) -> float:
        """The sum of the samples that match."""
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", self.page("/metrics"), re.MULTILINE))

    def said(self, words: str) -> bool:
        """Whether a line of the log says this."""
        return words in (self.cluster.logs_dir / f"{NAME}.log").read_text()

    def keep(self, name: str, what: Callable[[], str]) -> None:
        """For the document, on request."""
        if folder := os.environ.get("EXPLAINED_TO"):
            (Path(folder) / name).write_text(what())


@pytest.fixture
def patient(control_plane: LocalCluster, namespace: str, tmp_path: Path) -> Iterator[Patient]:
    cluster = control_plane
    account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": NAME, "namespace": namespace}}
    cluster.kubectl.apply(account)
    grant(cluster, namespace, rules_of("rbac-own-namespace.yaml"), namespace, "own")
    grant(cluster, namespace, rules_of("rbac-watched.yaml"), namespace, "watched")
    original = cluster.control_plane.write_service_account_kubeconfig(namespace, NAME, tmp_path / "original")
    relay = Relay(cluster.control_plane.server_url)
    kubeconfig = relay.kubeconfig(original, tmp_path / "kubeconfig")
    log = cluster.logs_dir / f"{NAME}.log"
    log.unlink(missing_ok=True)
    environment = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": namespace}
    cluster.start_operator([f"--watch-namespaces={namespace}", "--nodes=Ignored", *QUICK], environment, name=NAME)
    cluster.wait_for_operator(NAME)
    patient = Patient(cluster, namespace, relay)
    until(lambda: patient.debug["leading"], "it leads")
    try:
        yield patient
    finally:
        relay.be(Mode.OPEN)
        cluster.stop_operator(NAME)
        relay.close()


def test_all_is_well(patient: Patient) -> None:
    patient.world.apply(make_cr(patient.namespace, "m"))
    patient.world.wait_observed("m")
    page = patient.debug
    assert page["lease"]["holder"] == page["identity"] == NAME
    assert page["lastErrors"] == page["refused"] == page["failures"] == page["busy"] == {}
    assert page["tasks"]["worker"] == 16
    assert patient.page("/healthz") == patient.page("/readyz") == "ok\n"
    patient.keep("well.json", lambda: patient.page("/debug/queue"))
    patient.keep("well.metrics", lambda: patient.page("/metrics"))


def test_a_missing_right(patient: Patient) -> None:
    rules = rules_of("rbac-watched.yaml")
    for rule in rules:
        if "services" in rule["resources"]:
            rule["verbs"] = ["list", "watch"]
    grant(patient.cluster, patient.namespace, rules, patient.namespace, "watched")
    time.sleep(1.0)  # until the authorizer knows
    patient.world.apply(make_cr(patient.namespace, "m"))
    until(lambda: patient.debug["refused"].get(f"{patient.namespace}/m"), "the refused children are named")
    refused = patient.debug["refused"][f"{patient.namespace}/m"]
    assert refused["Service/m"]["reason"] == refused["Service/m-pods"]["reason"] == "ChildRefused"
    assert patient.metric(r'fairlead_refused_children\{reason="ChildRefused"\}') == 2
    assert patient.metric(r'rest_client_requests_total\{code="403",.*\}') >= 2
    condition = until(lambda: patient.world.condition("m", "Reconciling"), "status tells")
    assert "cannot patch resource" in condition["message"]
    patient.keep("right.json", lambda: json.dumps(patient.debug["refused"], indent=2))
    patient.keep("right.describe", lambda: patient.world.kubectl("describe", "llmdep", "m"))
    patient.keep("right.metrics", lambda: patient.page("/metrics"))


def test_a_name_that_is_taken(patient: Patient) -> None:
    world = patient.world
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "m", "namespace": patient.namespace}}
    world.apply({**service, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})
    world.apply(make_cr(patient.namespace, "m"))
    world.wait_stalled("m", "NameConflict")
    refused = patient.debug["refused"][f"{patient.namespace}/m"]
    assert refused["Service/m"]["reason"] == "NameConflict"
    assert patient.metric(r'fairlead_refused_children\{reason="NameConflict"\}') == 1
    patient.keep("name.json", lambda: json.dumps(patient.debug["refused"], indent=2))
    patient.keep("name.describe", lambda: world.kubectl("describe", "llmdep", "m"))


def test_an_engine_file_that_never_ends(patient: Patient) -> None:
    world = patient.world
    builtin = Path(__file__).parents[2] / "operator/fairlead/engines/vllm.yaml.j2"
    header = builtin.read_text().replace("name: vLLM", "name: Mine", 1).split("\n---\n", 1)[0]
    loops = "".join(f"{{% for {name} in letters %}}" for name in "abcdefgh") + "{% endfor %}" * 8
    loop = header + "\n---\n{% set letters = 'abcdefghijklmnopqrstuvwxyz'|list %}" + loops
    metadata = {"name": "mine", "namespace": patient.namespace, "labels": {"fairlead.dev/engine": "Mine"}}
    world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"engine.yaml.j2": loop}})
    world.apply(make_cr(patient.namespace, "theirs", engine={"type": "Mine"}), make_cr(patient.namespace, "bystander"))
    message = world.wait_stalled("theirs", "EngineInvalid")["message"]
    assert "takes longer than" in message
    world.wait_observed("bystander")
    assert patient.said("The process for engines from ConfigMaps was ended: a template took longer than it may")
    labels = rf'name="theirs",namespace="{patient.namespace}",reason="EngineInvalid",status="True",type="Stalled"'
    line = rf"fairlead_llmdeployment_condition\{{{labels}\}}"
    until(lambda: patient.metric(line) == 1, "the metric tells")
    patient.keep("engine.describe", lambda: world.kubectl("describe", "llmdep", "theirs"))


def test_an_api_server_that_is_away(patient: Patient) -> None:
    world = patient.world
    world.apply(make_cr(patient.namespace, "m"))
    world.wait_observed("m")
    before = patient.metric(r'rest_client_requests_total\{code="<error>",.*\}')
    patient.relay.be(Mode.REFUSING)
    until(lambda: not patient.debug["leading"], "it stops working")
    # It stops by the clock, and says so when it looks at the clock next.
    until(lambda: patient.said("could not be renewed in time"), "the log says why")
    until(lambda: patient.said("No longer leading"), "the log says that it stops")
    page = until(lambda: (page := patient.debug)["lease"]["renewedSecondsAgo"] > 5 and page, "the Lease grows old")
    assert page["streams"][f"pods in {patient.namespace}"]["silentSeconds"] > 1
    assert patient.metric(r'rest_client_requests_total\{code="<error>",.*\}') > before
    assert patient.metric(r'leader_election_master_status\{name="fairlead"\}') == 0
    assert patient.metric("fairlead_lease_age_seconds") > 5
    assert patient.metric(r'fairlead_watch_restarts_total\{cause="error",.*\}') > 0
    assert patient.said("Watch of services in")
    patient.keep("away.json", lambda: patient.page("/debug/queue"))
    patient.keep("away.metrics", lambda: patient.page("/metrics"))
    patient.keep("away.log", lambda: (patient.cluster.logs_dir / f"{NAME}.log").read_text())
    patient.relay.be(Mode.OPEN)
    until(lambda: patient.debug["leading"], "it works again", 60)


def test_an_api_server_that_is_slow(patient: Patient) -> None:
    name = r'rest_client_request_duration_seconds_%s\{host=".*",verb="PATCH".*\}'
    patient.relay.be(Mode.SLOW)
    patient.world.apply(make_cr(patient.namespace, "m"))
    patient.world.wait_observed("m")
    assert patient.metric(name % "sum") / patient.metric(name % "count") >= 0.4
    patient.keep("slow.metrics", lambda: patient.page("/metrics"))


def test_another_replica_that_holds_the_lease_and_says_nothing(patient: Patient) -> None:
    cluster = patient.cluster
    cluster.stop_operator(NAME)
    taken = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 600}}
    cluster.kubectl(
        "patch", "lease", "fairlead", "-n", patient.namespace, "--type=merge", f"--patch={json.dumps(taken)}"
    )
    environment = {"KUBECONFIG": os.fspath(_kubeconfig_of(patient)), "POD_NAMESPACE": patient.namespace}
    cluster.start_operator([f"--watch-namespaces={patient.namespace}", *QUICK], environment, name=NAME)
    cluster.wait_for_operator(NAME)
    page = until(lambda: (page := patient.debug)["lease"] and page["lease"]["renewedSecondsAgo"] > 3 and page, "seen")
    assert (page["lease"]["holder"], page["leading"]) == ("somebody", False)
    assert patient.page("/readyz") == "ok\n", "a standby is ready"
    patient.keep("standby.json", lambda: json.dumps(page, indent=2))


def _kubeconfig_of(patient: Patient) -> Path:
    path = patient.cluster.directory / f"{NAME}-again.kubeconfig"
    return patient.cluster.control_plane.write_service_account_kubeconfig(patient.namespace, NAME, path)
