"""Print the objects that the operator would apply for the given LLMDeployments, without a cluster.

Objects go to standard output as YAML; what is wrong goes to standard error, one line per finding
(`kind/name: spec.path: what is wrong; what would work`). Exit status: 0 all rendered, 1 something is invalid (the valid ones
are printed all the same), 2 a file is missing, empty, not YAML or without an LLMDeployment.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from fairlead.config import OperatorConfig, parse_bytes_per_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, and what the operator's own installation adds to its decisions."""
    defaults = {name: info.default for name, info in OperatorConfig.model_fields.items()}
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
    parser.add_argument(
        "-n", "--namespace", default="default", help="namespace of objects that name none (default: default)"
    )
    parser.add_argument("--operator-namespace", default=defaults["namespace"], help="namespace of the operator")
    parser.add_argument(
        "--monitoring-namespaces",
        default=",".join(defaults["monitoring_namespaces"]),
        help="as of fairlead run, comma-separated",
    )
    parser.add_argument("--download-bandwidth", default=defaults["download_bandwidth"], help="as of fairlead run")
    parser.add_argument(
        "--kubernetes-version", help="check raw fields against this version's schemas (default: the newest known)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read everything first: input that is wrong as a whole prints nothing."""
    from fairlead.facts.observed import OperatorFacts
    from fairlead.rendering.documents import Document, InputError, read_documents
    from fairlead.rendering.raw import SchemasMissingError, choose_version
    from fairlead.rendering.render import is_ours, render
    from fairlead.rendering.write import to_yaml

    documents: list[Document] = []
    problems: list[str] = []
    for name in (name for names in arguments.files for name in names):
        try:
            found = read_documents(_read(name), "stdin" if name == "-" else name)
            if not any(is_ours(document) for document in found):
                raise InputError(f"{'stdin' if name == '-' else name}: holds no LLMDeployment")
            documents += found
        except InputError as error:
            problems.append(str(error))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}")
    try:
        facts = OperatorFacts(
            namespace=arguments.operator_namespace,
            monitoring_namespaces=tuple(part for part in arguments.monitoring_namespaces.split(",") if part),
            download_bytes_per_s=parse_bytes_per_s(arguments.download_bandwidth),
        )
        version = choose_version(arguments.kubernetes_version)
    except (ValueError, SchemasMissingError) as error:
        problems.append(str(error))
    if problems:
        print("\n".join(f"fairlead render: {problem}" for problem in problems), file=sys.stderr)
        return 2
    rendering = render(documents, arguments.namespace, facts, version, datetime.now(UTC))
    for note in rendering.notes:
        print(f"note: {note}", file=sys.stderr)
    for finding in rendering.findings:
        print(finding, file=sys.stderr)
    sys.stdout.write(to_yaml(rendering.objects))
    return 1 if rendering.findings else 0


def _read(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
