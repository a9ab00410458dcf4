"""The Secret with a certificate that the operator issues, as `fairlead render` shows it: nobody can issue one offline."""

from __future__ import annotations

from typing import Any, Final

from fairlead.api.resource import Metadata

__all__ = ["PLACEHOLDER", "render_issued"]

PLACEHOLDER: Final = "not shown: the operator issues it"


def render_issued(owner: Metadata) -> dict[str, Any]:
    """In stringData, so that people can read that it is none."""
    from fairlead.facts.certificates import KeyPair
    from fairlead.planning.deployment.issuing import CertificatePlan, make_certificate_child

    body = dict(make_certificate_child(owner, CertificatePlan(), KeyPair("", "")).body)
    metadata = {key: value for key, value in body["metadata"].items() if key != "annotations"}
    placeholders = dict.fromkeys(body.pop("data"), PLACEHOLDER)
    return {**body, "metadata": metadata, "stringData": placeholders}
