"""Certificates that the operator issues: when, for whom, by whom, and that no pod shows one before those who check it know its issuer."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from tests.unit.planning.authorities import LocalAuthority, carry_out, live_for

from fairlead.api.resource import Metadata
from fairlead.facts.certificates import Authority, KeyPair, WantedAuthority
from fairlead.planning.authority import decode, make_authority_secret, plan_authority
from fairlead.planning.deployment.issuing import SETTLE, plan_certificate
from fairlead.planning.x509 import is_issued_by, read_all
from fairlead.runtime.issuing import make_authority

Json = dict[str, Any]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
OWNER = Metadata(name="llama", namespace="ml", uid="uid-1")
DAY = timedelta(days=1)


@pytest.fixture
def authority() -> LocalAuthority:
    return LocalAuthority(NOW)


def issued(authority: LocalAuthority, now: datetime = NOW, owner: Metadata = OWNER) -> Json:
    body = carry_out(owner, plan_certificate(owner, None, authority.now, now), authority)
    assert body is not None
    return body


def leaf_of(body: Json) -> x509.Certificate:
    return read_all(decode(body)["tls.crt"])[0]


def trusted_by(body: Json) -> tuple[x509.Certificate, ...]:
    return read_all(decode(body)["ca.crt"])


def with_data(body: Json, **values: str) -> Json:
    data = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {**body, "data": {**body["data"], **data}}


# --- the certificate


def test_what_is_issued(authority: LocalAuthority) -> None:
    body = issued(authority)
    assert (body["metadata"]["name"], body["type"]) == ("llama-pods-tls", "kubernetes.io/tls")
    assert body["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    leaf, issuer = leaf_of(body), trusted_by(body)[0]
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == ["llama.ml.svc"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == 90 * DAY
    assert is_issued_by(leaf, issuer)
    constraints = issuer.extensions.get_extension_for_class(x509.NameConstraints)
    assert (constraints.critical, constraints.value.permitted_subtrees) == (True, [x509.DNSName("svc")])
    basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert issuer.not_valid_after_utc - issuer.not_valid_before_utc == 3650 * DAY


def test_openssl_accepts_it_for_its_name_and_for_no_other(authority: LocalAuthority, tmp_path: Any) -> None:
    data = decode(issued(authority))
    for name, text in data.items():
        (tmp_path / name).write_text(text)

    def shake_hands(name: str) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
        client = ssl.create_default_context(cadata=data["ca.crt"])
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        one = client.wrap_bio(back, there, server_hostname=name)
        other = server.wrap_bio(there, back, server_side=True)
        for _ in range(4):
            for side in (one, other):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue

    shake_hands("llama.ml.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands("other.ml.svc")


def test_keys_are_not_shown(authority: LocalAuthority) -> None:
    plan = plan_certificate(OWNER, issued(authority), authority.now, NOW)
    assert plan.kept is not None
    for shown in (repr(plan), str(plan), repr(authority.pairs), repr(plan.kept)):
        assert "PRIVATE" not in shown


# --- when


def test_a_good_one_is_kept_as_it_is(authority: LocalAuthority) -> None:
    body = issued(authority)
    assert live_for(OWNER, body, authority, NOW, 50 * DAY, timedelta(hours=1)) == []


def test_it_is_renewed_at_two_thirds_of_its_life_and_not_all_at_once(authority: LocalAuthority) -> None:
    dues = set()
    for number in range(40):
        owner = Metadata(name=f"m{number}", namespace="ml", uid=f"uid-{number}")
        body = issued(authority, owner=owner)
        next_s = plan_certificate(owner, body, authority.now, NOW + DAY).next_s
        assert next_s is not None
        due = NOW + DAY + timedelta(seconds=next_s)
        assert plan_certificate(owner, body, authority.now, due - timedelta(seconds=2)).wanted is None
        assert plan_certificate(owner, body, authority.now, due + timedelta(seconds=2)).wanted is not None
        assert 50 * DAY < due - NOW <= 60 * DAY
        dues.add((due - NOW) // timedelta(hours=6))
    assert len(dues) > 20


def test_it_is_renewed_once(authority: LocalAuthority) -> None:
    body = issued(authority)
    later = NOW + 61 * DAY
    ((_, renewed),) = live_for(OWNER, body, authority, later, 40 * DAY, timedelta(hours=1))
    assert leaf_of(renewed) != leaf_of(body)
    assert trusted_by(renewed) == trusted_by(body)
    assert decode(renewed)["tls.key"] != decode(body)["tls.key"]


BROKEN: dict[str, Any] = {
    "no certificate": lambda body, _: with_data(body, tls_crt=""),
    "no PEM": lambda body, _: with_data(body, tls_crt="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    "no key": lambda body, _: with_data(body, tls_key=""),
    "the key of another": lambda body, a: with_data(body, tls_key=decode(issued(a))["tls.key"]),
    "an authority that did not sign it": lambda body, _: with_data(
        body, ca_crt=LocalAuthority(NOW).pairs[0].certificate
    ),
    "no data": lambda body, _: {key: value for key, value in body.items() if key != "data"},
    "no base64": lambda body, _: {**body, "data": dict.fromkeys(body["data"], "%")},
    "another name": lambda body, a: {
        **body,
        "data": issued(a, owner=Metadata(name="o", namespace="ml", uid="u"))["data"],
    },
    "somebody else's": lambda body, _: {**body, "metadata": {"name": "llama-pods-tls"}},
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_broken_is_issued_anew_at_once(authority: LocalAuthority, how: str) -> None:
    plan = plan_certificate(OWNER, BROKEN[how](issued(authority), authority), authority.now, NOW)
    assert plan.wanted is not None
    assert (plan.is_change, plan.failure) == (True, None)
    assert plan.trusted == authority.now.certificates


def test_a_foreign_line_in_ca_crt_is_taken_out(authority: LocalAuthority) -> None:
    body = issued(authority)
    data = decode(body)
    stranger = LocalAuthority(NOW).pairs[0].certificate
    altered = with_data(body, ca_crt=data["ca.crt"] + stranger)
    assert carry_out(OWNER, plan_certificate(OWNER, altered, authority.now, NOW + DAY), authority) == body


@pytest.mark.parametrize("days", [91, 400, -3])
def test_a_clock_that_jumped_leaves_no_certificate_that_does_not_hold(authority: LocalAuthority, days: int) -> None:
    authority.make(NOW - 10 * DAY)
    now = NOW + days * DAY
    body = carry_out(OWNER, plan_certificate(OWNER, issued(authority), authority.now, now), authority)
    assert body is not None
    leaf = leaf_of(body)
    assert leaf.not_valid_before_utc < now < leaf.not_valid_after_utc


def test_a_time_of_the_future_does_not_stop_renewals(authority: LocalAuthority) -> None:
    body = issued(authority)
    body["metadata"]["annotations"]["fairlead.dev/trusted-since"] = "2090-01-01T00:00:00Z"
    assert plan_certificate(OWNER, body, authority.now, NOW + 61 * DAY).wanted is not None


# --- the authority changes


def check_order(before: Json, seen: list[tuple[datetime, Json]]) -> list[Json]:
    """Each pod and each gateway takes a Secret within `SETTLE`, when it comes to it: whatever two of them may hold at one moment must
    work together. Returns the Secrets."""
    held = [(datetime.min.replace(tzinfo=UTC), before), *seen]
    for number, (_, first) in enumerate(held[:-1]):
        replaced_at = held[number + 1][0]
        for since, second in held[number + 1 :]:
            for shown, checked in ((first, second), (second, first)) if since < replaced_at + SETTLE else ():
                assert any(is_issued_by(leaf_of(shown), one) for one in trusted_by(checked))
    return [body for _, body in seen]


def test_a_lost_authority_is_followed_step_by_step(authority: LocalAuthority) -> None:
    body = issued(authority, NOW - 30 * DAY)
    authority.lose(NOW)
    first, second, third = check_order(body, live_for(OWNER, body, authority, NOW, timedelta(hours=2)))
    assert leaf_of(first) == leaf_of(body)
    assert len(trusted_by(first)) == len(trusted_by(second)) == 2
    assert leaf_of(second) == leaf_of(third) != leaf_of(body)
    assert is_issued_by(leaf_of(third), trusted_by(third)[0])
    assert len(trusted_by(third)) == 1
    assert live_for(OWNER, third, authority, NOW + timedelta(hours=2), 40 * DAY, timedelta(hours=1)) == []


def test_one_that_is_lost_twice_in_a_row_is_followed_as_well(authority: LocalAuthority) -> None:
    body = issued(authority, NOW - 30 * DAY)
    authority.lose(NOW)
    seen = live_for(OWNER, body, authority, NOW, 2 * SETTLE + timedelta(minutes=1))
    authority.lose(NOW + timedelta(minutes=8))
    seen += live_for(OWNER, seen[-1][1], authority, NOW + 2 * SETTLE + timedelta(minutes=1), timedelta(hours=2))
    assert trusted_by(check_order(body, seen)[-1]) == read_all(authority.pairs[0].certificate)


def test_after_a_renewal_certificates_follow_in_their_own_time(authority: LocalAuthority) -> None:
    body = issued(authority)
    authority.make(NOW + DAY)
    seen = check_order(body, live_for(OWNER, body, authority, NOW + DAY, 70 * DAY, timedelta(hours=1)))
    assert [leaf_of(one) == leaf_of(body) for one in seen] == [True, False]
    assert is_issued_by(leaf_of(seen[1]), read_all(authority.pairs[0].certificate)[0])
    assert len(trusted_by(seen[1])) == 2


def test_a_certificate_that_is_due_when_its_authority_is_renewed_waits_until_that_is_known(
    authority: LocalAuthority,
) -> None:
    body = issued(authority)
    then = NOW + 61 * DAY
    authority.make(then)
    seen = check_order(body, live_for(OWNER, body, authority, then, timedelta(hours=1)))
    assert [leaf_of(one) == leaf_of(body) for one in seen] == [True, False]


def test_an_authority_that_has_expired_is_trusted_no_more(authority: LocalAuthority) -> None:
    body = issued(authority)
    then = NOW + 4000 * DAY
    authority.lose(then)
    assert plan_certificate(OWNER, body, authority.now, then).trusted == authority.now.certificates


def test_without_an_authority_what_is_good_goes_on_and_what_is_missing_is_told(authority: LocalAuthority) -> None:
    nothing = Authority(problem="it is broken. Next: mend it.")
    body = issued(authority)
    plan = plan_certificate(OWNER, body, nothing, NOW + DAY)
    assert plan.failure is None
    assert carry_out(OWNER, plan, authority) == body
    late = plan_certificate(OWNER, body, nothing, NOW + 61 * DAY)
    assert late.failure is not None
    assert (late.failure.terminal, late.failure.reason) == (False, "CertificateNotIssued")
    assert late.failure.message == "The certificate of the pods cannot be renewed: it is broken. Next: mend it."
    assert carry_out(OWNER, late, authority) == body
    for live, now in ((body, NOW + 91 * DAY), (None, NOW)):
        gone = plan_certificate(OWNER, live, nothing, now)
        assert gone.failure is not None
        assert gone.failure.terminal
        assert (gone.next_s or 0) <= 60


# --- the authority itself


def secret_of(pair: KeyPair, retired: tuple[str, ...] = ()) -> dict[str, str]:
    return decode(make_authority_secret("fairlead-system", pair, retired))


def plan(data: dict[str, str] | None, now: datetime = NOW) -> Any:
    return plan_authority(data, now, "fairlead-system")


def test_an_authority_is_made_where_there_is_none() -> None:
    wanted = plan(None).wanted
    assert (wanted.not_before, wanted.not_after) == (
        NOW - timedelta(minutes=5),
        NOW - timedelta(minutes=5) + 3650 * DAY,
    )
    pair = make_authority(wanted)
    found = plan(secret_of(pair))
    assert (found.wanted, found.authority.certificates) == (None, (pair.certificate,))
    assert len({make_authority(wanted).certificate for _ in range(3)}) == 3


def test_it_is_renewed_in_its_last_third_and_the_one_before_stays_trusted() -> None:
    pair = make_authority(plan(None).wanted)
    assert plan(secret_of(pair), NOW + 2430 * DAY).wanted is None
    then = NOW + 2440 * DAY
    wanted = plan(secret_of(pair), then).wanted
    assert wanted.retired == (pair.certificate,)
    renewed = make_authority(wanted)
    data = secret_of(renewed, wanted.retired)
    assert plan(data, then).authority.certificates == (renewed.certificate, pair.certificate)
    assert pair.key not in "".join(data.values())
    assert plan(data, NOW + 3660 * DAY).authority.certificates == (renewed.certificate,)


@pytest.mark.parametrize("days", [4000, -3])
def test_one_that_does_not_hold_at_this_time_is_replaced(days: int) -> None:
    now = NOW + days * DAY
    wanted = plan(secret_of(make_authority(plan(None).wanted)), now).wanted
    assert wanted.not_before < now < wanted.not_after


def rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("how", ["empty", "text", "another key", "a server's certificate", "another kind of key"])
def test_what_is_no_authority_is_told_and_left_alone(authority: LocalAuthority, how: str) -> None:
    good = secret_of(authority.pairs[0])
    data = {
        "empty": {},
        "text": {"tls.crt": "hello", "tls.key": "world"},
        "another key": good | {"tls.key": LocalAuthority(NOW).pairs[0].key},
        "a server's certificate": decode(issued(authority)),
        "another kind of key": good | {"tls.key": rsa_key()},
    }[how]
    found = plan(data)
    assert (found.wanted, found.authority.certificates) == (None, ())
    assert "kubectl delete secret fairlead-ca -n fairlead-system" in found.authority.problem


def test_keys_of_authorities_are_of_the_curve(authority: LocalAuthority) -> None:
    key = load_pem_private_key(authority.pairs[0].key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert make_authority(WantedAuthority(NOW, NOW + DAY)).key != authority.pairs[0].key
