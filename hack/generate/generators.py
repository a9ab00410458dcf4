"""The list of generators, shared by `make generate` and by the test that nothing is stale."""

from __future__ import annotations

from hack.generate import admission, argocd, conditions, crds, docs, monitoring, rbac, reference, sidecars

GENERATORS = (
    crds.generate,
    rbac.generate,
    admission.generate,
    sidecars.generate,
    argocd.generate,
    monitoring.generate,
    conditions.generate,
    reference.generate,
    docs.generate,
)


def generate_all() -> dict[str, str]:
    """Path from the repository's root to text, for all generated files. Raises ValueError when two claim one file."""
    files: dict[str, str] = {}
    for generate in GENERATORS:
        produced = generate()
        if twice := files.keys() & produced.keys():
            raise ValueError(f"generated twice: {', '.join(sorted(twice))}")
        files |= produced
    return files
