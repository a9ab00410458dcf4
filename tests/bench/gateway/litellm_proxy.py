"""LiteLLM's proxy, the gateway that most people would take instead: installed for this bench only, into an environment of its own.

Where it cannot be had, the bench says why and goes on without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.bench.gateway.routes import KEY

from fairlead_cluster.cache import cache_dir, exclusive
from fairlead_cluster.ports import free_ports
from fairlead_cluster.processes import ManagedProcess, spawn

__all__ = ["VERSION", "Unavailable", "install", "start"]

#: Of the versions which a plain `pip install` can still make whole, the newest when this was written.
VERSION: Final = "1.106.12"
_INSTALL_TIMEOUT_S: Final = 900


class Unavailable(Exception):
    """It cannot be installed or does not start here; the text says why."""


def install() -> Path:
    """Its command, from the cache or by pip from the index that pip is configured for. Raises Unavailable."""
    home = cache_dir() / "bench-litellm"
    environment = home / VERSION
    command = environment / "bin" / "litellm"
    with exclusive(home / "lock", lambda: print("waiting for another install of LiteLLM", flush=True)):
        if (environment / "complete").exists():
            return command
        shutil.rmtree(environment, ignore_errors=True)
        print(f"installing LiteLLM {VERSION} into the cache", flush=True)
        try:
            for step in (
                [sys.executable, "-m", "venv", environment],
                [environment / "bin" / "pip", "install", "--quiet", f"litellm[proxy]=={VERSION}"],
            ):
                subprocess.run(
                    [str(part) for part in step], check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S
                )
        except subprocess.CalledProcessError as error:
            last = (error.stderr or error.stdout or "").strip().splitlines()[-1:] or ["pip said nothing"]
            raise Unavailable(f"LiteLLM {VERSION} cannot be installed: {last[0]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"LiteLLM {VERSION} cannot be installed: {type(error).__name__}") from error
        (environment / "complete").touch()
    return command


def start(command: Path, directory: Path, backend_port: int, model: str) -> tuple[ManagedProcess, int]:
    """A proxy with one worker, one model, one key, no database and no log lines; and its port. It does less than the gateway."""
    (port,) = free_ports(1)
    directory.mkdir(parents=True)
    parameters = {"model": "openai/a-model", "api_base": f"http://127.0.0.1:{backend_port}/v1", "api_key": "a-key"}
    config = {
        "model_list": [{"model_name": model, "litellm_params": parameters}],
        "general_settings": {"master_key": KEY},
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    environment = {
        **kept,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices at its start
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "NO_PROXY": "*",
    }
    line: list[str | Path] = [
        command,
        "--config",
        path,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    line += ["--telemetry", "False"]
    return spawn("litellm", line, directory / "log", env=environment, cwd=directory), port
