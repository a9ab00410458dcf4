"""Reads the files of the limits: each is a filter between authentication and router. It may say who is refused, and nothing else."""

from __future__ import annotations

import json
from typing import Final

__all__ = ["find_more_than_a_limit"]

_KIND: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
#: None of them changes a request that goes on.
_KNOWN: Final = {
    "@type", "stat_prefix", "filter_enabled", "filter_enforced", "always_consume_default_token_bucket", "enable_retry_after_header",
    "max_dynamic_descriptors", "rate_limits", "descriptors", "response_headers_to_add",
}  # fmt: skip


def find_more_than_a_limit(name: str, text: str) -> str:
    """What such a file says that a limit does not say, or ""."""
    (resource,) = json.loads(text)["resources"]
    if resource.keys() != {"@type", "name", "typed_config"}:
        return f"{name} has {sorted(resource)}"
    if resource["name"] != name.removesuffix(".json").replace("-", "_"):
        return f"{name} is the filter {resource['name']}"
    config = resource["typed_config"]
    if config["@type"] != _KIND:
        return f"{name} is a {config['@type']}"
    unknown = config.keys() - _KNOWN
    if unknown:
        return f"{name} says {', '.join(sorted(unknown))}"
    added = {entry["header"]["key"] for entry in config.get("response_headers_to_add", ())} - {"retry-after"}
    return f"{name} adds {', '.join(sorted(added))}" if added else ""
