"""Print manifests with a gateway sidecar in the pods that are labelled fairlead.dev/gateway=<route>.

For clusters without MutatingAdmissionPolicy (before Kubernetes 1.36): what the policy adds to pods when they are made is added to Pods,
Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs here. Everything else is printed as it was. Doing it again
changes nothing, and brings the sidecar of an earlier release up to this one.

Exit status: 0 done, 1 a label names no route (that object is printed without a sidecar), 2 a file is missing, empty or not YAML.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairlead.cli._input import add_files, add_installation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, and the sidecar's image."""
    add_files(parser, with_namespace=False)
    add_installation(parser, ("gateway_image",))


def run(arguments: argparse.Namespace) -> int:
    """Read everything first: input that is wrong as a whole prints nothing."""
    from fairlead.rendering.documents import InputError
    from fairlead.rendering.inject import inject

    found, problems = [], []
    for name in (name for names in arguments.files for name in names):
        source = "stdin" if name == "-" else name
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
            found.append(inject(text, source, arguments.gateway_image))
        except InputError as error:
            problems.append(str(error))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}")
    if problems:
        print("\n".join(f"fairlead inject: {problem}" for problem in problems), file=sys.stderr)
        return 2
    findings = [finding for injected in found for finding in injected.findings]
    if not findings and not any(injected.objects for injected in found):
        print("note: no pod is labelled fairlead.dev/gateway, so nothing was added", file=sys.stderr)
    for finding in findings:
        print(finding, file=sys.stderr)
    for number, injected in enumerate(found):
        is_begun = number == 0 or injected.text.startswith("---")
        sys.stdout.write(injected.text if is_begun else f"---\n{injected.text}")
    return 1 if findings else 0
