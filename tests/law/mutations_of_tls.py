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
    """Where the names are that a certificate may have."""
    common = context["common_tls_context"]
    both = common.get("combined_validation_context", {})
    found: Json = both.get("default_validation_context") or common["validation_context"]
    return found


def _forget_authorities(context: Json) -> None:
    common = context["common_tls_context"]
    common.get("validation_context", {}).pop("trusted_ca", None)
    common.get("combined_validation_context", {}).pop("validation_context_sds_secret_config", None)


_tls("the-name-of-certificates-is-not-checked", lambda c: _validation(c).pop("match_typed_subject_alt_names"))
_tls(
    "any-name-of-a-zone-is-taken",
    lambda c: _validation(c)["match_typed_subject_alt_names"][0].update(matcher={"suffix": ".com"}),
)
_tls(
    "certificates-may-name-somebody-else",
    lambda c: _validation(c)["match_typed_subject_alt_names"][0].update(matcher={"exact": "evil.example"}),
)
_tls("certificates-may-be-by-anybody", _forget_authorities)
_tls("untrusted-certificates-are-taken", lambda c: _validation(c).update(trust_chain_verification="ACCEPT_UNTRUSTED"))
_tls("the-sni-of-another-host-is-sent", lambda c: c.update(sni="evil.example"))
_tls("no-sni-is-sent", lambda c: c.pop("sni", None))


@edit
def own_authorities_are_ignored(files: Files) -> None:
    for name, file in files.items():
        if name.startswith("ca-"):
            trusted = file["resources"][0]["validation_context"]["trusted_ca"]
            trusted["filename"] = "/etc/ssl/certs/ca-certificates.crt"


@edit
def authorities_of_another_file_are_taken(files: Files) -> None:
    for name in [name for name in files if name.startswith("ca-")]:
        files[name]["resources"][0]["name"] += "-x"


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
def encrypted_deployments_are_signed_for_by_anybody(files: Files) -> None:
    for cluster in _encrypted(files):
        _forget_authorities(cluster["transport_socket"]["typed_config"])
