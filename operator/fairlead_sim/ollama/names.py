"""Model names: `[[scheme://]host/][namespace/]model[:tag]`, their validity, short form and place on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_PATTERNS = {
    "host": re.compile(r"\w[\w.:-]{0,349}", re.ASCII),
    "namespace": re.compile(r"\w[\w-]{0,79}", re.ASCII),
    "model": re.compile(r"\w[\w.-]{0,79}", re.ASCII),
    "tag": re.compile(r"\w[\w.-]{0,79}", re.ASCII),
}


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A name with all its parts; not necessarily a valid one."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def is_valid(self) -> bool:
        """Whether every part is what Ollama accepts."""
        return all(pattern.fullmatch(getattr(self, part)) for part, pattern in _PATTERNS.items())

    @property
    def short(self) -> str:
        """As it is shown: without the default host and namespace, always with the tag."""
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The path below `manifests`."""
        return self.host, self.namespace, self.model, self.tag


def parse_name(text: str) -> ModelName:
    """The parts of a name; missing ones are the defaults. Whether it is valid, `is_valid` says."""
    rest, tag = text, ""
    if text.rfind(":") > text.rfind("/"):
        rest, _, tag = text.rpartition(":")
        tag = tag or "?"
    # A scheme is accepted and has no effect: only `insecure` decides how the registry is spoken to.
    rest = rest.rpartition("://")[2]
    *front, model = rest.split("/")
    namespace = front.pop() or "?" if front else DEFAULT_NAMESPACE
    host = "/".join(front) or "?" if front else DEFAULT_HOST
    return ModelName(host, namespace, model, tag or DEFAULT_TAG)
