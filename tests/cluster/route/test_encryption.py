"""TLS up to the engine pods on a cluster: Restricted requests are answered there and nowhere else."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from tests.canaries import search_files, search_objects
from tests.cluster.operator_world import QUIET_S, until
from tests.cluster.route.world import (
    AT_ONCE_S,
    ROUTE,
    TEAM_A,
    TEAM_B,
    RouteWorld,
    make_deployment,
    make_route,
    make_secret,
)

from fairlead.facts.certificates import KeyPair, WantedCertificate
from fairlead.runtime.issuing import issue_certificate
from fairlead_cluster.certificates import Authority, Issued

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
AUTHORITY = Authority("engines-ca")
SECRET = "llama-tls"
#: In which the node stand-in has brought a changed Secret to every pod, and Envoy has read it.
PROJECTED_S = 5.0
RESTRICTED = "Where is project bluebird?"
CONFIDENTIAL = "Pay with 4111 1111 1111 1111"
ENCRYPTION: Json = {"encryption": {"certificate": {"secretName": SECRET}}}


def issue(world: RouteWorld, authority: Authority = AUTHORITY, name: str = "llama") -> Issued:
    return authority.issue(name, [f"{name}.{world.namespace}.svc"])


def make_certificate(world: RouteWorld, issued: Issued, authority: Authority = AUTHORITY) -> Json:
    """As cert-manager writes it."""
    data = {"tls.crt": issued.cert, "tls.key": issued.key, "ca.crt": authority.cert}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET, "namespace": world.namespace},
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def make_restricted_route(world: RouteWorld) -> Json:
    route = make_route(world.namespace, world.provider)
    route["spec"]["roles"][1]["dataAccess"].append("Restricted")
    del route["spec"]["models"][1]
    return route


def apply_everything(world: RouteWorld, certificate: Json | None) -> None:
    """The deployment is encrypted from its first pod on: a rollout from plain pods takes as long as a model loads."""
    world.apply(
        *([certificate] if certificate is not None else []),
        make_secret(world.namespace, "clients", {"team-a": TEAM_A, "team-b": TEAM_B}, use="clients"),
        world.provider_secret(),
        make_secret(world.namespace, "provider-ca", {"ca.crt": world.ca}),
        make_deployment(world.namespace, **ENCRYPTION),
        make_restricted_route(world),
    )


def engine(world: RouteWorld) -> Json:
    """The engine's pod."""
    (name,) = world.engines()
    found = world.get(name)
    assert found is not None
    return found


def shown(world: RouteWorld) -> str:
    address = engine(world)["status"]["podIP"]
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((address, 8443), timeout=5)).hex()


def test_restricted_requests_stay_on_an_encrypted_way(world: RouteWorld) -> None:
    apply_everything(world, make_certificate(world, issue(world)))
    world.wait_backends()
    deployment = world.get("llmdeployment/llama")
    assert deployment is not None
    assert deployment["status"]["endpoint"] == f"https://llama.{world.namespace}.svc/v1"

    answer = world.ask(RESTRICTED, key=TEAM_B)
    assert (answer.status, answer.headers["x-fairlead-class"]) == (200, "Restricted"), answer
    assert answer.headers["x-fairlead-backend"] == "local"
    streamed = world.ask(RESTRICTED, key=TEAM_B, stream=True)
    assert (streamed.status, streamed.body.endswith("data: [DONE]\n\n")) == (200, True)
    assert world.ask(RESTRICTED).status == 403, "another role may not send it"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{engine(world)['status']['podIP']}:8443/health", timeout=5)

    # A renewed certificate is taken without a restart.
    before = engine(world)["metadata"]["uid"]
    second = issue(world)
    world.apply(make_certificate(world, second))
    wanted = ssl.PEM_cert_to_DER_cert(second.cert.decode()).hex()
    until(lambda: shown(world) == wanted, "the renewed certificate is shown", 120)
    assert world.ask(RESTRICTED, key=TEAM_B).status == 200
    assert engine(world)["metadata"]["uid"] == before

    # What may write requests into a log takes that back at once, and what may hand them on the class below it, too.
    logging = make_deployment(world.namespace, **ENCRYPTION)
    logging["spec"]["engine"] |= {"args": ["--enable-log-requests"], "env": [{"name": "A_WEBHOOK", "value": ""}]}
    assert world.ask(CONFIDENTIAL, key=TEAM_B).status == 200
    world.apply(logging)
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 403, "it is withdrawn", AT_ONCE_S)
    until(lambda: world.ask(CONFIDENTIAL, key=TEAM_B).status == 403, "so is the class below it", AT_ONCE_S)
    until(lambda: "spec.engine.env sets A_WEBHOOK" in world.route_condition("Accepted")["message"], "it is told")

    # And gives both back when the last such pod is gone, not when the spec says so.
    until(lambda: records(world) == 1, "the pod that logs serves", 60)
    world.apply(make_deployment(world.namespace, **ENCRYPTION))
    seen = []
    until(
        lambda: seen.append((*ask_both(world), records(world))) or seen[-1][:2] == (200, 200),
        "again",
        90,
    )
    assert seen[-1] == (200, 200, 0)
    assert (403, 403, 1) in seen
    assert world.provider.recorded == []


def ask_both(world: RouteWorld) -> tuple[int, int]:
    return world.ask(RESTRICTED, key=TEAM_B).status, world.ask(CONFIDENTIAL, key=TEAM_B).status


def records(world: RouteWorld) -> int:
    """Engine pods that may write requests into their log; one that ends counts as long as it is there."""
    pods = [world.get(name) or {"metadata": {}} for name in world.engines()]
    return sum("fairlead.dev/records-requests" in (pod["metadata"].get("annotations") or {}) for pod in pods)


ISSUED = "llama-pods-tls"
AUTHORITY_SECRET, HOME = "fairlead-ca", "fairlead-system"


def read_secret(world: RouteWorld, name: str, namespace: str | None = None) -> dict[str, str]:
    """Its values, {} where it is not there."""
    where = f"--namespace={namespace or world.namespace}"
    done = world.cluster.kubectl.run("get", "secret", name, where, "-o", "json")
    data = json.loads(done.stdout)["data"] if done.returncode == 0 else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def age(world: RouteWorld) -> str:
    """Put a certificate by the operator's authority into the Secret that has lived most of its life. Returns it."""
    secret = read_secret(world, AUTHORITY_SECRET, HOME)
    now = datetime.now(UTC)
    names = (f"llama.{world.namespace}.svc",)
    wanted = WantedCertificate(names, now - timedelta(days=80), now + timedelta(days=10))
    old = issue_certificate(wanted, KeyPair(secret["tls.crt"], secret["tls.key"]))
    values = {"tls.crt": old.certificate, "tls.key": old.key}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    settled = {"fairlead.dev/trusted-since": "2026-01-01T00:00:00Z"}
    world.patch(f"secret/{ISSUED}", json.dumps({"data": data, "metadata": {"annotations": settled}}))
    return old.certificate


def settle(world: RouteWorld) -> None:
    """As if minutes had gone by."""
    settled = {"fairlead.dev/trusted-since": "2026-01-01T00:00:00Z"}
    world.patch(f"secret/{ISSUED}", json.dumps({"metadata": {"annotations": settled}}))


@dataclass
class Load:
    """Restricted requests, one after the other, in a thread of their own; and new connections to the pod, since gateways keep theirs."""

    world: RouteWorld
    statuses: list[int] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.address = engine(self.world)["status"]["podIP"]
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.ending.wait(0.05):
            self.statuses.append(self.world.ask(RESTRICTED, key=TEAM_B).status)
            self.connections.append(self._connect())

    def _connect(self) -> str:
        """What becomes of a handshake with the pod by whoever has the authorities of this moment."""
        trusted = ssl.create_default_context(cadata=read_secret(self.world, ISSUED)["ca.crt"])
        try:
            with (
                socket.create_connection((self.address, 8443), timeout=5) as plain,
                trusted.wrap_socket(plain, server_hostname=f"llama.{self.world.namespace}.svc") as encrypted,
            ):
                return str(encrypted.version())
        except OSError as error:
            return repr(error)


def der(pem: str) -> str:
    return ssl.PEM_cert_to_DER_cert(pem).hex()


def test_a_certificate_is_issued_renewed_and_outlives_its_authority(world: RouteWorld) -> None:
    world.apply(
        make_secret(world.namespace, "clients", {"team-a": TEAM_A, "team-b": TEAM_B}, use="clients"),
        world.provider_secret(),
        make_secret(world.namespace, "provider-ca", {"ca.crt": world.ca}),
        make_deployment(world.namespace, encryption={}),
        make_restricted_route(world),
    )
    world.wait_backends()
    assert world.ask(RESTRICTED, key=TEAM_B).status == 200
    first = read_secret(world, ISSUED)
    assert shown(world) == der(first["tls.crt"])
    authority = read_secret(world, AUTHORITY_SECRET, HOME)
    assert first["ca.crt"] == authority["ca.crt"]
    before = {pod["metadata"]["uid"] for pod in [engine(world), *world.gateways()]}

    # Nothing to do, nothing sent.
    mark = world.mark()
    world.patch("llmdeployment/llama", '{"metadata": {"annotations": {"note": "look"}}}')
    time.sleep(QUIET_S)
    assert world.writes(mark) == []

    with Load(world) as load:
        # It has lived for most of its life: another one comes, at once, and is taken without a restart.
        known = (first["tls.crt"], age(world))
        until(lambda: read_secret(world, ISSUED)["tls.crt"] not in known, "renewed", 30)
        renewed = read_secret(world, ISSUED)
        until(lambda: shown(world) == der(renewed["tls.crt"]), "the renewed certificate is shown", 120)

        # Somebody deletes the authority: another one is made, and comes to be trusted beside the one before.
        world.cluster.kubectl("delete", "secret", AUTHORITY_SECRET, f"--namespace={HOME}")
        until(lambda: read_secret(world, AUTHORITY_SECRET, HOME), "a new authority is made", 30)
        other = read_secret(world, AUTHORITY_SECRET, HOME)
        assert other["tls.crt"] != authority["tls.crt"]
        both = other["tls.crt"] + authority["tls.crt"]
        until(lambda: read_secret(world, ISSUED)["ca.crt"] == both, "both are trusted", 30)
        assert read_secret(world, ISSUED)["tls.crt"] == renewed["tls.crt"]
        time.sleep(PROJECTED_S)
        # When that has settled, there is a certificate by the new one, and then only that is trusted.
        settle(world)
        until(lambda: read_secret(world, ISSUED)["tls.crt"] != renewed["tls.crt"], "issued by the new one", 30)
        last = read_secret(world, ISSUED)
        assert last["ca.crt"] == both
        until(lambda: shown(world) == der(last["tls.crt"]), "that is shown", 120)
        time.sleep(PROJECTED_S)
        settle(world)
        until(lambda: read_secret(world, ISSUED)["ca.crt"] == other["tls.crt"], "the old one is trusted no more", 30)
        time.sleep(PROJECTED_S)
    assert len(load.statuses) > 20
    assert (set(load.statuses), set(load.connections)) == ({200}, {"TLSv1.3"})
    assert {pod["metadata"]["uid"] for pod in [engine(world), *world.gateways()]} == before

    # Keys are in Secrets and nowhere else.
    keys = [one["tls.key"].splitlines()[1] for one in (first, renewed, last, authority, other)]
    keys += [
        base64.b64encode(one["tls.key"].encode()).decode()[60:120] for one in (first, renewed, last, authority, other)
    ]
    assert search_objects(world.cluster.kubectl, also=keys) == []
    logs = [path for path in world.cluster.logs_dir.glob("*.log") if not path.name.startswith("etcd")]
    assert search_files(logs, also=keys) == []

    # A Secret that is deleted comes back.
    world.kubectl("delete", "secret", ISSUED)
    until(lambda: read_secret(world, ISSUED), "it is issued anew", 30)
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "it serves", 60)


def test_what_is_no_authority_is_told_and_replaced_when_somebody_deletes_it(world: RouteWorld, tmp_path: Path) -> None:
    nothing = {key: base64.b64encode(b"nothing").decode() for key in ("tls.crt", "tls.key")}
    metadata = {"name": AUTHORITY_SECRET, "namespace": HOME}
    broken = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": nothing}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    world.cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={tmp_path / 'broken.json'}")
    world.apply(make_deployment(world.namespace, encryption={}))
    condition = world.wait_stalled("llama", "CertificateNotIssued")
    assert f"kubectl delete secret {AUTHORITY_SECRET} -n {HOME}" in condition["message"]
    assert read_secret(world, ISSUED) == {}
    assert read_secret(world, AUTHORITY_SECRET, HOME)["tls.crt"] == "nothing", "it is left alone"
    world.cluster.kubectl("delete", "secret", AUTHORITY_SECRET, f"--namespace={HOME}")
    until(lambda: read_secret(world, ISSUED), "a certificate by a new one", 30)
    until(lambda: world.condition("llama", "Ready").get("status") == "True", "it serves", 120)


def test_pods_with_a_certificate_of_somebody_else_get_nothing(world: RouteWorld) -> None:
    apply_everything(world, make_certificate(world, issue(world, name="other")))
    until(lambda: (world.get("llmdeployment/llama") or {}).get("status", {}).get("readyReplicas"), "it serves", 60)
    until(lambda: world.route().get("status", {}).get("gateways") == "2/2", "the gateways are there", 60)
    for _ in range(5):
        assert world.ask(RESTRICTED, key=TEAM_B).status == 503
    # As soon as it shows its own, it is served.
    world.apply(make_certificate(world, issue(world)))
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "its own certificate is taken", 120)


def test_the_secret_may_come_last_and_another_authority_may_sign(world: RouteWorld) -> None:
    """As an issuer needs its time, and as one that signs itself has another authority each time."""
    apply_everything(world, None)
    until(lambda: world.route().get("status", {}).get("gateways") == "2/2", "the gateways have loaded all of it", 60)
    assert world.ask(RESTRICTED, key=TEAM_B).status == 503
    assert world.route_condition("Stalled")["status"] == "False"
    world.apply(make_certificate(world, issue(world)))
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "it serves", 180)
    world.wait_ready()
    before = {pod["metadata"]["uid"] for pod in [engine(world), *world.gateways()]}

    other = Authority("another-ca")
    renewed = issue(world, other)
    world.apply(make_certificate(world, renewed, other))
    wanted = ssl.PEM_cert_to_DER_cert(renewed.cert.decode()).hex()
    until(lambda: shown(world) == wanted, "the renewed certificate is shown", 120)
    until(lambda: world.ask(RESTRICTED, key=TEAM_B).status == 200, "the gateways have the other authority", 120)
    for _ in range(10):
        assert world.ask(RESTRICTED, key=TEAM_B).status == 200
    assert {pod["metadata"]["uid"] for pod in [engine(world), *world.gateways()]} == before


def test_without_encryption_nothing_is_restricted(world: RouteWorld) -> None:
    world.apply_all(make_restricted_route(world))
    until(lambda: world.route_condition("Accepted").get("status") == "False", "it is not accepted", 60)
    condition = world.route_condition("Accepted")
    assert condition["reason"] == "NoPermittedTarget"
    assert "LLMDeployment llama: spec.encryption is not set" in condition["message"]
    assert f"{ROUTE}-gateway" not in world.kubectl("get", "deployments", "-o", "name")
