"""The images that the local cluster knows, and the programs that stand for what is in them.

Nothing is pulled: an image is an entry of a table (its entrypoint, default arguments, environment and user as in its
registry), and its programs are found on a search path: real engines in the cache, the host's programs, then shims that
exec the engine simulator. An image that the table does not know cannot be pulled, as one that no registry has.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairlead_cluster.node.envoy import ENTRYPOINT_PROGRAM, ENVOY_PATH, ENVOY_PROGRAM

_SOURCE_ROOT = Path(__file__).parents[2]
#: A tag that no image has, so that tests can ask for one that exists in name only.
MISSING_TAG = "missing"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"^(?P<repository>(?:[a-z0-9]+(?:[.-]+[a-z0-9]+)*(?::\d+)?/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[a-z0-9]+:[0-9a-f]{32,}))?$"
)


@dataclass(frozen=True, slots=True)
class Image:
    """What an image's configuration says. `user` as in the image: empty or "0" is root, digits a uid, else a name.

    programs: absolute paths of the image's own programs, and by which names they are found on the search path.
    has_shell: whether there are other programs beside them; without, `/bin/sh` fails as it does in a distroless image.
    reads_files: its program finds addresses and paths in mounted files: it gets copies (see `views`).
    asks_cluster_dns: its program asks the cluster's DNS (those of others ask the host's).
    """

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = "/"
    programs: Mapping[str, str] = field(default_factory=dict)
    has_shell: bool = True
    reads_files: bool = False
    asks_cluster_dns: bool = False


_PYTHON = "/usr/local/bin/python3"
_SHELL = Image(arguments=("/bin/sh",))
_VLLM = Image(
    entrypoint=("vllm", "serve"),
    env={"VLLM_USAGE_SOURCE": "production-docker-image"},
    working_dir="/vllm-workspace",
)
_OLLAMA = Image(
    entrypoint=("/bin/ollama",),
    arguments=("serve",),
    env={"OLLAMA_HOST": "0.0.0.0:11434"},  # the image's own; the process gets its pod's address
    programs={"/bin/ollama": "ollama", "/usr/bin/ollama": "ollama"},
)
_ENVOY_ENTRYPOINT = "/docker-entrypoint.sh"
# From distribution/docker/Dockerfile-envoy of Envoy 1.40. The file /etc/envoy/envoy.yaml of the images is not here.
_ENVOY = Image(
    entrypoint=(_ENVOY_ENTRYPOINT,),
    arguments=("envoy", "-c", "/etc/envoy/envoy.yaml"),
    programs={_ENVOY_ENTRYPOINT: ENTRYPOINT_PROGRAM, ENVOY_PATH: ENVOY_PROGRAM},
    reads_files=True,
    asks_cluster_dns=True,
)
_ENVOY_DISTROLESS = Image(
    entrypoint=(ENVOY_PATH,),
    arguments=("-c", "/etc/envoy/envoy.yaml"),
    user="65532",  # of its base, distroless' :nonroot
    programs={ENVOY_PATH: ENVOY_PROGRAM},
    has_shell=False,
    reads_files=True,
    asks_cluster_dns=True,
)
#: By repository, or by repository and tag.
IMAGES: Mapping[str, Image] = {
    "envoyproxy/envoy:distroless-v1.40*": _ENVOY_DISTROLESS,
    "envoyproxy/envoy:v1.40*": _ENVOY,
    "vllm/vllm-openai*": _VLLM,
    "public.ecr.aws/*/vllm-cpu-release-repo": _VLLM,
    "rocm/vllm*": Image(arguments=("/bin/bash",), env=_VLLM.env),
    "ollama/ollama*": _OLLAMA,
    "busybox*": _SHELL,
    "alpine*": _SHELL,
    "registry.k8s.io/pause": Image(entrypoint=("sleep", "infinity"), user="65535:65535"),
    "fairlead.test/shell": _SHELL,
    "fairlead.test/nonroot": Image(arguments=("/bin/sh",), user="1000"),
    "fairlead.test/named-user": Image(arguments=("/bin/sh",), user="app"),
    "fairlead.test/python": Image(arguments=(_PYTHON,), programs={_PYTHON: sys.executable}),
}


class InvalidImageNameError(ValueError):
    """The reference does not parse."""


class ImageNotFoundError(LookupError):
    """No such image."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A parsed reference; `repository` without the default registry (`docker.io/library/`)."""

    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """InvalidImageNameError if it is not a reference."""
        match = _REFERENCE.match(text)
        if match is None:
            raise InvalidImageNameError(
                f'Failed to apply default image tag "{text}": couldn\'t parse image name "{text}": '
                "invalid reference format"
            )
        repository = match["repository"].removeprefix("docker.io/").removeprefix("library/")
        return cls(repository, match["tag"] or "", match["digest"] or "")


def find_image(reference: ImageReference, more: Mapping[str, Image]) -> Image:
    """The image of a reference: first by `more`, then by IMAGES. ImageNotFoundError as a registry would answer."""
    if reference.tag != MISSING_TAG:
        tagged = f"{reference.repository}:{reference.tag or 'latest'}"
        for pattern, image in {**more, **IMAGES}.items():
            if fnmatch.fnmatchcase(tagged if _has_tag(pattern) else reference.repository, pattern):
                return image
    name = reference.repository if "/" in reference.repository else f"library/{reference.repository}"
    full = name if "." in name.split("/")[0] else f"docker.io/{name}"
    full += f"@{reference.digest}" if reference.digest else f":{reference.tag or 'latest'}"
    raise ImageNotFoundError(f'failed to pull and unpack image "{full}": failed to resolve image: {full}: not found')


def _has_tag(pattern: str) -> bool:
    return ":" in pattern.rsplit("/", 1)[-1]


def default_pull_policy(reference: ImageReference) -> str:
    """What the API server fills in: Always for `latest` and no tag, else IfNotPresent."""
    return "Always" if reference.tag in ("", "latest") and not reference.digest else "IfNotPresent"


def write_shims(directory: Path) -> None:
    """Programs named like the engines that exec the simulator with this interpreter."""
    directory.mkdir(parents=True, exist_ok=True)
    for engine in ("vllm", "ollama"):
        shim = directory / engine
        shim.write_text(
            f"#!/bin/sh\nexec env PYTHONPATH='{_SOURCE_ROOT}' '{sys.executable}' -m fairlead_sim {engine} \"$@\"\n"
        )
        shim.chmod(0o755)
