"""What routing files take for granted of gateways that an earlier release started (law 8). Not proof that they understand it: a bell that
rings for whoever changes it."""

from __future__ import annotations

import re
from hashlib import blake2b

from tests.unit.planning.route.routes import make_facts, make_route, make_spec

from fairlead.config import OperatorConfig
from fairlead.facts.observed import OperatorFacts
from fairlead.gateway.envoy import GatewaySettings, render_files
from fairlead.gateway.envoy.files import ROUTING_INTERFACE
from fairlead.gateway.envoy.listeners import make_listeners
from fairlead.gateway.envoy.sidecar import SIDECAR_INTERFACE, SIDECAR_SETTINGS
from fairlead.gateway.lookup import make_lookup
from fairlead.gateway.lua import load_classifier
from fairlead.planning.route import resolve_route
from fairlead.planning.route.injection import make_injection
from fairlead.providers.loader import ProviderCatalog

NEXT = (
    "Could a gateway that the last release started carry out today's routing? If not, raise ROUTING_INTERFACE, so that it is replaced,"
    " and say so in CHANGELOG.md. Then write here what is there now."
)
INTERFACE = 3
FILTERS = {
    "public": [
        "envoy.filters.http.health_check", "authentication", "envoy.filters.http.buffer", "limit_requests_headers", "limit_requests",
        "usage", "classify", "patterns", "settle", "limit_tokens_headers", "limit_tokens", "key", "stream_usage",
        "envoy.filters.http.router",
    ],
    "egress": ["affinity", "envoy.filters.http.lua", "refused_key", "envoy.filters.http.router"],
}  # fmt: skip
LOOKUP = {
    "affinities", "anonymous", "classes", "classes_of", "consumers", "default", "detectors", "endpoints", "header", "hosted", "known",
    "models", "opaque", "patterns", "store", "tokens", "verdicts",
}  # fmt: skip
FILES = {"cds.json", "rds-egress.json", "rds-public.json", "limit-requests.json", "limit-tokens.json"}


def test_filters_tables_and_files_are_those_of_this_number() -> None:
    spec = make_spec()
    spec["models"][0]["affinity"] = {"promptPrefix": {}}
    spec["dataPolicy"] |= {"allowStore": True, "hostedTools": ["web_search"]}
    spec["limits"] = {"requestsPerMinute": 5, "tokensPerMinute": 1000}
    spec["dataPolicy"]["detectors"].append({"name": "own", "class": "Internal", "patterns": ["MRN-[0-9]{8}"]})
    providers = ProviderCatalog.builtin()
    _, table = resolve_route(make_route(spec), make_facts(), OperatorFacts(), providers)
    settings = GatewaySettings()
    filters = {
        listener["name"]: [
            entry["name"] for entry in listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        ]
        for listener in make_listeners(settings)
    }
    files = {name for name in render_files(table, settings).routing if not name.startswith(("key-", "ca-"))}
    assert (ROUTING_INTERFACE, filters, set(make_lookup(table)), files) == (INTERFACE, FILTERS, LOOKUP, FILES), NEXT


def test_the_classifier_says_all_that_it_is_given() -> None:
    """The head of its text is the contract between both."""
    text = load_classifier()
    head = text[text.index("-- Data: `filter_context`") : text.index("-- Ids of profiles")]
    assert set(re.findall(r"^--   (\w+) {2,}", head, re.MULTILINE)) == LOOKUP


SIDECAR_NEXT = (
    "Could the pods to which the last release gave a sidecar read today's ConfigMaps? If not, raise SIDECAR_INTERFACE, publish under both"
    " numbers, and say so in CHANGELOG.md. Then write here what is there now."
)
SIDECAR_INTERFACE_NOW = 1
#: Of its Envoy, with which listeners and files of later releases must get along.
SIDECAR = {
    "image": "envoyproxy/envoy:distroless-v1.40.0",
    "bootstrap": "2fbc0808",
    "arguments": "--concurrency 1 --disable-hot-restart --reject-unknown-dynamic-fields --drain-strategy immediate --drain-time-s 3600"
    " --log-level warning",
    "mounts": ["/etc/fairlead/gateway", "/run/fairlead", "/var/run/secrets/kubernetes.io/serviceaccount"],
    "sources": [
        "r-gateway-sidecar1-clusters", "r-gateway-sidecar1-egress", "r-gateway-sidecar1-routes", "r-gateway-sidecar1-listeners",
        "r-gateway-clients",
    ],
    "own": ["authentication.json", "cds.json", "gateway-authorities.json", "lds.json"],
    "ports": (4285, 4286),
}  # fmt: skip


def test_sidecars_of_earlier_releases_read_what_is_published() -> None:
    image = str(OperatorConfig.model_fields["gateway_image"].default)
    made = make_injection("r", image)
    _, bootstrap, *arguments = made.container["args"]
    first, *others = made.volumes[0]["projected"]["sources"]
    found = {
        "image": made.container["image"],
        "bootstrap": blake2b(bootstrap.encode(), digest_size=4).hexdigest(),
        "arguments": " ".join(arguments),
        "mounts": [mount["mountPath"] for mount in made.container["volumeMounts"]],
        "sources": [next(iter(source.values()))["name"] for source in others],
        "own": sorted(item["path"] for item in first["downwardAPI"]["items"]),
        "ports": (SIDECAR_SETTINGS.port, SIDECAR_SETTINGS.status_port),
    }
    assert (SIDECAR_INTERFACE, found) == (SIDECAR_INTERFACE_NOW, SIDECAR), SIDECAR_NEXT
