"""The operator's certificate authority on an API server, and what is remembered of certificates until they are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.kube.fake_api import FakeApi, serving
from tests.unit.planning.authorities import LocalAuthority

from fairlead.api.names import AUTHORITY_SECRET
from fairlead.errors import Unavailable
from fairlead.facts.observed import ObjectKey, Observed
from fairlead.kube.cache import Cache
from fairlead.kube.client import ApiClient
from fairlead.planning.authority import LIFE, decode
from fairlead.planning.plan import Child, Plan
from fairlead.runtime.authority import CertificateAuthority
from fairlead.runtime.certificates import Certificates, is_issued_to

Json = dict[str, Any]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOME = "fairlead-system"
PATH = f"/api/v1/namespaces/{HOME}/secrets/{AUTHORITY_SECRET}"
KEY = ObjectKey("Secret", HOME, AUTHORITY_SECRET)
LEAF = ObjectKey("Secret", "ml", "m-pods-tls")

Make = Callable[[], tuple[CertificateAuthority, Cache]]


@asynccontextmanager
async def api() -> AsyncIterator[tuple[FakeApi, Make, ApiClient]]:
    """An API server, and operators on it."""
    server = FakeApi()
    async with serving(server) as (client, _):

        def make() -> tuple[CertificateAuthority, Cache]:
            cache = Cache()
            return CertificateAuthority(HOME, cache, client), cache

        yield server, make, client


async def test_it_is_made_once_and_then_neither_written_nor_read() -> None:
    async with api() as (server, make, _):
        authority, cache = make()
        first = await authority.read(NOW)
        assert len(first.certificates) == 1
        assert server.writes() == [f"PATCH {PATH}"]
        asked = len(server.requests)
        for minute in range(10):
            assert await authority.read(NOW + timedelta(minutes=minute)) == first
        assert len(server.requests) == asked
        # After a restart it is read, and by another replica as well.
        again, _ = make()
        assert await again.read(NOW) == first
        assert server.writes() == [f"PATCH {PATH}"]
        entry = cache.get(KEY)
        assert entry is not None
        assert "data" not in entry.load()
        assert "app.kubernetes.io/managed-by" not in server.objects[PATH]["metadata"]["labels"]


async def test_of_two_replicas_the_second_takes_what_the_first_has_made() -> None:
    async with api() as (server, make, client):
        (one, _), (other, _) = make(), make()
        find, late = client.find, [True]

        async def find_late(*args: Any) -> Json | None:
            if late and late.pop():
                await one.read(NOW)
                return None  # it asked before
            return await find(*args)

        other._client = client_with(client, find=find_late)
        found = await other.read(NOW)
        assert found == await one.read(NOW)
        assert server.writes() == [f"PATCH {PATH}"] * 2, "the second was refused"
        assert decode(server.objects[PATH])["tls.crt"] == found.certificates[0]


def client_with(client: ApiClient, **methods: Any) -> Any:
    """The same client with other methods."""

    class Other:
        def __getattr__(self, name: str) -> Any:
            return methods.get(name) or getattr(client, name)

    return Other()


async def test_one_that_is_deleted_is_made_anew() -> None:
    async with api() as (server, make, _):
        authority, cache = make()
        first = await authority.read(NOW)
        entry = cache.get(KEY)
        assert entry is not None
        del server.objects[PATH]
        cache.remove(KEY, entry.uid, entry.resource_version + 1)
        second = await authority.read(NOW)
        assert second.certificates != first.certificates
        assert len(second.certificates) == 1


async def test_it_is_renewed_in_the_state_that_was_read() -> None:
    async with api() as (server, make, _):
        authority, _ = make()
        (old,) = (await authority.read(NOW)).certificates
        then = NOW + LIFE * 0.7
        renewed = await authority.read(then)
        assert renewed.certificates[1:] == (old,)
        assert await authority.read(then) == renewed
        assert len(server.writes()) == 2
        leaf = await Certificates(lambda: authority).prepare(make_raw(), Observed(), then)
        assert leaf.child is not None
        assert decode(leaf.child.body)["ca.crt"] == "".join(renewed.certificates)


async def test_what_is_no_authority_is_told_and_not_overwritten() -> None:
    async with api() as (server, make, _):
        server.put(PATH.rpartition("/")[0], AUTHORITY_SECRET, data={"tls.crt": "", "tls.key": ""})
        authority, _ = make()
        assert "holds no certificate authority" in (await authority.read(NOW)).problem
        assert server.writes() == []


async def test_missing_rights_are_told_and_not_asked_for_again_and_again() -> None:
    async with api() as (server, make, _):
        server.fail(403, contains="secrets", times=100, message="no")
        authority, _ = make()
        for _ in range(5):
            found = await authority.read(NOW)
            assert "Secret fairlead-ca in namespace fairlead-system cannot be read or made: no" in found.problem
        assert len(server.requests) == 1
        await authority.read(NOW + timedelta(seconds=31))
        assert len(server.requests) == 2


async def test_an_outage_is_an_error_and_nothing_is_made_up() -> None:
    async with api() as (server, make, _):
        server.fail(500, method="PATCH", contains="secrets")
        authority, _ = make()
        with pytest.raises(Unavailable):
            await authority.read(NOW)
        assert len((await authority.read(NOW)).certificates) == 1


# --- certificates


def make_raw(**spec: Any) -> Json:
    """An LLMDeployment with a certificate that is issued."""
    metadata = {"name": "m", "namespace": "ml", "uid": "uid-m", "generation": 1}
    return {"kind": "LLMDeployment", "metadata": metadata, "spec": {"encryption": {}, **spec}}


def body_of(child: Child | None) -> Json:
    assert child is not None
    return dict(child.body)


async def test_a_write_that_fails_is_repeated_and_not_made_up_anew() -> None:
    certificates = Certificates(lambda: LocalAuthority(NOW))
    first = body_of((await certificates.prepare(make_raw(), Observed(), NOW)).child)
    for second in range(1, 60):
        again = await certificates.prepare(make_raw(), Observed(), NOW + timedelta(seconds=second))
        assert body_of(again.child) == first
    late = await certificates.prepare(make_raw(), Observed(), NOW + timedelta(hours=2))
    assert body_of(late.child) != first


async def test_what_is_written_is_forgotten_here_and_costs_nothing_more() -> None:
    certificates = Certificates(lambda: LocalAuthority(NOW))
    prepared = await certificates.prepare(make_raw(), Observed(), NOW)
    live = Observed(children={LEAF: body_of(prepared.child)})
    later = await certificates.prepare(make_raw(), live, NOW + timedelta(days=2))
    assert later.child == prepared.child
    assert not certificates._pending


async def test_one_that_was_issued_and_is_named_now_goes_on_being_renewed() -> None:
    certificates = Certificates(lambda: LocalAuthority(NOW))
    body = body_of((await certificates.prepare(make_raw(), Observed(), NOW)).child)
    raw, then = make_raw(encryption={"certificate": {"secretName": LEAF.name}}), NOW + timedelta(days=61)
    renewed = await certificates.prepare(raw, Observed(children={LEAF: body}), then)
    assert body_of(renewed.child)["data"]["tls.crt"] != body["data"]["tls.crt"]
    somebodys = {**body, "metadata": {**body["metadata"], "ownerReferences": []}}
    for live in ({LEAF: somebodys}, {}):
        assert (await certificates.prepare(raw, Observed(children=live), then)).child is None
    other = make_raw(encryption={"certificate": {"secretName": "other"}})
    assert (await certificates.prepare(other, Observed(children={LEAF: body}), then)).child is None


async def test_a_renewal_that_fails_is_repeated_too() -> None:
    authority = LocalAuthority(NOW)
    certificates = Certificates(lambda: authority)
    live = Observed(children={LEAF: body_of((await certificates.prepare(make_raw(), Observed(), NOW)).child)})
    authority.lose(NOW)
    then = NOW + timedelta(days=1)
    told = [await certificates.prepare(make_raw(), live, then + timedelta(seconds=n)) for n in range(5)]
    assert len({one.child.digest for one in told if one.child}) == 1
    then = NOW + timedelta(days=61)
    renewed = [await certificates.prepare(make_raw(), live, then + timedelta(seconds=n)) for n in range(5)]
    assert len({one.child.digest for one in renewed if one.child}) == 1


async def test_nothing_that_plans_sees_a_key() -> None:
    certificates = Certificates(lambda: LocalAuthority(NOW))
    prepared = await certificates.prepare(make_raw(), Observed(), NOW)
    other = ObjectKey("Service", "ml", "m")
    shown = prepared.show(Observed(children={LEAF: body_of(prepared.child), other: {}}))
    assert set(shown.children) == {other}


async def test_pods_come_after_their_certificate_and_a_refused_spec_gets_none() -> None:
    certificates = Certificates(lambda: LocalAuthority(NOW))
    prepared = await certificates.prepare(make_raw(), Observed(), NOW)
    pods = Child.of(ObjectKey("Deployment", "ml", "m"), {})
    assert [child.key for child in prepared.complete(Plan((pods,), (), {})).children] == [LEAF, pods.key]
    refused = Plan((), (), {})
    assert prepared.complete(refused).children == ()
    live = Observed(children={LEAF: body_of(prepared.child)})
    running = await certificates.prepare(make_raw(), live, NOW + timedelta(days=61))
    assert [child.key for child in running.complete(refused).children] == [LEAF], "what runs is renewed"
    foreign = {**body_of(prepared.child), "metadata": {"name": LEAF.name, "namespace": "ml"}}
    taken = await certificates.prepare(make_raw(), Observed(children={LEAF: foreign}), NOW)
    assert taken.complete(refused).children == ()


async def test_the_earliest_wait_counts() -> None:
    prepared = await Certificates(lambda: LocalAuthority(NOW)).prepare(make_raw(), Observed(), NOW)
    assert prepared.complete(Plan((), (), {}, requeue_after_s=5.0)).requeue_after_s == 5.0
    assert prepared.complete(Plan((), (), {})).requeue_after_s == prepared.next_s


@pytest.mark.parametrize(
    ("spec", "is_issued"),
    [
        ({}, False),
        ({"encryption": None}, False),
        ({"encryption": {}}, True),
        ({"encryption": {"inTransit": "Required"}}, True),
        ({"encryption": {"certificate": None}}, True),
        ({"encryption": {"certificate": {"secretName": "mine"}}}, False),
        ({"encryption": {"certificate": {}}}, False),
        ({"encryption": "yes"}, False),
        ("text", False),
        (None, False),
    ],
)
async def test_to_whom_they_are_issued(spec: Any, is_issued: bool) -> None:
    raw = {"metadata": {"name": "m", "namespace": "ml", "uid": "u"}, "spec": spec}
    assert is_issued_to(raw) is is_issued

    def make() -> LocalAuthority:
        assert is_issued, "nobody needs one"
        return LocalAuthority(NOW)

    prepared = await Certificates(make).prepare(raw, Observed(), NOW)
    assert (prepared.child is not None) is is_issued
