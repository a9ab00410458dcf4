"""Which vendor a resource name belongs to, and how a node says which product it has. The facts are in accelerators.yaml."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["find_vendor", "make_product_terms"]


@lru_cache(maxsize=1)
def _facts() -> dict[str, Any]:
    text = (files("fairlead.hardware") / "accelerators.yaml").read_text(encoding="utf-8")
    facts: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return facts


def find_vendor(resource_name: str) -> str:
    """nvidia, amd, intel, or other."""
    for entry in _facts()["vendors"]:
        if re.fullmatch(entry["resource"], resource_name):
            return str(entry["vendor"])
    return "other"


def make_product_terms(resource_name: str, products: list[str]) -> list[dict[str, Any]]:
    """One node requirement per label key under which `products` may stand. A node that fulfils any of them will do:
    the planner makes a node selector term of each. Every key lists the products as written and under their other names.
    """
    vendor = find_vendor(resource_name)
    keys = _facts()["productLabels"][vendor] or [f"{resource_name.partition('/')[0]}/product"]
    wanted = set(products)
    for names in _facts()["productAliases"]:
        if wanted.intersection(names):
            wanted.update(names)
    return [{"key": key, "operator": "In", "values": sorted(wanted)} for key in keys]
