"""Print the objects that the operator would apply for the given LLMDeployments and LLMRoutes, without a cluster.

What a route refers to is taken from the same input: LLMDeployments and Secrets. What is not there is assumed to be there and to
consent, and a note says so. The clients' keys are not printed.

Objects go to standard output as YAML; what is wrong goes to standard error, one line per finding
(`kind/name: spec.path: what is wrong; what would work`). Exit status: 0 all rendered, 1 something is invalid or not accepted (the
others are printed all the same), 2 a file is missing, empty, not YAML or without an LLMDeployment or LLMRoute.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from fairlead.cli._input import add_files, add_installation, read_files, split
from fairlead.config import OperatorConfig, make_config, parse_bytes_per_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, and what the operator's own installation adds to its decisions."""
    defaults = {name: info.default for name, info in OperatorConfig.model_fields.items()}
    add_files(parser)
    parser.add_argument("--operator-namespace", default=defaults["namespace"], help="namespace of the operator")
    parser.add_argument(
        "--monitoring-namespaces",
        default=",".join(defaults["monitoring_namespaces"]),
        help="as of fairlead run, comma-separated",
    )
    parser.add_argument("--download-bandwidth", default=defaults["download_bandwidth"], help="as of fairlead run")
    add_installation(parser)
    parser.add_argument("--prometheus-url", default="", help="as of fairlead run; KEDA asks it")
    parser.add_argument(
        "--kubernetes-version", help="check raw fields against this version's schemas (default: the newest known)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read everything first: input that is wrong as a whole prints nothing."""
    from fairlead.facts.observed import OperatorFacts
    from fairlead.rendering.raw import SchemasMissingError, choose_version
    from fairlead.rendering.render import render
    from fairlead.rendering.write import to_yaml

    documents, problems = read_files(arguments)
    try:
        facts = OperatorFacts(
            namespace=arguments.operator_namespace,
            monitoring_namespaces=split(arguments.monitoring_namespaces),
            download_bytes_per_s=parse_bytes_per_s(arguments.download_bandwidth),
            gateway_image=arguments.gateway_image,
            trusted_hosts=frozenset(split(arguments.trusted_hosts)),
            local_images=split(arguments.local_images),
            cluster_domain=arguments.cluster_domain,
            prometheus=make_config({"prometheus_url": arguments.prometheus_url or None}, {}).prometheus,
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
