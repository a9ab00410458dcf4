"""What Envoy is told of its surroundings: arguments, addresses and paths in files, search domains, its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead_cluster.node.atomicwriter import File, read_files, write_atomically
from fairlead_cluster.node.envoy import make_arguments
from fairlead_cluster.node.images import Image, ImageNotFoundError, ImageReference, find_image
from fairlead_cluster.node.resolving import search_environment
from fairlead_cluster.node.rewriting import Rewriter
from fairlead_cluster.node.security import non_root_complaint
from fairlead_cluster.node.views import View

Json = dict[str, Any]
RESOLVER = ("127.0.0.1", 5353)
CARES = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


def merged(arguments: list[str]) -> Json:
    """What `--config-yaml` says."""
    assert arguments.count("--config-yaml") == 1
    found: Json = json.loads(arguments[arguments.index("--config-yaml") + 1])
    return found


def test_the_clusters_dns_is_merged_into_the_bootstrap() -> None:
    arguments = make_arguments(["-c", "/nowhere.yaml", "--disable-hot-restart", "--concurrency", "1"], RESOLVER)
    assert arguments[:5] == ["-c", "/nowhere.yaml", "--disable-hot-restart", "--concurrency", "1"]
    typed = merged(arguments)["typed_dns_resolver_config"]["typed_config"]
    assert typed["@type"] == CARES
    assert typed["resolvers"] == [{"socket_address": {"address": "127.0.0.1", "port_value": 5353}}]


def test_options_of_the_users_resolver_stay(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    own = {"@type": CARES, "dns_resolver_options": {"no_default_search_domain": True}, "resolvers": ["other"]}
    file.write_text(json.dumps({"typed_dns_resolver_config": {"name": "x", "typed_config": own}}))
    typed = merged(make_arguments([f"--config-path={file}"], RESOLVER))["typed_dns_resolver_config"]["typed_config"]
    assert typed["dns_resolver_options"] == {"no_default_search_domain": True}
    assert typed["resolvers"] != ["other"]


def test_a_config_yaml_of_the_pod_is_merged_with_ours() -> None:
    found = merged(make_arguments(["--config-yaml", "node: {id: a}", "-l", "info"], RESOLVER))
    assert found["node"] == {"id": "a"}
    assert "typed_dns_resolver_config" in found
    broken = make_arguments(["--config-yaml={", "-l", "info"], RESOLVER)
    assert broken[-2:] == ["--config-yaml", "{"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["--use-dynamic-base-id"]),
        (["--disable-hot-restart"], []),
        (["--base-id", "3"], []),
        (["--base-id=3"], []),
    ],
)
def test_hot_restart_does_not_meet_other_pods(given: list[str], expected: list[str]) -> None:
    assert make_arguments(given, None) == [*given, *expected]


REWRITE = Rewriter({"/etc/envoy": "/host/v"}, "127.244.1.2")


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ('{"address":"0.0.0.0","port_value":80}', '{"address":"127.244.1.2","port_value":80}'),
        ('"address" : "127.0.0.1"', '"address" : "127.244.1.2"'),
        ("address: 0.0.0.0\n", "address: 127.244.1.2\n"),
        ("{address: '::', port_value: 1}", "{address: '127.244.1.2', port_value: 1}"),
        ("address: localhost # all", "address: 127.244.1.2 # all"),
        ("path: /etc/envoy/xds/lds.json", "path: /host/v/xds/lds.json"),
        ('"filename":"/etc/envoy/key"', '"filename":"/host/v/key"'),
    ],
)
def test_addresses_and_paths_in_files_are_those_of_the_host(text: str, rewritten: str) -> None:
    assert REWRITE.in_file(text.encode()).decode() == rewritten


@pytest.mark.parametrize(
    "text",
    [
        '"address_prefix": "0.0.0.0", "prefix_len": 0',
        '"remote_address": "127.0.0.1"',
        '"address": "127.0.0.10"',
        '"address": "10.0.0.0.0"',
        "address: backend.ns.svc.cluster.local",
        'domains: ["localhost", "127.0.0.1"]',
        "call http://127.0.0.1:80",
        '"prefix": "/v1/etc/envoy"',
        "address: ::2",
    ],
)
def test_other_text_in_files_stays(text: str) -> None:
    assert REWRITE.in_file(text.encode()).decode() == text


def test_what_is_not_text_stays() -> None:
    assert REWRITE.in_file(b"\xff address: 0.0.0.0") == b"\xff address: 0.0.0.0"


def test_a_view_is_swapped_as_its_volume(tmp_path: Path) -> None:
    view = View(tmp_path / "views", frozenset({"xds"}), REWRITE)
    view.write("xds", {"a/b": File(b"address: 0.0.0.0", 0o440)})
    view.write("other", {"c": File(b"", 0o644)})
    directory = tmp_path / "views" / "xds"
    assert read_files(directory) == {"a/b": File(b"address: 127.244.1.2", 0o440)}
    first = (directory / "..data").readlink()
    view.write("xds", {"a/b": File(b"address: 0.0.0.0", 0o440)})
    assert (directory / "..data").readlink() == first
    view.write("xds", {"a/b": File(b"address: 1.2.3.4", 0o440)})
    assert (directory / "..data").readlink() != first
    assert not (tmp_path / "views" / "other").exists()


def test_a_pinned_file_is_rewritten_without_its_volume(tmp_path: Path) -> None:
    volume, pins = tmp_path / "file", tmp_path / "pins"
    pins.mkdir()
    volume.write_text("address: 0.0.0.0")
    (pins / "file").hardlink_to(volume)
    View(tmp_path / "views", frozenset(), REWRITE).write_pins(pins)
    assert (pins / "file").read_text() == "address: 127.244.1.2"
    assert volume.read_text() == "address: 0.0.0.0"


def test_a_change_leaves_links_to_inner_mounts(tmp_path: Path) -> None:
    write_atomically(tmp_path / "v", {"a": File(b"1", 0o644)})
    (tmp_path / "v" / "inner").symlink_to(tmp_path)
    write_atomically(tmp_path / "v", {"b": File(b"1", 0o644)})
    assert (tmp_path / "v" / "inner").is_symlink()
    assert not (tmp_path / "v" / "a").is_symlink()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"LOCALDOMAIN": "ns.svc.cluster.local", "RES_OPTIONS": "ndots:5"}),
        ({"dnsPolicy": "Default"}, {}),
        ({"hostNetwork": True}, {}),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            {"LOCALDOMAIN": "ns.svc.cluster.local", "RES_OPTIONS": "ndots:5"},
        ),
        (
            {"dnsConfig": {"options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}], "searches": ["x.test"]}},
            {"LOCALDOMAIN": "ns.svc.cluster.local", "RES_OPTIONS": "ndots:1 edns0"},
        ),
        ({"dnsPolicy": "None", "dnsConfig": {"searches": ["x.test"]}}, {"LOCALDOMAIN": "x.test", "RES_OPTIONS": ""}),
    ],
)
def test_search_domain_and_ndots_are_the_pods(spec: Json, expected: dict[str, str]) -> None:
    assert search_environment({"metadata": {"namespace": "ns"}, "spec": spec}) == expected


def image(text: str) -> Image:
    return find_image(ImageReference.parse(text), {})


def test_envoys_images_are_told_by_their_tags() -> None:
    distroless = image("docker.io/envoyproxy/envoy:distroless-v1.40.0")
    plain = image("envoyproxy/envoy:v1.40.1")
    assert distroless.entrypoint == ("/usr/local/bin/envoy",)
    assert not distroless.has_shell
    assert plain.entrypoint == ("/docker-entrypoint.sh",)
    assert image("envoyproxy/envoy:distroless-v1.40.0@sha256:" + "0" * 64) == distroless
    for other in ("envoyproxy/envoy:v1.39.0", "envoyproxy/envoy", "envoyproxy/envoy:missing"):
        with pytest.raises(ImageNotFoundError):
            image(other)


def test_only_the_distroless_image_says_that_it_is_not_root() -> None:
    pod: Json = {"spec": {"securityContext": {"runAsNonRoot": True}}}
    container: Json = {"name": "envoy"}
    assert non_root_complaint(pod, container, image("envoyproxy/envoy:distroless-v1.40.0"), "p") is None
    complaint = non_root_complaint(pod, container, image("envoyproxy/envoy:v1.40.0"), "p")
    assert complaint is not None
    assert "image will run as root" in complaint
