"""Tell which backends a request to an LLMRoute would be sent to, in which order, and why not to the others, without a cluster.

The route, and the LLMDeployments and Secrets that it refers to, are read from files as by `fairlead render`; what is not there is
assumed to be there and to consent, and a note on standard error says so. The class of a request is what the header (--class), the
route's default and, with --body, its detectors make of it; a body is read by the gateway's own classifier, for which the extra
`explain` must be installed.

Exit status: 0 the request is sent to some backend, 1 the gateway answers by itself (401, 403, 404, for a body also 400 and 413, and
503 when no backend is there), 2 the input cannot be used: files, a route that is not accepted, or options.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.cli._input import add_files, add_installation, read_files, split

if TYPE_CHECKING:
    from fairlead.rendering.documents import Document
    from fairlead.rendering.explain import Question
    from fairlead.rendering.routes import RenderedRoute

_CLASSES = ("Public", "Internal", "Confidential", "Restricted")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, and the request."""
    add_files(parser)
    parser.add_argument("--route", metavar="NAME", help="the LLMRoute, if the files hold several; also namespace/name")
    parser.add_argument("--model", help='what the caller sends as "model"; with --body the default is that of the body')
    parser.add_argument("--consumer", metavar="NAME", help="who calls, by a key (default: somebody without a key)")
    parser.add_argument(
        "--class",
        dest="declared",
        type=str.capitalize,
        choices=_CLASSES,
        metavar="CLASS",
        help=f"class that the caller declares in the header: {', '.join(_CLASSES)} (default: none)",
    )
    parser.add_argument("--body", metavar="FILE", help="the request's body, JSON; - is stdin")
    parser.add_argument(
        "--path", default="/v1/chat/completions", help="endpoint that is called (default: /v1/chat/completions)"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: text")
    add_installation(parser, ("trusted_hosts", "local_images"))


def run(arguments: argparse.Namespace) -> int:
    """Read everything first: input that is wrong prints no answer."""
    from fairlead.rendering.classifier import ClassifierMissingError
    from fairlead.rendering.explain import explain
    from fairlead.rendering.telling import to_json, to_text

    documents, problems = read_files(arguments)
    question = _read_question(arguments, problems)
    if problems or question is None:
        return _fail(problems)
    rendered = _find_route(documents, arguments, problems)
    if rendered is None:
        return _fail(problems)
    try:
        explained = explain(rendered, question)
    except ClassifierMissingError as error:
        return _fail([str(error)])
    if arguments.output == "json":
        sys.stdout.write(json.dumps(to_json(rendered, explained), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(to_text(rendered, explained))
    return 0 if explained.is_allowed else 1


def _fail(problems: Sequence[str]) -> int:
    print("\n".join(f"fairlead explain: {problem}" for problem in problems), file=sys.stderr)
    return 2


def _read_question(arguments: argparse.Namespace, problems: list[str]) -> Question | None:
    from fairlead.api.route import DataClass
    from fairlead.rendering.explain import Question

    body: bytes | None = None
    if arguments.body == "-" and any("-" in names for names in arguments.files):
        problems.append("stdin can be the manifests or the body, not both")
        return None
    if arguments.body is not None:
        try:
            body = sys.stdin.buffer.read() if arguments.body == "-" else Path(arguments.body).read_bytes()
        except OSError as error:
            problems.append(f"{arguments.body}: {error.strerror}")
            return None
    named = _find_model(body)
    if arguments.model is None and body is None:
        problems.append("--model is missing")
        return None
    if arguments.model is not None and named not in (None, arguments.model):
        problems.append(
            f"--model says {arguments.model}, and the body another one: the gateway reads the body, so leave --model out"
        )
        return None
    return Question(
        model=arguments.model or named or "",
        consumer=arguments.consumer,
        declared=DataClass(arguments.declared) if arguments.declared is not None else None,
        path=arguments.path,
        body=body,
    )


def _find_model(body: bytes | None) -> str | None:
    """Only to know what is asked for: the gateway's own text reads it strictly later."""
    try:
        content = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    model = content.get("model") if isinstance(content, dict) else None
    return model if isinstance(model, str) and model else None


def _find_route(
    documents: Sequence[Document], arguments: argparse.Namespace, problems: list[str]
) -> RenderedRoute | None:
    from fairlead.facts.observed import OperatorFacts
    from fairlead.rendering.render import render

    facts = OperatorFacts(
        trusted_hosts=frozenset(split(arguments.trusted_hosts)), local_images=split(arguments.local_images)
    )
    rendering = render(documents, arguments.namespace, facts, None, datetime.now(UTC))
    asked = arguments.route
    # What is wrong with another route is no matter here.
    own = f"LLMRoute/{asked.rpartition('/')[2]}: " if asked is not None else "LLMRoute/"
    problems += [f for f in rendering.findings if not f.startswith("LLMRoute/") or f.startswith(own)]
    if problems:
        return None
    names = {f"{r.route.metadata.namespace}/{r.route.metadata.name}": r for r in rendering.routes}
    wanted = [r for name, r in names.items() if asked in (None, name, r.route.metadata.name)]
    if len(wanted) != 1:
        known = f"the files hold the LLMRoutes {', '.join(names)}: say which by --route"
        problems.append(known if names else "the files hold no LLMRoute")
        return None
    for note in wanted[0].notes:
        print(f"note: {note}", file=sys.stderr)
    return wanted[0]
