"""Real engines for the local cluster: a CPU-only Ollama, built once from its Go module into the user's cache.

The simulator can only confirm what we believe about Ollama; the real one pulls, loads, streams and dies as it does in
production. `python -m fairlead_cluster.engines build` needs Go (found or installed) and a C and C++ compiler, no root and
no source checkout: everything comes pinned through the Go module proxy, also the headers that the module lacks
(`engines_gomodule/headers` says why).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairlead_cluster.build import say_on_stderr
from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.errors import BuildError, LocalClusterError
from fairlead_cluster.gobuild import Say, make_go_environment, run_go
from fairlead_cluster.gotoolchain import find_or_install_go

OLLAMA_VERSION = "0.17.4"
GOMODULES = Path(__file__).parent / "engines_gomodule"

_PACKAGE = "github.com/ollama/ollama"
_MINIAUDIO = "github.com/gen2brain/malgo"
_LDFLAGS = f"-s -w -X {_PACKAGE}/version.Version={OLLAMA_VERSION}"
#: Header in the include folder: (module that carries it, its path there).
_HEADERS = {
    "nlohmann/json.hpp": (_PACKAGE, "llama/json.hpp"),
    "stb/stb_image.h": (_PACKAGE, "llama/stb_image.h"),
    "miniaudio/miniaudio.h": (_MINIAUDIO, "miniaudio.h"),
}
# The single-file nlohmann/json has no separate header of forward declarations; the whole one serves as well.
_FORWARD_DECLARATIONS = '#include "json.hpp"\n'


def bin_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder to put on PATH: one name per engine that was built, pointing to the newest build."""
    return cache_dir(environ) / "engines" / "bin"


def find_ollama(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The Ollama built from the Go module as it is now, or None. A build of an older module does not count."""
    built = _built_directory(environ) / "ollama"
    return built if os.access(built, os.X_OK) else None


def build_ollama(environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr) -> Path:
    """Build Ollama unless it is there, and point `bin/ollama` to it; returns the binary.

    About 4 minutes on 2 idle cores. Raises BuildError with what is missing, or with the compiler's last words.
    """
    target = _built_directory(environ)
    with exclusive(target.with_name(f"{target.name}.lock"), lambda: say("another process builds Ollama: waiting")):
        if find_ollama(environ) is None:
            _build_into(target, environ, say)
        _point_to(bin_directory(environ) / "ollama", target / "ollama")
    return target / "ollama"


def cache_key(gomodules: Path = GOMODULES) -> str:
    """Changes exactly when something that goes into the binary changes: modules, sums, headers, flags, machine type."""
    digest = hashlib.sha256(
        f"{platform.system()} {platform.machine()}\n{_LDFLAGS}\n{sorted(_HEADERS.items())}\n".encode()
    )
    for name in ("ollama/go.mod", "ollama/go.sum", "headers/go.mod", "headers/go.sum"):
        data = (gomodules / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def _built_directory(environ: Mapping[str, str]) -> Path:
    return cache_dir(environ) / "engines" / f"ollama-{OLLAMA_VERSION}-{cache_key()}"


def _build_into(target: Path, environ: Mapping[str, str], say: Say) -> None:
    started = time.monotonic()
    say(f"building Ollama {OLLAMA_VERSION} for CPU once into {target}")
    say("about 4 minutes on 2 cores from nothing, and some 500 MB for Go's caches")
    _require_compilers(environ)
    go = find_or_install_go(cache_dir(environ), say)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.partial-"))
    try:
        headers = _collect_headers(go, partial / "include", environ, say)
        _compile(go, headers, partial / "ollama", environ, say)
        shutil.rmtree(headers)
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)  # only a broken one, without its binary, gets here
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"Ollama built in {time.monotonic() - started:.0f} s")


def _require_compilers(environ: Mapping[str, str]) -> None:
    """cgo's compilers, as go itself chooses them; BuildError if there is none."""
    for variable, default, words in (("CC", "gcc", "a C compiler"), ("CXX", "g++", "a C++ compiler")):
        command = (environ.get(variable) or default).split()[0]
        if shutil.which(command, path=environ.get("PATH")) is None:
            raise BuildError(f"Ollama needs {words}: there is no `{command}` on PATH (Debian, Ubuntu: apt install g++)")


def _collect_headers(go: Path, include: Path, environ: Mapping[str, str], say: Say) -> Path:
    """Lay the missing headers out in `include`, from modules whose sums `headers/go.sum` pins."""
    modules = sorted({module for module, _ in _HEADERS.values()})
    command = [str(go), "mod", "download", "-json", *modules]
    output = run_go(command, GOMODULES / "headers", make_go_environment(environ, cgo=False), say, "fetching headers")
    sources = {found["Path"]: Path(found["Dir"]) for found in _read_json_stream("\n".join(output))}
    for header, (module, path) in _HEADERS.items():
        (include / header).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sources[module] / path, include / header)
    (include / "nlohmann" / "json_fwd.hpp").write_text(_FORWARD_DECLARATIONS)
    return include


def _read_json_stream(text: str) -> list[dict[str, str]]:
    """JSON objects one after the other, as go prints them."""
    decoder = json.JSONDecoder()
    found: list[dict[str, str]] = []
    rest = text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def _compile(go: Path, headers: Path, output: Path, environ: Mapping[str, str], say: Say) -> None:
    module = GOMODULES / "ollama"
    environment = make_go_environment(environ, cgo=True)
    # Not through CGO_CXXFLAGS: those are part of Go's cache key, and the folder's name is another one each time.
    environment["CPATH"] = os.pathsep.join(filter(None, (str(headers), environ.get("CPATH"))))
    say("fetching the Go modules (about 250 MB unpacked if none is there yet)")
    packages = run_go([str(go), "list", "-deps", _PACKAGE], module, environment, say, "fetching modules")
    say(f"compiling at most {len(packages)} packages, llama.cpp among them, then linking")
    command = [str(go), "build", "-v", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(output), _PACKAGE]
    run_go(command, module, environment, say, "compiling")
    _check_version(output)


def _check_version(binary: Path) -> None:
    """BuildError unless the binary runs and calls itself what it must."""
    command = [str(binary), "--version"]
    # Nobody listens on port 1: it then says its own version instead of a server's.
    environment = {"OLLAMA_HOST": "127.0.0.1:1", "HOME": str(binary.parent)}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    if answer.returncode or OLLAMA_VERSION not in answer.stdout:
        said = (answer.stdout + answer.stderr).strip()
        raise BuildError(f"the Ollama that was built does not say that it is {OLLAMA_VERSION}: {said}")


def _point_to(link: Path, binary: Path) -> None:
    """Make `link` a relative symlink to `binary`, atomically: who starts an engine meanwhile gets the old or the new."""
    wanted = os.path.relpath(binary, link.parent)
    if link.is_symlink() and str(link.readlink()) == wanted:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(wanted)
    temporary.replace(link)


def main(arguments: Sequence[str] | None = None) -> int:
    """`build` makes the engines and prints their paths; `find` prints the ones that are there. 1 if there is none."""
    parser = argparse.ArgumentParser(prog="python -m fairlead_cluster.engines", description=main.__doc__)
    parser.add_argument("command", choices=["build", "find"])
    command = parser.parse_args(arguments).command
    try:
        binary = build_ollama() if command == "build" else find_ollama()
    except LocalClusterError as error:
        say_on_stderr(f"error: {error}")
        return 1
    if binary is None:
        say_on_stderr("no engine is built: run `make engines`")
        return 1
    print(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
