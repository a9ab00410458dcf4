"""What serves it: the engine, its image, arguments, environment and files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from fairlead.api.base import ApiModel, Atomic, ListMap, RawItem, RawObject
from fairlead.api.model import ConfigMapKeyReference, SecretKeyReference


class ImagePullPolicy(StrEnum):
    """When the kubelet asks the registry for the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class EnvVar(TypedDict):
    """One environment variable as Kubernetes has it (core/v1 EnvVar): name and either value or valueFrom."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the variable; unique in this list. Required: it identifies the entry."""
    value: NotRequired[Annotated[str, Field(max_length=32768)]]
    """The value as plain text; never a secret, those go through valueFrom. Absent: valueFrom, or else empty."""
    valueFrom: NotRequired[RawObject]
    """Where the value comes from instead: a key of a Secret or ConfigMap, or a field of the pod. Absent: value."""


class EngineSpec(ApiModel):
    """The inference engine and its version."""

    type: Annotated[str, Field(min_length=1, max_length=63)]
    """The engine: vLLM, Ollama, or the name under which an administrator added one of his own (a ConfigMap labelled
    fairlead.dev/engine in the operator's namespace). Required."""
    version: Annotated[str | None, Field(max_length=64)] = None
    """Version of the engine, such as 0.33.0. It chooses the default image and which flags are rendered; with an image
    of your own whose tag does not say it, it says what is inside. Absent or empty: read from the tag of image, else the
    version that this release of fairlead was tested with."""
    image: Annotated[str | None, Field(max_length=512)] = None
    """Container image that runs instead of the engine's own, with tag or digest. Absent or empty: the engine's official
    image for the accelerator (CPU, CUDA or ROCm) at version."""
    image_pull_policy: ImagePullPolicy | None = None
    """When the node pulls the image: Always, IfNotPresent or Never. Absent: Kubernetes decides, Always for the tag
    latest and IfNotPresent otherwise."""
    args: Annotated[list[Annotated[str, Field(min_length=1, max_length=2048)]], Atomic, Field(max_length=128)] = Field(
        default_factory=list
    )
    """Further command line arguments of the engine, put last. One that repeats a field of this object is refused; one
    that repeats a default of fairlead replaces it. Host, port, served name and API keys belong to fairlead. Ollama
    takes none. Default: none."""
    env: Annotated[list[Annotated[dict[str, Any], RawItem(EnvVar)]], ListMap("name"), Field(max_length=256)] = Field(
        default_factory=list
    )
    """Further environment variables of the engine container as Kubernetes has them (core/v1 EnvVar, valueFrom
    included). One that repeats a default of fairlead replaces it; those that carry a field of this object are refused.
    Default: none."""
    env_from: Annotated[list[RawObject], Atomic, Field(max_length=32)] = Field(default_factory=list)
    """ConfigMaps and Secrets whose keys become environment variables, as Kubernetes has them (core/v1 EnvFromSource).
    Variables of fairlead and of env win over them. Default: none."""


class FileSpec(ApiModel):
    """One file in the engine container, from a key of a ConfigMap or of a Secret."""

    path: Annotated[str, Field(min_length=2, max_length=512)]
    """Absolute path of the file in the engine container, mounted read-only; unique in this list. Its directory is mounted
    as a whole and hides what the image has there, so give it one of its own. Required: it identifies the entry."""
    config_map_ref: ConfigMapKeyReference | None = None
    """Key of a ConfigMap whose text becomes the file. Absent: secretRef must be given; exactly one of both."""
    secret_ref: SecretKeyReference | None = None
    """Key of a Secret whose value becomes the file. Absent: configMapRef must be given; exactly one of both."""
