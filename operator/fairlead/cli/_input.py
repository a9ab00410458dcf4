"""What `render` and `explain` have in common: manifests in, and what an installation of the operator adds to its decisions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.config import OperatorConfig

if TYPE_CHECKING:
    from fairlead.rendering.documents import Document

#: As of fairlead run, with commas between several.
_OPTIONS = ("trusted_hosts", "local_images", "cluster_domain", "gateway_image")


def add_files(parser: argparse.ArgumentParser, *, with_namespace: bool = True) -> None:
    """Files, and the namespace of what names none where that matters."""
    parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        action="append",
        required=True,
        nargs="+",
        metavar="FILE",
        help="manifests; - is stdin",
    )
    if with_namespace:
        parser.add_argument(
            "-n", "--namespace", default="default", help="namespace of objects that name none (default: default)"
        )


def add_installation(parser: argparse.ArgumentParser, options: Sequence[str] = _OPTIONS) -> None:
    """Options of `fairlead run` that routes depend on."""
    for name in options:
        default = OperatorConfig.model_fields[name].default
        text = default if isinstance(default, str) else ",".join(default)
        what = "comma-separated, as of fairlead run" if not isinstance(default, str) else "as of fairlead run"
        parser.add_argument("--" + name.replace("_", "-"), default=text, metavar="VALUE", help=what)


def split(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def read_files(arguments: argparse.Namespace) -> tuple[list[Document], list[str]]:
    """What the files hold, and what is wrong with some of them as a whole."""
    from fairlead.rendering.documents import InputError, read_documents
    from fairlead.rendering.render import is_ours, is_route

    found: dict[str, list[Document]] = {}
    problems: list[str] = []
    for name in (name for names in arguments.files for name in names):
        source = "stdin" if name == "-" else name
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
            found.setdefault(source, []).extend(read_documents(text, source))
        except InputError as error:
            problems.append(str(error))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}")
    has_routes = any(is_route(document) for documents in found.values() for document in documents)
    for source, documents in found.items():
        # Beside a route a file of Secrets is of use.
        if not any(is_ours(document) or (has_routes and document.kind == "Secret") for document in documents):
            problems.append(f"{source}: holds no LLMDeployment or LLMRoute")
    return [document for documents in found.values() for document in documents], problems
