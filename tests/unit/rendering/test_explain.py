"""`fairlead explain` as its users meet it: where a request goes, why not elsewhere, and the exit status."""

from __future__ import annotations

import copy
import io
import itertools
import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.unit.rendering.commands import (
    ALL,
    CLIENTS_SECRET,
    DEPLOYMENT,
    PROVIDER_SECRET,
    ROUTE,
    change,
    write,
)

from fairlead.api.route import DataClass
from fairlead.cli import main
from fairlead.gateway.lookup import ENDPOINTS
from fairlead.policy.law import CLASSES

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
CARD = "4111 1111 1111 1111"


class Answer:
    """What a run of the command left behind."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Json:
        found: Json = json.loads(self.out)
        return found

    @property
    def reasons(self) -> dict[str, str]:
        return {one["backend"]: one["reason"] for one in self.json["notTried"]}


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def run(*objects: Json, ask: str = "", body: Any = None) -> Answer:
        files = ["-f", write(tmp_path / "in.yaml", *objects)]
        if body is not None:
            (tmp_path / "body.json").write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
            files += ["--body", str(tmp_path / "body.json")]
        status = main(["explain", *files, *shlex.split(ask)])
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return run


def chat(text: Any, **more: Any) -> Json:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], **more}


# Who is tried ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "status", "data_class", "rule", "order", "reasons"),
    [
        ("--consumer team-a", None, "Internal", "default", ["local"], {"openai": "ClassRule"}),
        ("--consumer team-a --class Public", None, "Public", "header", ["local", "openai"], {}),
        ("--consumer team-a --class public", None, "Public", "header", ["local", "openai"], {}),
        ("--consumer team-a --class Internal", None, "Internal", "header", ["local"], {"openai": "ClassRule"}),
        ("--consumer team-a --class Confidential", 403, "Confidential", "header", [], {"local": "RoleClass", "openai": "ClassRule"}),
        ("--consumer team-a --class Restricted", 403, "Restricted", "header", [], {"local": "ClassRule", "openai": "ClassRule"}),
        ("--consumer team-b", None, "Internal", "default", ["local"], {"openai": "ClassRule"}),
        ("--consumer team-b --class Public", None, "Internal", "default", ["local"], {"openai": "ClassRule"}),
        ("--consumer team-b --class Confidential", None, "Confidential", "header", ["local"], {"openai": "ClassRule"}),
        ("--consumer team-a --path /v1/rerank --class Public", None, "Public", "header", ["local"], {"openai": "NoEndpoint"}),
    ],
)  # fmt: skip
def test_without_a_body(
    explain: Any, ask: str, status: int | None, data_class: str, rule: str, order: list[str], reasons: dict[str, str]
) -> None:
    clients = change(CLIENTS_SECRET, "stringData.stranger", "sk-of-somebody-else")
    answer = explain(ROUTE, DEPLOYMENT, PROVIDER_SECRET, clients, ask=f"--model chat -o json {ask}")
    found = answer.json
    assert (found["status"], found["class"], found["rule"], found["order"]) == (status, data_class, rule, order)
    assert answer.reasons == reasons
    assert answer.status == (0 if status is None else 1)
    assert found["allowed"] is (status is None)
    assert found["bodyRead"] is False
    assert answer.err == ""


def test_attempts_are_shared_by_weight_and_then_go_through_all(explain: Any) -> None:
    answer = explain(*ALL, ask="--model chat --consumer team-a --class Public -o json")
    local, openai = {"backend": "local", "model": "qwen"}, {"backend": "openai", "model": "gpt-5.6"}
    assert answer.json["stages"] == [
        [{"weight": 90, "tried": [local, openai]}, {"weight": 10, "tried": [openai, local]}],
    ]
    assert explain(*ALL, ask="--model chat --consumer team-a --class Public").out.splitlines()[-2:] == [
        "  1. 90 of 100: local (as qwen), then openai (as gpt-5.6)",
        "  1. 10 of 100: openai (as gpt-5.6), then local (as qwen)",
    ]


def test_the_next_priority_is_the_next_stage(explain: Any) -> None:
    targets = [
        {"backend": "openai", "priority": 1},
        {"backend": "local"},
        {"backend": "local", "model": "b", "weight": 2},
    ]
    answer = explain(
        change(ROUTE, "spec.models.0.targets", targets), DEPLOYMENT, ask="--model chat --consumer team-a --class Public"
    )
    assert answer.out.splitlines()[-3:] == [
        "  1. 1 of 3: local (as qwen), then local (as b)",
        "  1. 2 of 3: local (as b), then local (as qwen)",
        "  2. openai (as chat)",
    ]


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        ("--model chat", 401, "invalid_api_key"),
        ("--model chat --consumer nobody", 401, "invalid_api_key"),
        ("--model chat --consumer stranger", 403, "data_class_denied"),
        ("--model other --consumer team-a", 404, "model_not_found"),
        ("--model chat --consumer team-a --path /v1/files", 404, "unknown_endpoint"),
        ("--model chat --consumer team-a --path /v1/models", 404, "unknown_endpoint"),
    ],
)
def test_denials_say_which(explain: Any, ask: str, status: int, code: str) -> None:
    clients = change(CLIENTS_SECRET, "stringData.stranger", "sk-of-somebody-else")
    answer = explain(ROUTE, DEPLOYMENT, PROVIDER_SECRET, clients, ask=f"{ask} -o json")
    assert (answer.json["status"], answer.json["code"], answer.json["stages"]) == (status, code, [])
    assert answer.status == 1
    assert f"Denied with {status} {code}: " in explain(*ALL[:3], clients, ask=ask).out


def test_without_a_role_nothing_is_tried(explain: Any) -> None:
    answer = explain(ROUTE, ask="--model chat --consumer whoever -o json")
    assert answer.reasons == {"local": "NoRole", "openai": "NoRole"}
    assert answer.json["status"] == 403


def test_role_that_lacks_the_kind(explain: Any) -> None:
    route = change(ROUTE, "spec.dataPolicy.denyClasses", ["Internal", "Confidential"])
    route = change(route, "spec.roles.0.llmAccess", ["Cloud"])
    answer = explain(route, ask="--model chat --consumer team-a --class Public -o json")
    assert answer.json["order"] == ["openai"]
    assert answer.reasons == {"local": "RoleKind"}
    assert answer.json["notTried"][0]["message"] == "role developer has no Local in llmAccess"


def test_each_role_has_its_own_reason(explain: Any) -> None:
    route = change(ROUTE, "spec.roles.1.consumers", ["team-a", "team-b"])
    answer = explain(
        change(route, "spec.roles.0.dataAccess", ["Internal"]),
        ask="--model chat --consumer team-a --class Public -o json",
    )
    assert answer.json["notTried"] == [
        {
            "backend": "openai",
            "reason": "RoleClass",
            "message": "role developer has no Public in dataAccess; may take Public, and the request is Internal",
        }
    ]


def test_why_a_deployment_may_not_take_confidential(explain: Any) -> None:
    route = change(ROUTE, "spec.dataPolicy.denyClasses", ["Confidential"])
    leaking = change(DEPLOYMENT, "spec.networkPolicy", {"mode": "Disabled"})
    answer = explain(route, leaking, ask="--model chat --consumer team-b --class Confidential -o json")
    assert answer.json["notTried"][0] == {
        "backend": "local",
        "reason": "ClassRule",
        "message": "may take Public, Internal, and the request is Confidential (LLMDeployment llama-8b: spec.networkPolicy.mode"
        " is Disabled, so its egress is open)",
    }


def test_a_backend_that_does_not_resolve(explain: Any) -> None:
    secret = change(PROVIDER_SECRET, "metadata.labels", None)
    answer = explain(ROUTE, secret, ask="--model chat --consumer team-a --class Public -o json")
    assert answer.reasons == {"openai": "NotResolved"}
    assert answer.json["notTried"][0]["message"].startswith("Secret openai is not there, or is not labelled")


def test_nobody_there_is_503(explain: Any) -> None:
    route = change(ROUTE, "spec.models.0.targets", [{"backend": "openai"}])
    route = change(route, "spec.dataPolicy.denyClasses", [c.value for c in CLASSES])
    secret = change(PROVIDER_SECRET, "metadata.labels", None)
    answer = explain(route, secret, ask="--model chat --consumer team-a --class Public")
    assert answer.status == 1
    assert "Permitted, but answered with 503 no_backend: " in answer.out


def test_no_backend_with_the_endpoint_is_404(explain: Any) -> None:
    route = change(ROUTE, "spec.models.0.targets", [{"backend": "openai"}])
    route = change(route, "spec.dataPolicy.denyClasses", [c.value for c in CLASSES])
    answer = explain(route, ask="--model chat --consumer team-a --class Public --path /v1/rerank -o json")
    assert (answer.json["status"], answer.json["code"]) == (404, "unsupported_endpoint")
    assert answer.reasons == {"openai": "NoEndpoint"}


def test_a_deployment_without_replicas_is_told(explain: Any) -> None:
    idle = change(DEPLOYMENT, "spec.suspend", True)
    answer = explain(ROUTE, idle, ask="--model chat --consumer team-a")
    assert "LLMDeployment llama-8b has 0 replicas, so requests go to the next target." in answer.out


def test_trusted_hosts_and_local_images_count(explain: Any) -> None:
    route = change(ROUTE, "spec.backends.1.provider.trusted", True)
    answer = explain(route, ask="--model chat --consumer team-a -o json --trusted-hosts api.openai.com")
    assert answer.json["order"] == ["local", "openai"]
    own = change(DEPLOYMENT, "spec.engine", {"type": "Ollama", "image": "registry.example/ollama:0.32.4"})
    answer = explain(
        ROUTE, own, ask="--model chat --consumer team-b --class Confidential --local-images registry.example/*"
    )
    assert answer.status == 0


def test_without_api_keys_whoever_calls_is_anonymous(explain: Any) -> None:
    route = change(change(ROUTE, "spec.roles", None), "spec.authentication", {"anonymous": {}})
    named, unnamed = (explain(route, ask=f"--model chat {who}") for who in ("--consumer team-a", ""))
    assert named.status == unnamed.status == 0
    assert "This route has no apiKeys: whoever calls is anonymous." in named.out
    assert named.out.splitlines()[-3:] == unnamed.out.splitlines()[-3:]


# Bodies ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "ask", "status", "data_class", "rule"),
    [
        (chat("hello"), "--consumer team-b", None, "Internal", "default"),
        (chat("hello"), "--consumer team-a --class Public", None, "Public", "header"),
        (chat("Is BlueBird late?"), "--consumer team-b", None, "Confidential", "project"),
        (chat("Is BlueBird late?"), "--consumer team-a", 403, "Confidential", "project"),
        (chat(f"pay {CARD}"), "--consumer team-b", None, "Confidential", "cards"),
        (chat(json.dumps({"a": "bluebird"})), "--consumer team-a --class Public", 403, "Confidential", "project"),
        (chat([{"type": "image_url", "image_url": {"url": "data:"}}]), "--consumer team-b", None, "Confidential", "opaque"),
        (chat("bluebird"), "--consumer team-b --class Restricted", 403, "Restricted", "header"),
    ],
)  # fmt: skip
def test_a_body_is_classified(
    explain: Any, body: Json, ask: str, status: int | None, data_class: str, rule: str
) -> None:
    answer = explain(*ALL, body=body, ask=f"{ask} -o json")
    found = answer.json
    assert (found["status"], found["class"], found["rule"]) == (status, data_class, rule)
    assert found["bodyRead"] is True
    assert found["model"] == "chat"
    assert "bluebird" not in answer.out.lower().replace('"rule": "project"', "")
    assert CARD not in answer.out


PATTERNS: Json = change(
    ROUTE,
    "spec.dataPolicy.detectors",
    [
        {"name": "cards", "class": "Internal", "builtin": "PaymentCard"},
        {"name": "records", "class": "Confidential", "patterns": ["not there", r"\bMRN-\d{8}\b", "^TOP$"]},
        {"name": "lower", "class": "Internal", "patterns": ["MRN"]},
    ],
)


@pytest.mark.parametrize(
    ("text", "data_class", "rule"),
    [
        ("hello", "Internal", "default"),
        ("it is MRN-12345678 here", "Confidential", "records"),
        ("it is MRN-１２３４５６７８ here", "Confidential", "records"),
        ("\0 MRN-12345678", "Confidential", "records"),
        (json.dumps({"a": json.dumps(["MRN-12345678"])}), "Confidential", "records"),
        ("TOP", "Confidential", "records"),
        ("a TOP", "Internal", "default"),
        ("mrn-12345678", "Internal", "default"),
        ("MRN-1", "Internal", "lower"),
        ("x" * 2**20, "Confidential", "unchecked"),
    ],
)
def test_patterns_are_matched_as_the_gateway_does(explain: Any, text: str, data_class: str, rule: str) -> None:
    route = PATTERNS if rule != "lower" else change(PATTERNS, "spec.dataPolicy.default", "Public")
    others = [one for one in ALL if one["kind"] != "LLMRoute"]
    answer = explain(route, *others, body=chat(text), ask="--consumer team-b -o json")
    assert (answer.json["class"], answer.json["rule"], answer.json["status"]) == (data_class, rule, None)
    told = explain(route, *others, body=chat(text), ask="--consumer team-b")
    assert "MRN" not in told.out
    assert (rule == "unchecked") == ("text that is too long for patterns" in told.out)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"model": "chat", "model": "other"}', 400, "duplicate_key"),
        (b"", 400, "invalid_json"),
        (b"Is Bluebird late?", 400, "invalid_json"),
        (b"\xef\xbb\xbf{}", 400, "invalid_json"),
        ({"messages": []}, 400, "invalid_model"),
        ({"model": "other"}, 404, "model_not_found"),
        ({"model": "chat", "stream": "yes"}, 400, "invalid_stream"),
        (b" " * (33 * 2**20), 413, "request_too_large"),
    ],
)
def test_a_body_that_the_gateway_refuses(explain: Any, body: Any, status: int, code: str) -> None:
    answer = explain(*ALL, body=body, ask="--consumer team-a -o json")
    assert (answer.json["status"], answer.json["code"], answer.status) == (status, code, 1)
    assert answer.json["class"] is None


def test_a_body_comes_after_the_key_and_the_path(explain: Any) -> None:
    assert explain(*ALL, body=b"x", ask="-o json").json["status"] == 401
    assert explain(*ALL, body=b"x", ask="--consumer team-a --path /v1/x -o json").json["code"] == "unknown_endpoint"


def test_the_denial_is_the_gateways_own(explain: Any) -> None:
    answer = explain(*ALL, body=chat("bluebird"), ask="--consumer team-a")
    assert (
        "Denied with 403 data_class_denied: This request is classified Confidential by the detector project. Of you, the model"
        " chat takes Public, Internal.\n"
    ) in answer.out


def test_a_harmless_body_and_none_say_the_same(explain: Any) -> None:
    """The class without a body is what the gateway's own text says of a body in which nothing is found."""
    for declared, consumer, path in itertools.product((None, *DataClass), ("team-a", "team-b"), ENDPOINTS):
        ask = f"--consumer {consumer} --path {path} -o json" + (f" --class {declared}" if declared else "")
        without = explain(*ALL, ask=f"{ask} --model chat").json
        read = explain(*ALL, ask=ask, body=chat("hello")).json
        differ = {key for key in without if without[key] != read[key]}
        assert differ <= {"bodyRead", "message"}, (ask, without, read)


def test_body_from_stdin(explain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(chat("bluebird")).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert explain(*ALL, ask="--consumer team-a --body -").status == 1


def test_without_lupa_a_body_is_not_guessed_at(explain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lupa.luajit21", None)
    answer = explain(*ALL, ask="--consumer team-a", body=chat("hello"))
    assert (answer.status, answer.out) == (2, "")
    assert answer.err == (
        "fairlead explain: a body is read by the gateway's own Lua text, for which LuaJIT is missing:"
        " pip install 'fairlead[explain]'\n"
    )
    assert explain(*ALL, ask="--model chat --consumer team-a").status == 0


def test_lupa_is_no_dependency_of_the_operator() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["explain"] == ["lupa>=2.8"]
    assert "lupa>=2.8" in project["optional-dependencies"]["dev"]
    assert "lupa" not in (ROOT / "requirements/operator.txt").read_text()
    assert "lupa" in (ROOT / "requirements/dev.txt").read_text()


# For people ------------------------------------------------------------------------------------------------------------------


def test_text(explain: Any) -> None:
    answer = explain(*ALL, ask="--model chat --consumer team-b --class Public")
    assert answer.out.splitlines() == [
        "LLMRoute/assistants: POST /v1/chat/completions for chat, from team-b",
        "Class: Internal, by the default of the route (dataPolicy.default).",
        "The declared Public does not count: it is below the default, and no role may declare it here.",
        "No body was looked at (--body), so no detector could raise the class.",
        "Allowed. Tried, in this order:",
        "  1. local (as qwen)",
        "Not tried:",
        "  openai [ClassRule]: may take Public, and the request is Internal",
    ]


@pytest.mark.parametrize(
    ("floors", "ask", "lines"),
    [
        ({"dataPolicy": "Confidential"}, "--consumer team-b",
         ["Class: Confidential, by the floor of the route (dataPolicy.floor)."]),
        ({"roles": "Confidential"}, "--consumer team-b --class Public",
         ["Class: Confidential, by the floor of the role analyst (roles[].floor).",
          "The declared Public does not count: it is below the floor."]),
        ({"roles": "Internal"}, "--consumer team-a --class Public",
         ["Class: Internal, by the floor of the role developer (roles[].floor).",
          "The declared Public does not count: it is below the floor."]),
        ({"roles": "Public", "dataPolicy": "Public"}, "--consumer team-b",
         ["Class: Internal, by the default of the route (dataPolicy.default)."]),
        ({"dataPolicy": "Confidential"}, "--consumer team-b --class Confidential",
         ["Class: Confidential, by what the caller declares in x-data-classification."]),
    ],
)  # fmt: skip
def test_floors_are_told(explain: Any, floors: dict[str, str], ask: str, lines: list[str]) -> None:
    route = copy.deepcopy(ROUTE)
    if "dataPolicy" in floors:
        route["spec"]["dataPolicy"]["floor"] = floors["dataPolicy"]
    if "roles" in floors:
        for role in route["spec"]["roles"]:
            role["floor"] = floors["roles"]
    told = explain(route, DEPLOYMENT, PROVIDER_SECRET, ask=f"--model chat {ask}").out.splitlines()
    assert told[1 : 1 + len(lines)] == lines
    assert told[1 + len(lines)].startswith("No body was looked at")


def test_a_floor_counts_for_a_body_and_takes_backends_away(explain: Any) -> None:
    route = copy.deepcopy(ROUTE)
    route["spec"]["roles"][0]["floor"] = "Internal"
    ask = "--consumer team-a --class Public -o json"
    assert explain(ROUTE, DEPLOYMENT, PROVIDER_SECRET, ask=ask, body=chat("hello")).json["order"] == ["local", "openai"]
    found = explain(route, DEPLOYMENT, PROVIDER_SECRET, ask=ask, body=chat("hello")).json
    assert (found["class"], found["rule"], found["order"]) == ("Internal", "default", ["local"])
    route["spec"]["dataPolicy"]["floor"] = "Restricted"
    found = explain(route, DEPLOYMENT, PROVIDER_SECRET, ask=ask, body=chat("hello")).json
    assert (found["status"], found["class"], found["rule"], found["order"]) == (403, "Restricted", "floor", [])


def test_what_was_assumed_is_told_on_stderr(explain: Any) -> None:
    answer = explain(ROUTE, ask="--model chat --consumer team-a")
    assert [line.split(":")[0] for line in answer.err.splitlines()] == ["note"] * 3
    assert "keys" not in answer.out


def test_no_secret_is_shown(explain: Any) -> None:
    for ask in ("", "-o json", "--consumer team-a", "--consumer nobody"):
        answer = explain(*ALL, ask=f"--model chat {ask}")
        assert "VERYSECRET" not in answer.out + answer.err


# Input -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objects", "ask", "says"),
    [
        (ALL, "", "--model is missing"),
        ((DEPLOYMENT,), "--model chat", "the files hold no LLMRoute"),
        ((PROVIDER_SECRET,), "--model chat", "holds no LLMDeployment or LLMRoute"),
        ((ROUTE, change(ROUTE, "metadata.name", "b")), "--model chat", "LLMRoutes default/assistants, default/b: say which by --route"),
        (ALL, "--model chat --route other", "the files hold the LLMRoutes default/assistants: say which by --route"),
        ((change(ROUTE, "spec.models", None),), "--model chat", "LLMRoute/assistants: spec.models: is required"),
        ((change(ROUTE, "spec.backends.1.provider.trusted", True),), "--model chat", "is not on the operator's list"),
        ((ROUTE, change(DEPLOYMENT, "spec.engine.type", "Olama")), "--model chat", "LLMDeployment/llama-8b: spec.engine.type"),
        (ALL, "--model chat --body does/not/exist", "does/not/exist: No such file or directory"),
        (ALL, "--model chat --body - -f -", "not both"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_used_is_status_2(
    explain: Any, objects: tuple[Json, ...], ask: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("---\n"))
    answer = explain(*objects, ask=ask)
    assert (answer.status, answer.out) == (2, "")
    assert says in answer.err
    assert all(line.startswith("fairlead explain: ") for line in answer.err.splitlines())


def test_model_and_body_that_disagree(explain: Any) -> None:
    answer = explain(*ALL, ask="--model large", body=chat("x"))
    assert (answer.status, answer.out) == (2, "")
    assert "--model says large, and the body another one" in answer.err


def test_one_of_several_routes(explain: Any) -> None:
    broken = change(change(ROUTE, "metadata.name", "broken"), "spec.models", None)
    answer = explain(*ALL, broken, ask="--route assistants --model chat --consumer team-a")
    assert answer.status == 0
    assert explain(*ALL, broken, ask="--route broken --model chat").status == 2
    elsewhere = change(ROUTE, "metadata.namespace", "b")
    assert explain(*ALL, elsewhere, ask="--route assistants --model chat --consumer team-a").status == 2
    for name in ("b/assistants", "default/assistants"):
        answer = explain(*ALL, elsewhere, ask=f"--route {name} --model chat --consumer team-a -o json")
        assert (answer.status, answer.json["namespace"]) == (0, name.partition("/")[0])


@pytest.mark.parametrize("wrong", ["--class Secret", "-o yaml", "--nothing"])
def test_options_that_make_no_sense_are_status_2(explain: Any, wrong: str) -> None:
    with pytest.raises(SystemExit) as ended:
        explain(*ALL, ask=f"--model chat {wrong}")
    assert ended.value.code == 2
