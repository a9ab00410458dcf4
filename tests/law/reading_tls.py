"""How a cluster's certificates are verified, strictly: what is not known here is not understood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from tests.law.strict import Json, Unreadable, only, typed

_SECRET: Final = "envoy.extensions.transport_sockets.tls.v3."


def read_tls(cluster: Json, files: Mapping[str, str]) -> tuple[str | None, str, str, str] | None:
    """SNI, kind of name, name and authorities. Whatever is not checked is "" there."""
    if "transport_socket" not in cluster:
        return None
    where = f"TLS of {cluster['name']}"
    kind = f"{_SECRET}UpstreamTlsContext"
    context = typed(cluster["transport_socket"]["typed_config"], where, kind, "common_tls_context", "sni")
    common = only(context["common_tls_context"], where, "validation_context", "combined_validation_context")
    if len(common) > 1:
        raise Unreadable(f"{where} says twice what is valid")
    authorities = ""
    if "combined_validation_context" in common:
        both = only(
            common["combined_validation_context"],
            where,
            "default_validation_context",
            "validation_context_sds_secret_config",
        )
        validation = only(both.get("default_validation_context", {}), where, "match_typed_subject_alt_names")
        if "validation_context_sds_secret_config" in both:
            authorities = _read_source(both["validation_context_sds_secret_config"], where, files)
    else:
        validation = only(common.get("validation_context", {}), where, "trusted_ca", "match_typed_subject_alt_names")
        authorities = validation.get("trusted_ca", {}).get("filename", "")
    names = validation.get("match_typed_subject_alt_names", ())
    if len(names) > 1:
        raise Unreadable(f"{where} takes one of several names")
    name: Json = names[0] if names else {"san_type": "", "matcher": {"exact": ""}}
    matcher = only(name["matcher"], where, "exact")
    return context.get("sni"), name["san_type"], matcher["exact"], authorities


def _read_source(config: Json, where: str, files: Mapping[str, str]) -> str:
    """The file with the authorities, by way of the SDS file that names it."""
    source = config["sds_config"]["path_config_source"]["path"]
    text = files.get(source.rpartition("/")[2])
    if text is None:
        raise Unreadable(f"{where}: {source} is not there")
    for resource in json.loads(text)["resources"]:
        if resource.get("@type") == f"type.googleapis.com/{_SECRET}Secret" and resource["name"] == config["name"]:
            context = only(resource["validation_context"], where, "trusted_ca", "watched_directory")
            return str(only(context["trusted_ca"], where, "filename")["filename"])
    raise Unreadable(f"{where}: {source} has no {config['name']}")
