"""Provider files: read once, checked, looked up by the name that `provider.type` has in the CRD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

import yaml
from pydantic import ValidationError

from fairlead.providers.definition import ProviderDefinition

__all__ = ["ProviderCatalog"]


@lru_cache(maxsize=1)
def _builtin() -> ProviderCatalog:
    definitions: dict[str, ProviderDefinition] = {}
    for file in sorted(files("fairlead.providers").iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".yaml"):
            continue
        try:
            value = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            definition = ProviderDefinition.model_validate(value)
        except (yaml.YAMLError, ValidationError) as error:
            raise ValueError(f"providers/{file.name}: {error}") from error
        if f"{definition.name.lower()}.yaml" != file.name:
            # One file per name, and the file system keeps names apart: so no name is taken twice.
            raise ValueError(f"providers/{file.name}: is called {definition.name!r}")
        definitions[definition.name] = definition
    return ProviderCatalog(MappingProxyType(definitions))


@dataclass(frozen=True)
class ProviderCatalog:
    """The providers that come with fairlead, by name. Immutable."""

    definitions: Mapping[str, ProviderDefinition]

    @classmethod
    def builtin(cls) -> ProviderCatalog:
        """All providers of this release; read and checked at the first call. Raises ValueError with the
        file's name when one is broken, which the tests rule out."""
        return _builtin()

    @property
    def names(self) -> list[str]:
        """Names of all providers, sorted."""
        return sorted(self.definitions)

    def get(self, name: str) -> ProviderDefinition:
        """The provider of that name. Raises KeyError when there is none."""
        return self.definitions[name]
