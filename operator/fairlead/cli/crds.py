"""Print the CustomResourceDefinitions, or write them into a directory (--output-dir)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where they go."""
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="write one file per CRD there instead of printing"
    )


def run(arguments: argparse.Namespace) -> int:
    """0; 1 when a file cannot be written."""
    from fairlead.api.crd import make_crds
    from fairlead.rendering.write import to_yaml

    crds = list(make_crds())
    if arguments.output_dir is None:
        sys.stdout.write(to_yaml(crds))
        return 0
    try:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        for crd in crds:
            (arguments.output_dir / f"{crd['metadata']['name']}.yaml").write_text(to_yaml([crd]), encoding="utf-8")
    except OSError as error:
        print(f"fairlead crds: {error}", file=sys.stderr)
        return 1
    return 0
