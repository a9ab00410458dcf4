"""Mistakes in how gateways call providers and encrypted deployments by TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.law.mutations_of_files import Files, clusters_in, edit, options_of, providers

Json = dict[str, Any]


def _encrypted(files: Files) -> list[Json]:
    """Clusters of deployments whose pods serve TLS."""
    clusters = [*clusters_in(files, "be~"), *clusters_in(files, "pin~")]
    return [one for one in clusters if "transport_socket" in one and "http_filters" not in options_of(one)]


def _tls(name: str, change: Callable[[Json], Any]) -> None:
    def change_all(files: Files) -> None:
        for cluster in providers(files):
            change(cluster["transport_socket"]["typed_config"])

    change_all.__name__ = name
    edit(change_all)


def _validation(context: Json) -> Json:
    found: Json = context["common_tls_context"]["validation_context"]
    return found


_tls("the-name-of-certificates-is-not-checked", lambda c: _validation(c).pop("match_typed_subject_alt_names"))
_tls(
    "any-name-of-a-zone-is-taken",
    lambda c: _validation(c)["match_typed_subject_alt_names"][0].update(matcher={"suffix": ".com"}),
)
_tls(
    "certificates-may-name-somebody-else",
    lambda c: _validation(c)["match_typed_subject_alt_names"][0].update(matcher={"exact": "evil.example"}),
)
_tls("certificates-may-be-by-anybody", lambda c: _validation(c).pop("trusted_ca"))
_tls("untrusted-certificates-are-taken", lambda c: _validation(c).update(trust_chain_verification="ACCEPT_UNTRUSTED"))
_tls("the-sni-of-another-host-is-sent", lambda c: c.update(sni="evil.example"))
_tls("no-sni-is-sent", lambda c: c.pop("sni", None))
_tls(
    "own-authorities-are-ignored",
    lambda c: _validation(c)["trusted_ca"].update(filename="/etc/ssl/certs/ca-certificates.crt"),
)


@edit
def providers_are_called_in_the_clear(files: Files) -> None:
    for cluster in providers(files):
        del cluster["transport_socket"]


@edit
def encrypted_deployments_are_called_in_the_clear(files: Files) -> None:
    for cluster in _encrypted(files):
        del cluster["transport_socket"]


@edit
def the_pods_of_an_encrypted_deployment_may_be_anybody(files: Files) -> None:
    for cluster in _encrypted(files):
        _validation(cluster["transport_socket"]["typed_config"]).pop("match_typed_subject_alt_names")


@edit
def encrypted_deployments_are_signed_for_by_the_world(files: Files) -> None:
    for cluster in _encrypted(files):
        validation = _validation(cluster["transport_socket"]["typed_config"])
        validation["trusted_ca"].update(filename="/etc/ssl/certs/ca-certificates.crt")
