"""The `ollama` command: its subcommands, what they print, and their exit codes."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from fairlead_sim.durations import parse_duration
from fairlead_sim.ollama.client import Client, ClientError
from fairlead_sim.ollama.human import human_bytes, human_time, table
from fairlead_sim.ollama.modelfile import ModelfileError, read_modelfile

Command = Callable[[Client, argparse.Namespace], None]


#: What the spinner of `run`, `stop` and `rm` leaves on stderr, also in a file: no newline comes before `Error:`.
_SPINNER = "\x1b[?25l\x1b[?2026h\x1b[?25l\x1b[1G\x1b[K\x1b[?25h\x1b[?2026l\x1b[2K\x1b[1G\x1b[?25h"


@contextmanager
def _spinner() -> Iterator[None]:
    """Around a load or an unload."""
    try:
        yield
    finally:
        print(_SPINNER, end="", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Refuses as cobra does: `Error: ...` and exit code 1."""

    def error(self, message: str) -> NoReturn:
        """End the process."""
        print(f"Error: {message}", file=sys.stderr)
        sys.exit(1)


def main(arguments: Sequence[str]) -> int:
    """`ollama ARGUMENTS`; the exit code."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.version:
        return show_version()
    if given.command is None:
        parser.print_help()
        return 0
    if given.command == "serve":
        from fairlead_sim.ollama import server

        return server.main()
    client = Client(os.environ)
    try:
        client.check_server()
        given.run(client, given)
    except (ClientError, ModelfileError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - nothing may be written at exit
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """All subcommands with the flags of the real ones."""
    parser = _Parser(prog="ollama", description="Large language model runner (simulated by fairlead-sim)")
    parser.add_argument("-v", "--version", action="store_true", help="Show version information")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, run: Command | None, *positional: str, aliases: Sequence[str] = ()) -> argparse.ArgumentParser:
        command = commands.add_parser(name, aliases=list(aliases))
        command.set_defaults(run=run, command=name)
        for argument in positional:
            command.add_argument(argument)
        return command

    add("serve", None, aliases=["start"])
    create_command = add("create", create, "model")
    create_command.add_argument("-f", "--file", default="Modelfile")
    create_command.add_argument("-q", "--quantize", default="")
    show_command = add("show", show, "model")
    for part in ("license", "modelfile", "parameters", "template", "system"):
        show_command.add_argument(f"--{part}", action="store_true")
    show_command.add_argument("-v", "--verbose", action="store_true")
    run_command = add("run", run, "model")
    run_command.add_argument("prompt", nargs="*")
    run_command.add_argument("--keepalive", default="")
    run_command.add_argument("--format", default="")
    run_command.add_argument("--think", nargs="?", const="true")
    run_command.add_argument("--dimensions", type=int, default=0)
    run_command.add_argument("--truncate", nargs="?", const="true")
    for switch in ("verbose", "insecure", "nowordwrap", "hidethinking"):
        run_command.add_argument(f"--{switch}", action="store_true")
    add("stop", stop, "model")
    for name, function in (("pull", pull), ("push", push)):
        add(name, function, "model").add_argument("--insecure", action="store_true")
    add("list", list_models, aliases=["ls"]).add_argument("prefix", nargs="?", default="")
    add("ps", ps).add_argument("prefix", nargs="?", default="")
    add("cp", copy, "source", "destination")
    add("rm", remove).add_argument("models", nargs="+")
    return parser


def show_version() -> int:
    """`ollama --version`: the server's version, and the command's own if that is another one."""
    from fairlead_sim.settings import read_settings

    own = read_settings(os.environ).ollama_version
    server = ""
    try:
        server = Client(os.environ).call("GET", "/api/version")["version"]
    except ClientError:
        print("Warning: could not connect to a running Ollama instance")
    if server:
        print(f"ollama version is {server}")
    if server != own:
        print(f"Warning: client version is {own}")
    return 0


def pull(client: Client, given: argparse.Namespace) -> None:
    """`ollama pull`: progress on stderr."""
    _show_progress(client.stream("/api/pull", {"model": given.model, "insecure": given.insecure}))


def push(client: Client, given: argparse.Namespace) -> None:
    """`ollama push`."""
    _show_progress(client.stream("/api/push", {"model": given.model, "insecure": given.insecure}))


def _show_progress(lines: Any) -> None:
    shown = ""
    for line in lines:
        text = str(line.get("status", ""))
        if line.get("digest") and line.get("total"):
            text = f"{text}: {100 * line.get('completed', 0) // line['total']:3d}% of {human_bytes(line['total'])}"
        if text != shown:
            print(text, file=sys.stderr, flush=True)
            shown = text


def list_models(client: Client, given: argparse.Namespace) -> None:
    """`ollama list`."""
    now = datetime.now(UTC)
    rows = [
        [model["name"], model["digest"][:12], human_bytes(model["size"]), human_time(model["modified_at"], now)]
        for model in client.call("GET", "/api/tags")["models"]
        if model["name"].lower().startswith(given.prefix.lower())
    ]
    print(table(["NAME", "ID", "SIZE", "MODIFIED"], rows), end="")


def ps(client: Client, given: argparse.Namespace) -> None:
    """`ollama ps`: what is loaded."""
    now = datetime.now(UTC)
    rows = []
    for model in client.call("GET", "/api/ps")["models"]:
        if not model["name"].startswith(given.prefix):
            continue
        expired = datetime.fromisoformat(model["expires_at"]) < now
        until = "Stopping..." if expired else human_time(model["expires_at"], now)
        context = str(model["context_length"])
        size = human_bytes(model["size"])
        rows.append([model["name"], model["digest"][:12], size, _processor(model), context, until])
    print(table(["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"], rows), end="")


def _processor(model: dict[str, Any]) -> str:
    size, on_gpu = model["size"], model["size_vram"]
    if on_gpu == 0:
        return "100% CPU"
    if on_gpu == size:
        return "100% GPU"
    if on_gpu > size or size == 0:
        return "Unknown"
    on_cpu = round((size - on_gpu) / size * 100)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def show(client: Client, given: argparse.Namespace) -> None:
    """`ollama show`: everything, or one part."""
    parts = [part for part in ("license", "modelfile", "parameters", "system", "template") if getattr(given, part)]
    if len(parts) > 1:
        raise ClientError(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified"
        )
    found = client.call("POST", "/api/show", {"model": given.model, "verbose": given.verbose})
    if parts:
        end = "" if parts[0] in ("system", "template") else "\n"
        print(found.get(parts[0], ""), end=end)
        return
    info = found["model_info"]
    architecture = str(info.get("general.architecture", ""))
    rows = [["architecture", architecture], ["parameters", found["details"]["parameter_size"]]]
    for label, key in (("context length", "context_length"), ("embedding length", "embedding_length")):
        if f"{architecture}.{key}" in info:
            rows.append([label, str(info[f"{architecture}.{key}"])])
    rows.append(["quantization", found["details"]["quantization_level"]])
    _section("Model", rows)
    _section("Capabilities", [[capability] for capability in found["capabilities"]])
    _section("Parameters", [line.split(None, 1) for line in found.get("parameters", "").splitlines()])
    for title in ("System", "License"):
        lines = [line.strip() for line in found.get(title.lower(), "").splitlines() if line.strip()]
        _section(title, [[line] for line in lines[:2]] + ([["..."]] if len(lines) > 2 else []))


def _section(title: str, rows: list[list[str]]) -> None:
    if rows:
        print(f"  {title}")
        print(table([], [["", *row] for row in rows]))


def run(client: Client, given: argparse.Namespace) -> None:
    """`ollama run`: pulls what is missing; without a prompt it loads the model; a prompt's answer goes to stdout."""
    said = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    prompt = " ".join([*([said] if said else []), *given.prompt])
    try:
        found = client.call("POST", "/api/show", {"model": given.model})
    except ClientError as error:
        if error.status != 404:
            raise
        pull(client, given)
        found = client.call("POST", "/api/show", {"model": given.model})
    keep_alive = {"keep_alive": given.keepalive} if _is_duration(given.keepalive) else {}
    if "embedding" in found["capabilities"]:
        _embed(client, given, prompt, keep_alive)
        return
    body = {"model": given.model, "prompt": prompt, "format": given.format or None} | keep_alive
    with _spinner():
        lines = client.stream("/api/generate", body)
        first = next(lines, {})
    for line in chain([first], lines):
        print(line.get("response", ""), end="", flush=True)
    if prompt:
        print("\n")


def _is_duration(text: str) -> bool:
    if not text:
        return False
    try:
        parse_duration(text)
    except ValueError as error:
        raise ClientError(str(error)) from error
    return True


def _embed(client: Client, given: argparse.Namespace, prompt: str, keep_alive: dict[str, Any]) -> None:
    if not prompt:
        raise ClientError(f'embedding models require input text. Usage: ollama run {given.model} "your text here"')
    body = {"model": given.model, "input": prompt, "dimensions": given.dimensions or None} | keep_alive
    print(json.dumps(client.call("POST", "/api/embed", body)["embeddings"][0], separators=(",", ":")))


def stop(client: Client, given: argparse.Namespace) -> None:
    """`ollama stop`: unload."""
    try:
        _unload(client, given.model)
    except ClientError as error:
        if "not found" in str(error):
            raise ClientError(f'couldn\'t find model "{given.model}" to stop') from error
        raise


def _unload(client: Client, model: str) -> None:
    with _spinner():
        client.call("POST", "/api/show", {"model": model})
        client.call("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})


def copy(client: Client, given: argparse.Namespace) -> None:
    """`ollama cp`."""
    client.call("POST", "/api/copy", {"source": given.source, "destination": given.destination})
    print(f"copied '{given.source}' to '{given.destination}'")


def remove(client: Client, given: argparse.Namespace) -> None:
    """`ollama rm`: unload and delete."""
    for model in given.models:
        try:
            _unload(client, model)
        except ClientError as error:
            if "not found" not in str(error) and "does not support" not in str(error):
                print(f"Warning: unable to stop model '{model}'", file=sys.stderr)
        client.call("DELETE", "/api/delete", {"model": model})
        print(f"deleted '{model}'")


def create(client: Client, given: argparse.Namespace) -> None:
    """`ollama create`: from a Modelfile, whose GGUF files are sent to the server as blobs."""
    if given.quantize:
        raise ClientError("the simulator does not quantize: leave --quantize out")
    path = Path(given.file)
    if not path.is_file():
        raise ClientError("specified Modelfile wasn't found")
    request, files = read_modelfile(path)
    digests = {}
    for file in files:
        with file.open("rb") as opened:
            digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
        try:
            client.call("HEAD", f"/api/blobs/{digest}")
        except ClientError as error:
            if error.status != 404:
                raise
            client.upload(f"/api/blobs/{digest}", file)
        digests[file.name] = digest
    body = request | {"model": given.model} | ({"files": digests} if digests else {})
    _show_progress(client.stream("/api/create", body))
