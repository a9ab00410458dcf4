"""The provider table of the docs, made from the data, so that it cannot say anything else."""

from __future__ import annotations

from fairlead.providers.definition import ProviderDefinition
from fairlead.providers.loader import ProviderCatalog

__all__ = ["make_provider_notes", "make_provider_table"]

_HEAD = ("`provider.type`", "address", "parameters", "serves", "Secret holds", "sent as", "next target on", "checked")


def make_provider_table(catalog: ProviderCatalog) -> str:
    """All providers as one Markdown table, sorted by name, with a line break at its end."""
    lines = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    lines += [_row(_cells(catalog.get(name))) for name in catalog.names]
    return "\n".join(lines) + "\n"


def make_provider_notes(catalog: ProviderCatalog) -> str:
    """What a user of each provider should know, as a Markdown list, sorted by name; providers without notes are left
    out. With a line break at its end."""
    lines = []
    for name in catalog.names:
        definition = catalog.get(name)
        sentences = list(definition.notes)
        if definition.unsupported is not None:
            sentences = [f"{definition.unsupported.reason}. Instead: {definition.unsupported.alternative}.", *sentences]
        if sentences:
            lines.append(f"- **{name}**: {' '.join(sentences)}")
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cells(definition: ProviderDefinition) -> list[str]:
    authentication = definition.authentication
    if definition.unsupported is not None:
        address = "cannot be used, see below"
    else:
        address = "<br>".join(f"`{entry.url}`" for entry in definition.base_urls) or "yours: `provider.baseURL`"
    sent = [f"`{authentication.header}: {authentication.prefix}…`"]
    sent += [f"`{item.header}: {item.prefix}…` (key `{item.secret_key}`)" for item in authentication.additional]
    sent += [f"`{name}: {value}`" for name, value in authentication.headers.items()]
    return [
        f"[{definition.name}]({definition.documentation})",
        address,
        "<br>".join(
            f"`{parameter.name}`{'' if parameter.required else ' (optional)'}, as `{parameter.example}`"
            for parameter in definition.parameters
        )
        or "–",
        ", ".join(operation.path.removeprefix("/v1/") for operation in definition.operations) or "–",
        authentication.credential,
        "<br>".join(sent),
        ", ".join(str(status) for status in sorted({*definition.quota.statuses, *definition.overload.statuses})),
        definition.verified.value,
    ]
