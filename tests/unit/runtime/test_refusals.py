"""Refusals in the custom resource's own words, and how patient to be with each."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead import errors
from fairlead.facts.observed import ApplyFailure, ObjectKey
from fairlead.planning.deployment.metadata import describe_taken
from fairlead.runtime.refusals import (
    LLMDEPLOYMENT_PATHS,
    MESSAGE_MAX_LENGTH,
    after_attempts,
    explain_conflict,
    is_immutable_field,
    is_transient,
    retry_in_s,
    slow_retry_s,
    to_custom_resource_path,
)
from fairlead.runtime.refusals import explain as explain_by

DEPLOYMENT = ObjectKey("Deployment", "ml", "m")


def explain(key: ObjectKey, error: errors.ApiError) -> ApplyFailure:
    return explain_by(key, error, LLMDEPLOYMENT_PATHS)


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        ("Deployment", "spec.template.spec.affinity.nodeAffinity.required", "spec.pod.affinity.nodeAffinity.required"),
        ("Deployment", "spec.template.spec.tolerations[0].operatr", "spec.pod.tolerations[0].operatr"),
        ("Deployment", "spec.template.spec.securityContext.x", "spec.pod.securityContext.x"),
        ("Deployment", "spec.template.spec.containers[name=engine].env[1].value", "spec.engine.env[1].value"),
        ("Deployment", "spec.template.spec.containers[0].envFrom[0]", "spec.engine.envFrom[0]"),
        (
            "Deployment",
            'spec.template.spec.containers[name="engine"].securityContext.y',
            "spec.pod.containerSecurityContext.y",
        ),
        (
            "Deployment",
            "spec.template.spec.containers[0].volumeMounts[3].mountPath",
            "spec.pod.extraVolumeMounts[3].mountPath",
        ),
        ("Deployment", "spec.template.spec.containers[0].resources.limits[memory]", "spec.resources.limits[memory]"),
        ("Deployment", "spec.template.spec.volumes[2].nfs", "spec.pod.extraVolumes[2].nfs"),
        ("Deployment", "spec.template.metadata.labels", "spec.pod.labels"),
        ("Service", "spec.ports[0].nodePort", "spec.service.port"),
        ("PersistentVolumeClaim", "spec.resources.requests.storage", "spec.storage.size"),
        ("NetworkPolicy", "spec.ingress[0].from[1].podSelector", "spec.networkPolicy.from[1].podSelector"),
        ("Deployment", "spec.strategy", "Deployment spec.strategy"),
        ("Service", "spec.template.spec.volumes[2]", "Service spec.template.spec.volumes[2]"),
        ("Deployment", "", ""),
    ],
)
def test_paths_are_put_back_into_the_resources_terms(kind: str, path: str, expected: str) -> None:
    assert to_custom_resource_path(LLMDEPLOYMENT_PATHS, kind, path) == expected


def test_a_typed_patch_error_is_read_for_its_field() -> None:
    message = (
        "failed to create typed patch object (ml/m; apps/v1, Kind=Deployment): errors:\n"
        '  .spec.template.spec.containers[name="engine"].env[name="A"].valeu: field not declared in schema'
    )
    failure = explain(DEPLOYMENT, errors.Invalid(message, status=500))
    assert failure.path == 'spec.engine.env[name="A"].valeu'
    assert failure.message == "field not declared in schema"
    assert failure.terminal
    assert failure.reason == "InvalidChild"


def test_a_422_is_read_for_its_first_cause() -> None:
    details = {"causes": [{"field": "spec.template.spec.volumes[0].name", "message": "Invalid value: bad"}]}
    failure = explain(DEPLOYMENT, errors.Invalid("Deployment is invalid: …", status=422, details=details))
    assert (failure.path, failure.message) == ("spec.pod.extraVolumes[0].name", "Invalid value: bad")


@pytest.mark.parametrize(
    ("error", "reason", "terminal", "transient"),
    [
        (errors.Invalid("spec.selector: field is immutable", status=422), "ImmutableField", True, False),
        (errors.Invalid("spec is immutable after creation except …", status=422), "ImmutableField", True, False),
        (errors.Invalid("bad", status=422), "InvalidChild", True, False),
        (errors.Invalid("ValidatingAdmissionPolicy 'x' denied request", status=422), "ChildRefused", False, False),
        (errors.Invalid('admission webhook "x" denied the request', status=400), "ChildRefused", False, False),
        (errors.Forbidden("exceeded quota: q", status=403), "ChildRefused", False, False),
        (errors.Forbidden("it is being terminated", status=403), "ChildRefused", False, False),
        (errors.NotFound("namespaces \"x\" not found", status=404), "ChildRefused", False, False),
        (errors.Unavailable("down"), "ApiUnavailable", False, True),
        (errors.TooManyRequests("later"), "ApiUnavailable", False, True),
        (errors.Conflict("modified", status=409), "ApiUnavailable", False, True),
    ],
)  # fmt: skip
def test_what_each_refusal_means(error: errors.ApiError, reason: str, terminal: bool, transient: bool) -> None:
    failure = explain(DEPLOYMENT, error)
    assert (failure.reason, failure.terminal) == (reason, terminal)
    assert is_transient(error) is transient
    assert is_immutable_field(error) is (reason == "ImmutableField")


def test_messages_are_bounded() -> None:
    assert len(explain(DEPLOYMENT, errors.Invalid("x" * 100_000, status=422)).message) == MESSAGE_MAX_LENGTH


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"ownerReferences": [{"kind": "LLMRoute", "name": "a", "controller": True}]}, "LLMRoute/a"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "somebody else (managed by Helm)"),
        (
            {
                "managedFields": [
                    {"manager": "kubectl"},
                    {"manager": "b", "subresource": "status"},
                    {"manager": "argocd"},
                ]
            },
            "somebody else (written by argocd, kubectl)",
        ),
        ({"labels": {"app.kubernetes.io/managed-by": "fairlead"}}, "somebody else (it has no controller)"),
        ({"ownerReferences": [{"kind": "LLMRoute", "name": "a"}]}, "somebody else (it has no controller)"),
    ],
)
def test_a_conflict_names_the_other_owner_and_the_next_step_in_the_planners_words(
    metadata: dict[str, Any], owner: str
) -> None:
    live = {"metadata": metadata}
    failure = explain_conflict(DEPLOYMENT, describe_taken(DEPLOYMENT, live))
    assert (failure.reason, failure.terminal, failure.is_sentence) == ("NameConflict", True, True)
    assert failure.message == (
        f"Deployment/m exists and belongs to {owner}, so it is left alone."
        " Next: rename this LLMDeployment, or remove the other object."
    )


def test_patience_doubles_from_15_seconds_to_10_minutes() -> None:
    assert [slow_retry_s(attempt) for attempt in range(7)] == [15, 30, 60, 120, 240, 480, 600]
    assert slow_retry_s(10_000) == 600


def test_what_the_api_server_quotes_of_a_value_is_told_without_its_credential() -> None:
    token = "c4naryZq7Xw93LmKd82Tb"
    error = errors.Invalid(f'spec.x: Invalid value: "API_KEY={token}"' + "x" * 2000, status=422)
    message = explain(ObjectKey("Deployment", "ml", "m"), error).message
    assert token not in message
    assert message.startswith('spec.x: Invalid value: "API_KEY=<redacted>"')


def test_a_refusal_that_lasts_needs_a_person_and_the_first_may_pass() -> None:
    """A server that has just started refuses everything for a moment: two seconds later that is over."""
    refused = explain(DEPLOYMENT, errors.Forbidden("exceeded quota: q", status=403))
    assert not after_attempts(refused, 0).terminal
    assert after_attempts(refused, 1).terminal
    assert [retry_in_s(refused, attempts) for attempts in range(4)] == [2, 15, 30, 60]


def test_a_dying_namespace_needs_nobody() -> None:
    dying = explain(DEPLOYMENT, errors.Forbidden("unable to create: it is being terminated", status=403))
    assert not after_attempts(dying, 5).terminal
    assert retry_in_s(dying, 0) == 15
