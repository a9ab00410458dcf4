"""The client: what goes over the wire, and which exception each refusal becomes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.kube.fake_api import FakeApi, serving

from fairlead import errors
from fairlead.kube.client import error_of
from fairlead.kube.resources import BY_KIND, DEPLOYMENT, LLMDEPLOYMENT, SERVICE

SERVICES = "/api/v1/namespaces/ml/services"
BODY = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "ml"}, "spec": {"x": 1}}


def status(code: int, message: str, **more: Any) -> bytes:
    import orjson

    return orjson.dumps({"kind": "Status", "code": code, "message": message, **more})


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (400, status(400, "bad"), errors.Invalid),
        (401, status(401, "who"), errors.Unauthorized),
        (403, status(403, "no"), errors.Forbidden),
        (404, status(404, "none"), errors.NotFound),
        (409, status(409, "conflict"), errors.Conflict),
        (410, status(410, "old"), errors.Gone),
        (422, status(422, "invalid"), errors.Invalid),
        (429, status(429, "later"), errors.TooManyRequests),
        (500, status(500, "oops"), errors.Unavailable),
        (
            500,
            status(500, "failed to create typed patch object (x): .spec.y: field not declared in schema"),
            errors.Invalid,
        ),
        (500, status(500, "failed to convert new object (x): bad quantity"), errors.Invalid),
        (503, b"<html>upstream connect error</html>", errors.Unavailable),
        (404, b"404 page not found", errors.NotFound),
        (500, status(500, "old", reason="Expired"), errors.Gone),
    ],
)
def test_refusals_become_one_exception_each(code: int, body: bytes, kind: type[errors.ApiError]) -> None:
    error = error_of(code, body, {})
    assert type(error) is kind
    assert error.status == code
    assert error.message


@pytest.mark.parametrize(
    ("headers", "details", "wait_s"),
    [
        ({"Retry-After": "7"}, {}, 7.0),
        ({}, {"retryAfterSeconds": 3}, 3.0),
        ({}, {}, 1.0),
        ({"Retry-After": "Wed, 21 Oct"}, {}, 1.0),
    ],
)
def test_429_says_how_long(headers: dict[str, str], details: dict[str, int], wait_s: float) -> None:
    error = error_of(429, status(429, "later", details=details), headers)
    assert isinstance(error, errors.TooManyRequests)
    assert error.retry_after_s == wait_s


def test_a_dying_namespace_is_told_from_missing_rights() -> None:
    dying = error_of(403, status(403, "unable to create new content in namespace x because it is being terminated"), {})
    assert isinstance(dying, errors.Forbidden)
    assert dying.being_terminated


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "subresource", "path"),
    [
        ("Service", "ml", "a", None, "/api/v1/namespaces/ml/services/a"),
        ("Deployment", None, None, None, "/apis/apps/v1/deployments"),
        ("LLMDeployment", "ml", "a", "status", "/apis/fairlead.dev/v1alpha1/namespaces/ml/llmdeployments/a/status"),
        ("NetworkPolicy", "ml", None, None, "/apis/networking.k8s.io/v1/namespaces/ml/networkpolicies"),
    ],
)
def test_addresses(kind: str, namespace: str | None, name: str | None, subresource: str | None, path: str) -> None:
    assert BY_KIND[kind].path(namespace, name, subresource) == path


async def test_apply_sends_manager_force_and_type_and_tells_creation() -> None:
    api = FakeApi()
    async with serving(api) as (client, _):
        first = await client.apply(SERVICE, "ml", "a", BODY, field_manager="m", force=False)
        second = await client.apply(SERVICE, "ml", "a", BODY, field_manager="m", force=True)
    assert first.created
    assert not second.created
    assert [(m, p, q) for m, p, q in api.requests] == [
        ("PATCH", f"{SERVICES}/a", {"fieldManager": "m"}),
        ("PATCH", f"{SERVICES}/a", {"fieldManager": "m", "force": "true"}),
    ]


async def test_delete_is_of_this_uid_and_version_only() -> None:
    api = FakeApi()
    live = api.put(SERVICES, "a", spec={})
    uid, version = live["metadata"]["uid"], live["metadata"]["resourceVersion"]
    async with serving(api) as (client, _):
        with pytest.raises(errors.Conflict):
            await client.delete(SERVICE, "ml", "a", uid="other")
        with pytest.raises(errors.Conflict):
            await client.delete(SERVICE, "ml", "a", uid=uid, resource_version="1")
        await client.delete(SERVICE, "ml", "a", uid=uid, resource_version=version)
        with pytest.raises(errors.NotFound):
            await client.delete(SERVICE, "ml", "a", uid=uid)


async def test_find_asks_for_one_by_a_list() -> None:
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    api.put(SERVICES, "b", spec={})
    async with serving(api) as (client, _):
        found = await client.find(SERVICE, "ml", "b")
        assert found is not None
        assert found["metadata"]["name"] == "b"
        assert await client.find(SERVICE, "ml", "c") is None


async def test_a_closed_connection_is_unavailable() -> None:
    api = FakeApi()
    api.fail(0, times=2)  # aiohttp itself repeats a GET once
    async with serving(api) as (client, _):
        with pytest.raises(errors.Unavailable):
            await client.get(SERVICE, "ml", "a")


async def test_a_session_closed_by_kopf_is_retryable_and_the_next_one_is_used() -> None:
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    async with serving(api) as (client, connection):
        await connection.close()
        with pytest.raises(errors.Unavailable) as caught:
            await client.get(SERVICE, "ml", "a")
        assert caught.value.retryable
        connection.open()
        assert (await client.get(SERVICE, "ml", "a"))["metadata"]["name"] == "a"


async def test_nobody_listening_is_unavailable() -> None:
    api = FakeApi()
    async with serving(api) as (client, connection):
        connection.server = "http://127.0.0.1:9"
        with pytest.raises(errors.Unavailable):
            await client.get(DEPLOYMENT, "ml", "a")


async def test_every_request_is_observed_once_with_its_code() -> None:
    api = FakeApi()
    api.put(SERVICES, "a", spec={})
    seen: list[tuple[str, str, bool, str]] = []
    async with serving(api) as (client, connection):
        connection.observer = lambda *request: seen.append(request[:4])
        await client.get(SERVICE, "ml", "a")
        with pytest.raises(errors.NotFound):
            await client.get(SERVICE, "ml", "b")
        connection.server = "http://127.0.0.1:9"
        with pytest.raises(errors.Unavailable):
            await client.get(SERVICE, "ml", "a")
    assert seen == [
        ("GET", f"{SERVICES}/a", False, "200"),
        ("GET", f"{SERVICES}/b", False, "404"),
        ("GET", f"{SERVICES}/a", False, "<error>"),
    ]


async def test_calls_before_the_login_wait_for_it() -> None:
    from fairlead.kube.client import ApiClient
    from fairlead.kube.session import Connection

    api = FakeApi()
    api.put("/apis/fairlead.dev/v1alpha1/namespaces/ml/llmdeployments", "a", spec={})
    async with serving(api) as (_, connection):
        late = Connection(server=connection.server)
        call = asyncio.create_task(ApiClient(late).get(LLMDEPLOYMENT, "ml", "a"))
        await asyncio.sleep(0.02)
        assert not call.done()
        late.open()
        assert (await call)["metadata"]["name"] == "a"
        await late.close()
