"""`fairlead render` of LLMRoutes: what the operator would apply, from the same input, and never a key."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.rendering.commands import (
    ALL,
    CLIENTS_SECRET,
    DEPLOYMENT,
    PROVIDER_SECRET,
    ROUTE,
    change,
    write,
)

from fairlead.api.resource import LLMRoute
from fairlead.api.validation import parse_llmroute
from fairlead.cli import main
from fairlead.facts.observed import Observed, OperatorFacts
from fairlead.facts.route import ClientsSecret, LocalDeployment, RouteFacts, SecretFacts
from fairlead.planning.route import plan_route
from fairlead.providers.loader import ProviderCatalog
from fairlead.rendering.routes import PLACEHOLDER

Json = dict[str, Any]
SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


class Result:
    """What a run of the command left behind."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err
        self.objects: list[Json] = list(yaml.safe_load_all(out))
        self.lines = err.splitlines()

    def one(self, kind: str, name: str) -> Json:
        (found,) = [o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        return found

    def clusters(self) -> dict[str, Json]:
        text = self.one("ConfigMap", "assistants-gateway-clusters")["data"]["cds.json"]
        return {cluster["name"]: cluster for cluster in json.loads(text)["resources"]}


@pytest.fixture
def render(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def run(*objects: Json, options: tuple[str, ...] = ()) -> Result:
        status = main(["render", "-f", write(tmp_path / "in.yaml", *objects), *options])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


def test_everything_in_the_input_leaves_nothing_to_assume(render: Any) -> None:
    result = render(*ALL)
    assert (result.status, result.lines) == (
        0,
        ["note: LLMRoute/assistants: Secret/assistants-gateway-clients: is printed without the clients' keys"],
    )
    assert [o["kind"] for o in result.objects][:9] == [
        "ConfigMap", "Secret", "ConfigMap", "ConfigMap", "ConfigMap", "ConfigMap", "Service", "NetworkPolicy", "Deployment",
    ]  # fmt: skip


def test_what_is_printed_is_what_the_planner_applies(render: Any) -> None:
    """In a cluster in which the input is there and its deployment ready."""
    parsed = parse_llmroute({**ROUTE, "metadata": {"name": "assistants", "namespace": "team"}})
    assert isinstance(parsed, LLMRoute)
    facts = RouteFacts(
        deployments={"llama-8b": LocalDeployment("llama-8b", "qwen", 11434, ready=1, is_confidential=True)},
        secrets={"openai": SecretFacts("openai", "provider", frozenset({"api.openai.com"}))},
        clients=ClientsSecret("clients", "clients", "1", {}),
    )
    operator = OperatorFacts(cluster_domain="corp.example", gateway_image="registry.example/envoy:1.40")
    now = datetime(2026, 11, 25, tzinfo=UTC)
    plan = plan_route(parsed, Observed(), facts, operator, ProviderCatalog.builtin(), now)
    options = ("-n", "team", "--cluster-domain", "corp.example", "--gateway-image", "registry.example/envoy:1.40")
    printed = [o for o in render(*ALL, options=options).objects if "fairlead.dev/llmroute" in o["metadata"]["labels"]]
    applied = [json.loads(json.dumps(child.body)) for child in plan.children]
    assert [o for o in printed if o["kind"] != "Secret"] == [o for o in applied if o["kind"] != "Secret"]
    (secret,) = [o for o in applied if o["kind"] == "Secret"]
    (shown,) = [o for o in printed if o["kind"] == "Secret"]
    for one in (secret, shown):  # says which version of the clients' Secret it is of
        del one["metadata"]["annotations"]["fairlead.dev/publications"]
    assert shown == {
        **{k: v for k, v in secret.items() if k != "data"},
        "stringData": dict.fromkeys(secret["data"], PLACEHOLDER),
    }


def test_no_key_is_ever_printed(render: Any) -> None:
    result = render(*ALL)
    assert "VERYSECRET" not in result.out + result.err
    decoded = [
        base64.b64decode(text) for o in result.objects if o["kind"] == "Secret" for text in o.get("data", {}).values()
    ]
    assert decoded == []
    (text,) = result.one("Secret", "assistants-gateway-clients")["stringData"].values()
    assert text == PLACEHOLDER


def test_without_api_keys_nothing_is_left_out(render: Any) -> None:
    result = render(SAMPLE)
    assert result.status == 0
    assert list(result.one("Secret", "assistants-gateway-clients")["data"]) == ["authentication.json"]
    assert "without the clients' keys" not in result.err


SAMPLE: Json = yaml.safe_load((SAMPLES / "routes/assistants.yaml").read_text())


def test_a_route_alone_is_rendered_and_what_was_assumed_is_told(render: Any) -> None:
    result = render(ROUTE)
    assert result.status == 0
    assert result.lines == [
        (
            "note: LLMRoute/assistants: LLMDeployment llama-8b is not in the input: assumed to be ready on port 8000, to serve the"
            " model llama-8b, and to keep what it is sent (Confidential)"
        ),
        (
            "note: LLMRoute/assistants: Secret openai is not in the input: assumed to hold the key, and to consent"
            " (fairlead.dev/use=provider, fairlead.dev/hosts=api.openai.com)"
        ),
        (
            "note: LLMRoute/assistants: Secret clients is not in the input: assumed to be there (fairlead.dev/use=clients), with a"
            " key for each consumer"
        ),
        "note: LLMRoute/assistants: Secret/assistants-gateway-clients: is printed without the clients' keys",
    ]
    assert {"be~openai", "be~local"} <= {name.rpartition("~")[0] for name in result.clusters()} | set(result.clusters())


def test_authorities_that_are_not_in_the_input_are_assumed(render: Any) -> None:
    provider = {
        "type": "OpenAICompatible", "baseURL": "https://llm.example.com/v1", "secretRef": {"name": "own", "key": "k"},
        "tls": {"caSecretRef": {"name": "own-ca", "key": "ca.crt"}, "serverName": "other.example.com"},
    }  # fmt: skip
    result = render(change(ROUTE, "spec.backends.1.provider", provider), DEPLOYMENT, CLIENTS_SECRET)
    assert result.status == 0
    assert "Secret own-ca is not in the input: assumed to hold ca.crt" in result.err
    assert "fairlead.dev/hosts=llm.example.com,other.example.com" in result.err


def test_order_of_the_input_does_not_matter_to_what_a_route_finds(render: Any) -> None:
    forward, backward = render(*ALL), render(*reversed(ALL))
    by_name = lambda result: {(o["kind"], o["metadata"]["name"]): o for o in result.objects}  # noqa: E731
    assert by_name(forward) == by_name(backward)
    assert forward.objects[-1] in backward.objects


def test_port_and_model_are_those_of_the_deployments_own_plan(render: Any) -> None:
    result = render(*ALL)
    service = result.one("Service", "llama-8b-pods")
    policy = json.dumps(result.one("NetworkPolicy", "assistants-gateway"))
    assert service["spec"]["ports"][0]["port"] == 11434
    assert '"port": 11434' in policy
    assert "11434" in json.dumps(result.clusters())
    egress = result.one("ConfigMap", "assistants-gateway-egress")["data"]["rds-egress.json"]
    assert f'"{b"qwen".hex()}.' in egress  # what Ollama calls the model is in the name of the attempt's host


@pytest.mark.parametrize("suspended", [{"replicas": 0}, {"suspend": True}])
def test_a_deployment_without_replicas_is_there_all_the_same(render: Any, suspended: Json) -> None:
    deployment = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], **suspended}}
    result = render(ROUTE, deployment, PROVIDER_SECRET, CLIENTS_SECRET)
    assert result.status == 0
    assert "11434" in json.dumps(result.clusters())


def test_another_namespace_is_another_deployment(render: Any) -> None:
    result = render(ROUTE, change(DEPLOYMENT, "metadata.namespace", "elsewhere"), PROVIDER_SECRET, CLIENTS_SECRET)
    assert "LLMDeployment llama-8b is not in the input" in result.err


LEAKING = change(DEPLOYMENT, "spec.engine", {"type": "Ollama", "env": [{"name": "HTTP_PROXY", "value": "x"}]})
OWN_IMAGE = change(DEPLOYMENT, "spec.engine", {"type": "Ollama", "image": "registry.example/ollama:0.32.4"})


@pytest.mark.parametrize(
    ("objects", "options", "finding"),
    [
        (
            (LEAKING,),
            (),
            ("spec.models: chat has no target that may take Confidential requests, which role analyst may send. LLMDeployment"
            " llama-8b: spec.engine.env sets HTTP_PROXY, which may send requests elsewhere; add such a target, take the class"
            " from the role, or list Confidential in spec.dataPolicy.denyClasses"),
        ),
        ((OWN_IMAGE,), (), "spec.models: chat has no target that may take Confidential requests"),
        ((OWN_IMAGE,), ("--local-images", "other/*,registry.example/*"), ""),
        (
            (change(ROUTE, "spec.backends.1.provider.trusted", True),),
            (),
            ("spec.backends[1].provider.trusted: api.openai.com is not on the operator's list of trusted hosts; leave it out, or"
            " ask whoever runs fairlead to add the host to --trusted-hosts"),
        ),
        ((change(ROUTE, "spec.backends.1.provider.trusted", True),), ("--trusted-hosts", "x.example, *.openai.com"), ""),
        (
            (change(ROUTE, "spec.backends.1.provider.baseURL", "https://10.0.0.1/v1"),),
            (),
            "spec.backends[1].provider.baseURL: ",
        ),
        (
            (change(ROUTE, "spec.models.0.targets.0.backend", "lokal"),),
            (),
            "spec.models",
        ),
        (
            (change(ROUTE, "spec.dataPolicy.detectors.1", {"name": "own", "class": "Confidential", "patterns": ["a", "(b"]}),),
            (),
            "spec.dataPolicy.detectors[1].patterns[1]: is no RE2 pattern: missing ): (b; RE2 has no look-around",
        ),
        ((change(ROUTE, "spec.models", None),), (), "spec.models: is required"),
        ((change(ROUTE, "apiVersion", "fairlead.dev/v2"),), (), "apiVersion: is 'fairlead.dev/v2'; "),
    ],
)  # fmt: skip
def test_a_route_that_is_not_accepted_is_a_finding(
    render: Any, objects: tuple[Json, ...], options: tuple[str, ...], finding: str
) -> None:
    given = {(o["kind"], o["metadata"]["name"]): o for o in (*ALL, *objects)}
    result = render(*given.values(), options=options)
    findings = [line for line in result.lines if not line.startswith("note: ")]
    made = [o for o in result.objects if o["metadata"]["name"].startswith("assistants-gateway")]
    if not finding:
        assert (result.status, findings) == (0, [])
        assert len(made) == 10
        return
    assert result.status == 1
    assert made == []
    assert any(line.startswith(f"LLMRoute/assistants: {finding}") for line in findings), findings
    assert result.one("Deployment", "llama-8b"), "what is valid is printed all the same"


def test_all_refused_providers_are_told(render: Any) -> None:
    route = change(
        ROUTE,
        "spec.backends.0",
        {"name": "local", "provider": {"type": "Replicate", "secretRef": {"name": "r", "key": "k"}}},
    )
    result = render(change(route, "spec.backends.1.provider.trusted", True))
    paths = [line.split(": ")[1] for line in result.lines if line.startswith("LLMRoute/assistants: ")]
    assert paths == ["spec.backends[0].provider.type", "spec.backends[1].provider.trusted"]


@pytest.mark.parametrize(
    ("secret", "note"),
    [
        (change(PROVIDER_SECRET, "metadata.labels", None), "openai: Secret openai is not there, or is not labelled"),
        (change(PROVIDER_SECRET, "metadata.annotations", {"fairlead.dev/hosts": "x.example"}), "does not name api.openai.com"),
        (change(PROVIDER_SECRET, "stringData", {"token": "VERYSECRET"}), "has no key apiKey (it has token)"),
        (change(PROVIDER_SECRET, "metadata.labels", ["odd"]), "is not labelled"),
    ],
)  # fmt: skip
def test_a_secret_in_the_input_that_does_not_consent_is_told(render: Any, secret: Json, note: str) -> None:
    result = render(ROUTE, DEPLOYMENT, secret, CLIENTS_SECRET)
    assert result.status == 0
    assert note in result.err
    assert "VERYSECRET" not in result.out + result.err
    assert "api.openai.com" not in json.dumps(result.clusters())


TLS_ROUTE = change(ROUTE, "spec.gateway", {"tls": {"secretName": "chat-tls"}})
TLS_SECRET: Json = {
    "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
    "metadata": {"name": "chat-tls", "labels": {"fairlead.dev/use": "gateway-tls"}},
    "stringData": {"tls.crt": "CERTIFICATE", "tls.key": "VERYSECRET"},
}  # fmt: skip


def test_a_certificate_is_assumed_or_taken_from_the_input(render: Any) -> None:
    alone = render(TLS_ROUTE)
    assert "Secret chat-tls is not in the input: assumed to be there (fairlead.dev/use=gateway-tls" in alone.err
    whole = render(TLS_ROUTE, DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET, TLS_SECRET)
    assert "chat-tls" not in whole.err
    assert "VERYSECRET" not in whole.out + whole.err
    for result in (alone, whole):
        assert result.status == 0
        assert result.one("Service", "assistants-gateway")["spec"]["ports"][0]["port"] == 443
        assert "lds-tls.json" in result.one("ConfigMap", "assistants-gateway-bootstrap")["data"]


@pytest.mark.parametrize(
    ("secret", "note"),
    [
        (change(TLS_SECRET, "metadata.labels", None), "spec.gateway.tls: Secret chat-tls is not there, or is not labelled"),
        (change(TLS_SECRET, "metadata.labels", {"fairlead.dev/use": "provider"}), "is not labelled fairlead.dev/use=gateway-tls"),
        (change(TLS_SECRET, "type", "Opaque"), "is not of type kubernetes.io/tls with tls.crt and tls.key"),
        (change(TLS_SECRET, "type", None), "is not of type kubernetes.io/tls with tls.crt and tls.key"),
        (change(TLS_SECRET, "stringData", {"tls.crt": "CERTIFICATE"}), "is not of type kubernetes.io/tls with tls.crt and tls.key"),
    ],
)  # fmt: skip
def test_a_certificate_in_the_input_that_cannot_be_used_starts_no_gateway(render: Any, secret: Json, note: str) -> None:
    result = render(TLS_ROUTE, DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET, secret)
    assert note in result.err
    assert "VERYSECRET" not in result.out + result.err
    made = {(one["kind"], one["metadata"]["name"]) for one in result.objects}
    assert ("Deployment", "assistants-gateway") not in made
    assert ("ConfigMap", "assistants-gateway-routes") in made


JWT: Json = {"issuer": "https://id.example.com", "audiences": ["a"]}


def test_keys_of_an_issuer_are_assumed_or_taken_from_the_input(render: Any) -> None:
    by_map = {**JWT, "jwks": {"configMapRef": {"name": "issuer", "key": "jwks"}}}
    alone = render(change(ROUTE, "spec.authentication.jwt", by_map), DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET)
    assert alone.status == 0
    assert (
        "ConfigMap issuer is not in the input: assumed to hold the issuer's keys (fairlead.dev/use=jwks)" in alone.err
    )
    by_secret = {**JWT, "jwks": {"secretRef": {"name": "issuer", "key": "jwks"}}}
    secret: Json = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "issuer", "labels": {"fairlead.dev/use": "jwks"}},
        "stringData": {"jwks": '{"keys": [{"kty": "oct", "k": "VERYSECRET"}]}'},
    }  # fmt: skip
    found = render(
        change(ROUTE, "spec.authentication.jwt", by_secret), DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET, secret
    )
    assert found.status == 0
    assert "Secret issuer, key jwks: 1 of 1 keys cannot be used" in found.err
    assert "not in the input" not in found.err
    for result in (alone, found):
        assert "VERYSECRET" not in result.out + result.err
        assert result.one("Secret", "assistants-gateway-clients")["stringData"] == {"authentication.json": PLACEHOLDER}


def test_keys_of_clients_that_are_not_let_in_are_told(render: Any) -> None:
    secret = change(CLIENTS_SECRET, "stringData.team-b", "qz7x")
    result = render(ROUTE, DEPLOYMENT, PROVIDER_SECRET, secret)
    assert "some keys of team-b are not let in" in result.err
    assert "qz7x" not in result.out + result.err


@pytest.mark.parametrize(
    ("path", "value", "finding"),
    [
        ("data.team-a", "VERYSECRET!", "data.team-a: is not base64; encode the value, or write it into stringData"),
        ("data", ["VERYSECRET"], "data: is not a map; write a map of keys and values"),
    ],
)
def test_a_secret_that_the_api_server_would_refuse_is_a_finding(
    render: Any, path: str, value: Any, finding: str
) -> None:
    result = render(ROUTE, DEPLOYMENT, PROVIDER_SECRET, change(CLIENTS_SECRET, path, value))
    assert result.status == 1
    assert f"Secret/clients: {finding}" in result.lines
    assert "VERYSECRET" not in result.out + result.err


def test_an_invalid_deployment_is_told_and_its_route_goes_without_it(render: Any) -> None:
    route = change(ROUTE, "spec.dataPolicy.denyClasses", ["Confidential"])
    result = render(route, change(DEPLOYMENT, "spec.engine.type", "Olama"), PROVIDER_SECRET, CLIENTS_SECRET)
    assert result.status == 1
    assert any(line.startswith("LLMDeployment/llama-8b: spec.engine.type: ") for line in result.lines)
    assert "llama-8b-pods" not in json.dumps(result.clusters())


def test_secrets_that_no_route_names_are_passed_over(render: Any) -> None:
    result = render(*ALL, change(PROVIDER_SECRET, "metadata.name", "other"))
    assert "note: Secret/other: is passed over, only LLMDeployment and LLMRoute are rendered" in result.lines
    assert "VERYSECRET" not in result.out + result.err


def test_the_same_name_twice_is_told(render: Any) -> None:
    result = render(ROUTE, ROUTE, DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET, CLIENTS_SECRET)
    assert result.status == 1
    twice = "metadata.name: stands twice in the input; give it another name"
    assert [line for line in result.lines if "twice" in line] == [
        f"LLMRoute/assistants: {twice}",
        f"Secret/clients: {twice}",
    ]


def test_a_deployment_may_be_called_as_a_route(render: Any) -> None:
    result = render(change(ROUTE, "metadata.name", "llama-8b"), DEPLOYMENT, PROVIDER_SECRET, CLIENTS_SECRET)
    assert result.status == 0


def test_a_file_of_secrets_beside_a_route_is_of_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    route, secrets = write(tmp_path / "r.yaml", ROUTE, DEPLOYMENT), write(tmp_path / "s.yaml", PROVIDER_SECRET)
    assert main(["render", "-f", route, "-f", secrets]) == 0
    assert "openai" not in capsys.readouterr().err
    models = write(tmp_path / "m.yaml", DEPLOYMENT)
    assert main(["render", "-f", models, "-f", secrets]) == 2
    assert f"{secrets}: holds no LLMDeployment or LLMRoute" in capsys.readouterr().err


def test_samples_are_rendered_together(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(path) for path in sorted(SAMPLES.glob("**/*.yaml")) if path.name != "kustomization.yaml"]
    assert main(["render", "-f", *files]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("kind: Deployment") == 7
