"""Mistakes in the files of the limits, which stand in the way of every request."""

from __future__ import annotations

from tests.law.mutations_of_files import Files, edit


@edit
def a_limit_sets_the_class_instead_of_refusing(files: Files) -> None:
    header = {"header": {"key": "x-fairlead-class", "value": "Public"}}
    files["limit-tokens.json"]["resources"][0]["typed_config"]["request_headers_to_add_when_not_enforced"] = [header]


@edit
def another_filter_stands_in_the_place_of_a_limit(files: Files) -> None:
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
    mutation = {"append": {"header": {"key": "x-fairlead-consumer", "value": "c1-cloud"}}}
    files["limit-requests.json"]["resources"][0]["typed_config"] = {
        "@type": kind,
        "mutations": {"request_mutations": [mutation]},
    }
