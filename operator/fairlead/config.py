"""Every flag and environment variable of `fairlead run` in one frozen model, so that there is one place for each default.

A flag wins over its variable (`--metrics-port` over FAIRLEAD_METRICS_PORT), which wins over the default here. Nothing
else in fairlead reads the environment, except for what names the API server (KUBECONFIG and the pod's own account).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from fairlead.facts.observed import OperatorFacts
from fairlead.facts.prometheus import PodLabels, PrometheusFacts

ENV_PREFIX: Final = "FAIRLEAD_"
DEFAULT_NAMESPACE: Final = "fairlead-system"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[A-Za-z0-9._~/-]*)?")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,199}")
_SECRET_HEADERS: Final = ("authorization", "proxy-authorization", "cookie", "x-api-key")
_BANDWIDTH: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?)?(?:B(?:/s)?)?")
_FACTORS: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_FACTORS_BINARY: Final = {"Ki": 2**10, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def parse_bytes_per_s(text: object) -> int:
    """`50M`, `50Mi`, `50MB/s` or a plain number as bytes per second. Raises ValueError for anything else."""
    match = _BANDWIDTH.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a bandwidth; write bytes per second, for instance 50M or 200Mi")
    number, suffix = match.groups(default="")
    return int(float(number) * (_FACTORS | _FACTORS_BINARY)[suffix])


def _has_host(url: str) -> bool:
    """And a port that there is, if it names one."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return False


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    if isinstance(value, (list, tuple)):  # a repeated flag, each occurrence with commas of its own
        return tuple(part for item in value for part in (_split(item) if isinstance(item, str) else (item,)))  # type: ignore[attr-defined]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class OperatorConfig(BaseModel):
    """What an installation decides. Field names are the flags' names; descriptions are their help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watch_namespaces: Names = Field((), description="Namespaces to serve, comma-separated; none: the whole cluster.")
    namespace: str = Field(
        DEFAULT_NAMESPACE,
        description="The operator's own namespace: its Lease and the ConfigMaps with engines are there. Default: the pod's.",
    )
    lease_namespace: str | None = Field(
        None, description="Where the Lease is kept. Default: the operator's own namespace."
    )
    lease_name: str = Field("fairlead", description="Name of the Lease by which replicas elect a leader.")
    leader_elect: bool = Field(True, description="Elect one leader among the replicas; off for a single local process.")
    lease_duration_s: Seconds = Field(15.0, description="Seconds after which a silent leader is replaced.")
    renew_deadline_s: Seconds = Field(10.0, description="Seconds after which a leader that cannot renew stops working.")
    retry_period_s: Seconds = Field(2.0, description="Seconds between attempts to get or renew the Lease.")
    identity: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        description="This replica's name in the Lease, unlike any other. Default: the pod's.",
    )
    metrics_address: str = Field("0.0.0.0", description="Address of /metrics, /healthz, /readyz and /debug/queue.")  # noqa: S104
    metrics_port: int = Field(8080, ge=0, le=65535, description="Port of the same; 0: a free one, which the log tells.")
    alerts_token_file: str | None = Field(
        None,
        description="File with one or two bearer tokens, one a line, for those who send alerts. Without it none are taken.",
    )
    alerts_address: str = Field("0.0.0.0", description="Address of /alertmanager/v1, where alerts are taken.")  # noqa: S104
    alerts_port: int = Field(8081, ge=0, le=65535, description="Port of the same; 0: a free one, which the log tells.")
    log_format: Literal["json", "plain"] = Field("json", description="One JSON object per line, or text for people.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is logged."
    )
    workers: int = Field(16, ge=1, le=256, description="Custom resources worked on at the same time.")
    shutdown_grace_s: Seconds = Field(10.0, description="Seconds that running work is given at SIGTERM.")
    monitoring_namespaces: Names = Field(
        ("monitoring",),
        description="Namespaces whose pods may scrape engines, comma-separated (NetworkPolicies admit them).",
    )
    download_bandwidth: Annotated[int, BeforeValidator(parse_bytes_per_s), Field(gt=0)] = Field(
        50_000_000,
        description="Assumed bandwidth of model downloads in bytes per second (50M, 200Mi), for start-up budgets.",
    )
    trusted_hosts: Names = Field(
        (),
        description="Hosts of providers that routes may call trusted (Internal data goes there), comma-separated; *.suffix too.",
    )
    local_images: Names = Field(
        (),
        description="Engine images beside fairlead's own that keep what they are sent, comma-separated patterns with *.",
    )
    gateway_image: str = Field(
        "envoyproxy/envoy:distroless-v1.40.0",
        description="Image of the gateways' pods: Envoy 1.40, no other minor version.",
    )
    cluster_domain: str = Field(
        "cluster.local", description="The cluster's DNS domain, in which Services have their names."
    )
    prometheus_url: str = Field(
        "",
        description="Prometheus that scrapes the engines, with its API's prefix; scaling asks it then. None: the engines are asked.",
    )
    prometheus_headers: Names = Field(
        (), description="Headers for Prometheus, comma-separated `name=value`, such as X-Scope-OrgID=ml. No secrets."
    )
    prometheus_token_file: str = Field(
        "", description="File with a bearer token for Prometheus, read for each request."
    )
    prometheus_ca_file: str = Field(
        "", description="File with the authorities that may sign Prometheus' certificate. Default: the system's."
    )
    prometheus_timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0, description="Seconds that one request to Prometheus may take."
    )
    prometheus_namespace_label: str = Field(
        "namespace", description="Label of the engines' series that names the pod's namespace."
    )
    prometheus_pod_label: str = Field("pod", description="Label of the engines' series that names the pod.")
    nodes: Literal["Counted", "OnDemand", "Ignored"] = Field(
        "Counted",
        description="Counted: scaling asks for no more replicas than there are accelerators for; OnDemand: pods that wait have nodes"
        " added; Ignored: nodes are not looked at.",
    )
    kubeconfig: str | None = Field(
        None, description="Kubeconfig file. Default: the pod's account, else $KUBECONFIG, ~/.kube/config."
    )

    @field_validator("watch_namespaces", "monitoring_namespaces")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _NAMESPACE.fullmatch(name):
                raise ValueError(f"{name!r} is not a namespace's name")
        return tuple(sorted(set(value)))

    @field_validator("prometheus_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not (_URL.fullmatch(value) and _has_host(value)):
            raise ValueError(
                f"{value[:100]!r} is not like http://prometheus.monitoring:9090/prefix; no user, query or fragment"
            )
        return value.rstrip("/")

    @field_validator("prometheus_headers")
    @classmethod
    def _check_headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            name, _, text = entry.partition("=")
            if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                raise ValueError("every entry is a header's name, = and its value, one line of ASCII")
            if name.lower() in _SECRET_HEADERS:
                raise ValueError(f"{name} is a secret; write the token to a file for --prometheus-token-file")
        return value

    @field_validator("prometheus_namespace_label", "prometheus_pod_label")
    @classmethod
    def _check_labels(cls, value: str) -> str:
        if not _LABEL.fullmatch(value):
            raise ValueError(f"{value!r} is not a label's name")
        return value

    @model_validator(mode="after")
    def _check_prometheus(self) -> OperatorConfig:
        said = self._differing("prometheus_")
        if not self.prometheus_url and said:
            raise ValueError(f"{said[0]} needs prometheus_url")
        return self

    @model_validator(mode="after")
    def _check_alerts(self) -> OperatorConfig:
        said = self._differing("alerts_")
        if not self.alerts_token_file and said:
            raise ValueError(f"{said[0]} needs alerts_token_file: without it no alerts are taken")
        return self

    @model_validator(mode="after")
    def _check_timings(self) -> OperatorConfig:
        if not self.retry_period_s < self.renew_deadline_s < self.lease_duration_s:
            raise ValueError("needed: retry_period_s < renew_deadline_s < lease_duration_s")
        return self

    def _differing(self, prefix: str) -> list[str]:
        """Names of the options that begin like this and are not what they are by default."""
        fields = OperatorConfig.model_fields
        return [name for name in fields if name.startswith(prefix) and getattr(self, name) != fields[name].default]

    @property
    def facts(self) -> OperatorFacts:
        """What the installation adds to a decision."""
        return OperatorFacts(
            namespace=self.namespace,
            monitoring_namespaces=self.monitoring_namespaces,
            download_bytes_per_s=self.download_bandwidth,
            gateway_image=self.gateway_image,
            trusted_hosts=frozenset(self.trusted_hosts),
            local_images=self.local_images,
            cluster_domain=self.cluster_domain,
            prometheus=self.prometheus,
        )

    @property
    def prometheus(self) -> PrometheusFacts | None:
        """The one that scrapes the engines, if there is one."""
        if not self.prometheus_url:
            return None
        return PrometheusFacts(
            self.prometheus_url,
            self.prometheus_headers,
            PodLabels(self.prometheus_namespace_label, self.prometheus_pod_label),
            is_guarded=bool(self.prometheus_token_file or self.prometheus_ca_file),
        )

    @property
    def leases_in(self) -> str:
        """The namespace of the Lease."""
        return self.lease_namespace or self.namespace


class ConfigError(ValueError):
    """A flag or variable has a value that cannot be used. `str()` has one line per finding."""


def make_config(flags: Mapping[str, Any], environ: Mapping[str, str]) -> OperatorConfig:
    """The effective configuration. `flags` has what was given on the command line; None means not given.

    Raises ConfigError naming the flag or the variable that is wrong.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in OperatorConfig.model_fields:
        variable = ENV_PREFIX + name.upper()
        if flags.get(name) is not None:
            values[name], sources[name] = flags[name], "--" + name.replace("_", "-")
        elif environ.get(variable, "") != "":
            values[name], sources[name] = environ[variable], variable
    # What the downward API says of the pod stands behind both.
    values.setdefault("namespace", environ.get("POD_NAMESPACE") or DEFAULT_NAMESPACE)
    if environ.get("POD_NAME"):
        values.setdefault("identity", environ["POD_NAME"])
    unknown = sorted(set(flags) - set(OperatorConfig.model_fields))
    if unknown:
        raise ConfigError(f"unknown options: {', '.join(unknown)}")
    try:
        return OperatorConfig.model_validate(values)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            name = str(item["loc"][0]) if item["loc"] else ""
            lines.append(f"{sources.get(name, name) or 'options'}: {item['msg'].removeprefix('Value error, ')}")
        raise ConfigError("\n".join(lines)) from error
