"""Tables inside hand-written pages, between `<!-- generated: NAME -->` and `<!-- end -->`, from the code that they describe."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fairlead.config import ENV_PREFIX, OperatorConfig
from fairlead.providers.loader import ProviderCatalog
from fairlead.providers.table import make_provider_notes, make_provider_table
from hack.generate import rbac, rules, values

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/operations.md", "docs/monitoring.md", "docs/llmroute.md", "charts/fairlead/README.md")
_SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def make_options_table() -> str:
    """Every option of `fairlead run`."""
    rows = ["| Option | Variable | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, field in OperatorConfig.model_fields.items():
        default = field.get_default(call_default_factory=False)
        text = "" if default in (None, (), "") or field.default_factory else f"`{_show(default)}`"
        description = (field.description or "").replace("|", "\\|")
        rows.append(f"| `--{name.replace('_', '-')}` | `{ENV_PREFIX}{name.upper()}` | {text} | {description} |")
    return "\n".join(rows) + "\n"


def _show(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(str(item) for item in default)
    return str(default).lower() if isinstance(default, bool) else str(default)


SECTIONS: dict[str, Callable[[], str]] = {
    "rbac": rbac.make_table,
    "options": make_options_table,
    "alerts": rules.make_table,
    "values": values.make_table,
    "providers": partial(make_provider_table, ProviderCatalog.builtin()),
    "provider_notes": partial(make_provider_notes, ProviderCatalog.builtin()),
}


def generate() -> dict[str, str]:
    """The pages with their tables as they are now. Raises KeyError for a section that nobody makes."""
    return {page: fill((ROOT / page).read_text()) for page in PAGES}


def fill(text: str) -> str:
    """Replace what stands between the markers."""
    return _SECTION.sub(lambda match: f"{match[1]}\n{SECTIONS[match[2]]()}\n{match[3]}", text)
