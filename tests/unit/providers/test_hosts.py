"""Base URLs that a route may not name, and the operator's list that makes exceptions."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import RenderError
from fairlead.providers.endpoint import ProviderEndpoint, resolve
from fairlead.providers.hosts import is_trusted, parse_base_url
from fairlead.providers.loader import ProviderCatalog

OWN = ProviderCatalog.builtin().get("OpenAICompatible")
PATH = "spec.backends[0].provider"


def go(base_url: str, *trusted: str) -> ProviderEndpoint:
    return resolve(OWN, path=PATH, base_url=base_url, parameters={}, trusted_hosts=trusted)


#: Nothing of this may be called, whatever the operator's list says (each is also tried with its host on the list).
MALFORMED = [
    "", " ", "https", "https:", "https://", "https:///v1", "https:llm.example.com", "https:/llm.example.com", "//llm.example.com",
    "llm.example.com", "http://llm.example.com/v1", "HTTP://llm.example.com", "ftp://llm.example.com", "file:///etc/passwd",
    "unix:///var/run/x.sock", "javascript://llm.example.com", "httpss://llm.example.com",
    "https://user@llm.example.com/v1", "https://user:hunter2@llm.example.com/v1", "https://:hunter2@llm.example.com/v1",
    "https://@llm.example.com/", "https://llm.example.com@evil.example.org/", "https://llm.example.com:443@evil.example.org/",
    "https://llm.example.com/v1?key=hunter2", "https://llm.example.com/v1?", "https://llm.example.com?x", "https://llm.example.com/v1#x",
    "https://llm.example.com#", "https://llm.example.com#@evil.example.org/",
    "https://llm.example.com:0/v1", "https://llm.example.com:/v1", "https://llm.example.com:65536", "https://llm.example.com:99999",
    "https://llm.example.com:-1", "https://llm.example.com:0443", "https://llm.example.com:+443", "https://llm.example.com:https",
    "https://llm.example.com:443:443", "https://llm.example.com:4 43", "https://llm.example.com:\u0664\u0664\u0663",
    "https://llm.example.com./v1", "https://llm.example.com../v1", "https://.llm.example.com", "https://llm..example.com",
    "https://-llm.example.com", "https://llm-.example.com", "https://llm_x.example.com", "https://*.example.com",
    "https://llm.example.com\\@evil.example.org", "https://evil.example.org\\.llm.example.com", "https:\\\\llm.example.com",
    "https://llm.exa\tmple.com", "https://llm.example.com\n", "https://llm.example.com\r\nx-a: b", " https://llm.example.com",
    "https://llm.example.com /v1", "https://llm.example.com\x00", "https://llm%2eexample.com", "https://llm.example.com%2f.evil.example.org",
    "https://\u217cllm.example.com", "https://llm.ex\u0430mple.com", "https://llm\u3002example\u3002com", "https://\uff11\uff12\uff17.0.0.1",
    "https://llm.example.com/v1/../admin", "https://llm.example.com/./v1", "https://llm.example.com/%2e%2e/v1", "https://llm.example.com//v1",
    "https://llm.example.com/v1//", "https://llm.example.com/v1;x=y", "https://llm.example.com/{region}", "https://llm.example.com/v1/\u00e9",
    "https://{region}.example.com/v1", "https://[::1%25eth0]/v1", "https://[::1/v1", "https://::1/v1", "https://[v1.x]/", "https://[]/",
    "https://[10.0.0.1]/", "https://[llm.example.com]/", "https://[::1]x/", "https://[::1].example.com",
    "https://" + "a" * 64 + ".example.com", "https://" + "a." * 126 + "com", "https://llm.example.com/" + "a" * 2048,
    # Numbers that some parser takes for an IPv4 address.
    "https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://127.1/", "https://127.0.1/", "https://0x7f.1/",
    "https://0177.0.0.1/", "https://127.0.0.01/", "https://127.0.0.0x1/", "https://10.0.0.256/", "https://1.2.3.4.5/", "https://0/",
    "https://00000000/", "https://0x/", "https://example.0x7f/", "https://example.127/", "https://169.254.43518/", "https://0xa9fea9fe/",
    "https://2852039166/", "https://4294967296/",
]  # fmt: skip

#: What can only be internal; all right when the operator's list names exactly this host.
INTERNAL = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "169.254.0.1", "100.64.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1",
    "8.8.8.8", "1.1.1.1", "203.0.113.7",
    "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
    "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:db8::1]", "[fd00:ec2::254]",
    "[2606:4700:4700::1111]", "[0:0:0:0:0:0:0:1]",
    "localhost", "LOCALHOST", "foo.localhost", "localhost.localdomain", "printer.local", "llm.svc.cluster.local",
    "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
    "kubernetes.default.example.com", "llm.ml.svc", "llm.ml.svc.k8s.example.com", "LLM.ML.SVC", "10-0-0-1.default.pod.cluster.local",
    "llm", "assistants-gateway", "deadbeef", "com",
    "metadata.google.internal", "Metadata.Google.Internal", "metadata", "metadata.tencentyun.com", "metadata.platformequinix.com",
    "instance-data", "instance-data.ec2.internal", "ip-10-0-0-1.ec2.internal", "x.internal", "vault.corp", "nas.home", "router.lan",
    "db.intranet", "a.private", "x.home.arpa", "llm.test", "llm.invalid",
    "127.0.0.1.nip.io", "10-0-0-1.sslip.io", "7f000001.nip.io", "nip.io", "localtest.me", "foo.localtest.me", "lvh.me", "x.traefik.me",
    "xn--80ak6aa92e.com", "api.xn--openi-2na.com",
]  # fmt: skip

FINE = [
    ("https://llm.example.com", "llm.example.com", 443, ""),
    ("https://llm.example.com/", "llm.example.com", 443, ""),
    ("HTTPS://LLM.EXAMPLE.COM/V1", "llm.example.com", 443, "/V1"),
    ("https://llm.example.com:8443/a/b-c_d.e~f/", "llm.example.com", 8443, "/a/b-c_d.e~f"),
    ("https://acme--llm.modal.run/v1", "acme--llm.modal.run", 443, "/v1"),
    ("https://x.ai", "x.ai", 443, ""),
    ("https://1password.com/v1", "1password.com", 443, "/v1"),
    ("https://127.0.0.1.example.com/", "127.0.0.1.example.com", 443, ""),
    ("https://svc.example.com/", "svc.example.com", 443, ""),
    ("https://localhost.example.com/", "localhost.example.com", 443, ""),
    ("https://notlocal.com/", "notlocal.com", 443, ""),
    ("https://api.clan/", "api.clan", 443, ""),
    ("https://unip.io/", "unip.io", 443, ""),
    ("https://" + "a" * 63 + ".example.com:65535", "a" * 63 + ".example.com", 65535, ""),
]


def test_there_are_enough_of_them() -> None:
    assert len({*MALFORMED}) == len(MALFORMED) >= 60
    assert len({*INTERNAL}) == len(INTERNAL) >= 60


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_refused_whoever_is_trusted(url: str) -> None:
    for trusted in (
        (),
        ("llm.example.com", "*.example.com", "evil.example.org", "127.0.0.1", "10.0.0.1", "::1", "*", "0"),
    ):
        with pytest.raises(RenderError) as caught:
            go(url, *trusted)
        assert caught.value.path == f"{PATH}.baseURL"
        assert caught.value.remedy
        assert "hunter2" not in str(caught.value), "a password is not repeated"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://llm.example.com", "not an https URL"),
        ("https://a:hunter2@llm.example.com", "user name or password"),
        ("https://llm.example.com/v1?x", "query or a fragment"),
        ("https://llm.example.com#x", "query or a fragment"),
        ("https://llm.example.com\\x", "printable ASCII"),
        ("https://llm.ex\u0430mple.com", "printable ASCII"),
        ("llm.example.com/v1", "not a complete URL"),
        ("https://", "no host"),
        ("https://llm.example.com.", "ends with a dot"),
        ("https://llm_x.example.com", "not a DNS name"),
        ("https://0x7f.1", "not a plain IP address"),
        ("https://127.0.0.1", "127.0.0.1 is an IP address"),
        ("https://llm.example.com:0", "port"),
        ("https://llm.example.com/../x", "path"),
        ("https://vault.corp", "internal network"),
        ("https://llm", "single label"),
        ("https://llm.ml.svc.k8s.example.com", "Service of a cluster"),
        ("https://metadata.tencentyun.com", "metadata service"),
        ("https://10-0-0-1.sslip.io", "whatever address"),
        ("https://xn--80ak6aa92e.com", "internationalised"),
    ],
)
def test_a_refusal_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(RenderError) as caught:
        go(url)
    assert words in caught.value.message


@pytest.mark.parametrize("host", INTERNAL)
def test_an_internal_host_is_refused_unless_trusted(host: str) -> None:
    for url in f"https://{host}", f"https://{host}:8443/v1":
        with pytest.raises(RenderError) as caught:
            go(url, "*", "other.example.com", "*.example.net")
        assert caught.value.path == f"{PATH}.baseURL"
        assert "trustedHosts" in caught.value.remedy
    bare = host.strip("[]")
    endpoint = go(f"https://{host}:8443/v1", bare)
    assert endpoint.url(next(iter(endpoint.paths))).startswith("https://")
    if _is_ip(bare):
        assert ip_address(endpoint.host) == ip_address(bare)
        assert endpoint.server_name is None, "an address cannot be asked for by TLS"
    else:
        assert endpoint.host == endpoint.server_name == host.lower()


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("url", "host", "port", "path"), FINE)
def test_a_public_name_is_taken_apart(url: str, host: str, port: int, path: str) -> None:
    address = parse_base_url(url, path="p")
    assert (address.host, address.port, address.path, address.is_address) == (host, port, path, False)


def test_an_ipv6_host_is_written_with_brackets() -> None:
    endpoint = go("https://[FD00:0::1]:8443/v1", "fd00::1")
    assert (endpoint.host, endpoint.authority) == ("fd00::1", "[fd00::1]:8443")
    assert go("https://[fd00::1]", "FD00::1").authority == "[fd00::1]"


@pytest.mark.parametrize(
    ("host", "trusted", "expected"),
    [
        ("llm.example.com", ["llm.example.com"], True),
        ("LLM.example.com", ["llm.EXAMPLE.com"], True),
        ("llm.example.com", [" llm.example.com "], True),
        ("llm.example.com", ["*.example.com"], True),
        ("a.b.example.com", ["*.example.com"], True),
        ("example.com", ["*.example.com"], False),
        (".example.com", ["*.example.com"], False),
        ("evilexample.com", ["*.example.com"], False),
        ("example.com.evil.org", ["*.example.com", "example.com"], False),
        ("llm.example.com.", ["llm.example.com", "*.example.com", "llm.example.com."], False),
        ("llm.example.com", [], False),
        ("llm.example.com", ["*"], False),
        ("llm.example.com", ["*."], False),
        ("llm.example.com", ["**.example.com", "l*.example.com", "*example.com", "llm.*"], False),
        ("llm.example.com", ["https://llm.example.com", "llm.example.com:443", ""], False),
        ("", ["", "*"], False),
        ("10.0.0.1", ["10.0.0.1"], True),
        ("10.0.0.1", ["*.0.0.1", "10.0.0.0/8", "10.0.0.*", "::ffff:10.0.0.1", "10.0.0.01"], False),
        ("::1", ["[::1]"], True),
        ("[::1]", ["0:0:0:0:0:0:0:1"], True),
        ("::ffff:10.0.0.1", ["10.0.0.1"], False),
        ("llm.ml.svc", ["*.svc"], True),
    ],
)
def test_the_operators_list_names_hosts(host: str, trusted: list[str], expected: bool) -> None:
    assert is_trusted(host, trusted) is expected
    assert is_trusted(host, frozenset(trusted)) is expected


# --- properties: judged with other parsers than ours ---------------------------------------------------------------

WORDS = [
    "llm", "example", "com", "local", "svc", "cluster", "default", "kubernetes", "internal", "127", "0", "1", "0x7f", "0177", "10",
    "metadata", "xn--a", "localhost", "nip", "io", "google", "LOCAL", "Svc", "169", "254", "ai",
]  # fmt: skip
PUBLIC = st.from_regex(r"([a-z]([a-z0-9-]{0,6}[a-z0-9])?\.){1,3}(com|ai|cloud)", fullmatch=True)
LABELS = st.one_of(
    st.sampled_from(WORDS),
    st.from_regex(r"[a-zA-Z0-9-]{1,8}", fullmatch=True),
)
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=4).map(lambda address: str(int(address))),
    st.ip_addresses(v=4).map(lambda address: hex(int(address))),
    st.ip_addresses(v=4).map(lambda address: f"[::ffff:{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]"),
)
HOSTS = st.one_of(PUBLIC, st.lists(LABELS, min_size=1, max_size=5).map(".".join), ADDRESSES, st.text(max_size=12))
TAILS = st.one_of(
    st.sampled_from(["", "/", "/v1", "/a/b/", ":443/v1", ":8443"]),
    st.sampled_from(["/..", "?x", "#x", "@evil.com", ":0", "."]),
    st.text(max_size=6),
)
BASE_URLS = st.builds(
    lambda scheme, user, host, tail: f"{scheme}{user}{host}{tail}",
    st.sampled_from(["https://"] * 8 + ["HTTPS://", "http://", "https:/", "https:", "https:\\\\"]),
    st.sampled_from([""] * 12 + ["a@", "a:b@", "https://"]),
    HOSTS,
    TAILS,
)


@settings(max_examples=1500)
@given(BASE_URLS)
def test_whatever_is_accepted_names_a_public_host_to_every_parser(url: str) -> None:
    try:
        endpoint = go(url)
    except RenderError:
        return
    parts = urlsplit(url)
    assert parts.scheme == "https"
    assert parts.hostname == endpoint.host == endpoint.server_name
    assert (parts.port or 443) == endpoint.port
    assert parts.username is parts.password is None
    assert not parts.query
    assert not parts.fragment
    assert parts.path.removesuffix("/") == endpoint.base_path
    assert not _is_ip(endpoint.host)
    with pytest.raises(OSError, match="illegal IP address"):
        socket.inet_aton(endpoint.host)
    labels = endpoint.host.split(".")
    assert len(labels) >= 2
    assert endpoint.host == endpoint.host.lower()
    assert endpoint.host.isascii()
    assert labels[-1] not in {"local", "localhost", "internal", "svc", ""}
    assert "svc" not in labels[1:]
    assert not endpoint.host.startswith(("kubernetes.default", "metadata."))
    assert not any(label.startswith("xn--") for label in labels)


@settings(max_examples=500)
@given(st.ip_addresses(), st.sampled_from(["", ":8443", "/v1"]))
def test_no_address_is_accepted_without_trust_and_only_itself_with_it(address: object, tail: str) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)
    if "%" in host:
        return
    with pytest.raises(RenderError):
        go(f"https://{host}{tail}", "*", "*.example.com", "203.0.113.1" if str(address) != "203.0.113.1" else "x")
    assert ip_address(go(f"https://{host}{tail}", str(address)).host) == address


@settings(max_examples=500)
@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["AzureOpenAI", "Bedrock", "VertexAI", "RunPod"]))
def test_no_parameter_moves_a_request_to_another_host(first: str, second: str, name: str) -> None:
    definition = ProviderCatalog.builtin().get(name)
    values = dict(zip((parameter.name for parameter in definition.parameters), (first, second), strict=False))
    try:
        endpoint = resolve(definition, path=PATH, base_url=None, parameters=values)
    except RenderError:
        return
    ends = {
        "AzureOpenAI": ".openai.azure.com",
        "Bedrock": ".amazonaws.com",
        "VertexAI": "aiplatform.googleapis.com",
        "RunPod": "api.runpod.ai",
    }
    assert endpoint.host.endswith(ends[name])
    assert urlsplit(endpoint.url(next(iter(endpoint.paths)))).hostname == endpoint.host


def test_a_careless_pattern_in_a_provider_file_still_cannot_forge_a_host() -> None:
    definition = ProviderCatalog.builtin().get("AzureOpenAI")
    parameter = definition.parameters[0].model_copy(update={"pattern": "(?s).*"})
    careless = definition.model_copy(update={"parameters": (parameter,)})
    for value in (
        "evil.example/",
        "evil.example#",
        "a@b",
        "a:443",
        "a.b",
        "",
        "-a",
        "A",
        "a\n",
        "%61",
        "[::1]",
        "{resource}",
    ):
        with pytest.raises(RenderError) as caught:
            resolve(careless, path=PATH, base_url=None, parameters={"resource": value})
        assert caught.value.path == f"{PATH}.parameters.resource"
