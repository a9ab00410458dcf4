"""The samples as the demo applies them: as they are, or with a registry on this host where a real Ollama runs in the pods.

A real Ollama really pulls. The demo must neither need the internet nor take gigabytes from it, so a stand-in of Ollama's
registry serves a tiny generated model under the sample's name, and the sample's source names that registry.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fairlead_cluster.demo.console import Console
from fairlead_cluster.engines import find_ollama
from fairlead_cluster.kubectl import Kubectl
from fairlead_cluster.node.options import Engines
from fairlead_cluster.registry import Registry
from fairlead_cluster.tinymodel import write_tiny_model

OLLAMA_SCHEME = "ollama://"


@contextlib.contextmanager
def prepared_samples(samples: Path, kubectl: Kubectl, engines: Engines, console: Console) -> Iterator[tuple[str, ...]]:
    """Arguments for `kubectl apply`. The registry, where there is one, serves as long as the context is open."""
    if engines is Engines.SIMULATED or not (find_ollama() or shutil.which("ollama")):
        console.say("engines: the simulator, with the engines' own HTTP surfaces (`make engines` builds a real Ollama)")
        yield ("-k", str(samples))
        return
    console.say(
        "engines: a real Ollama; it pulls a tiny generated model, which talks nonsense, from a registry on this host"
    )
    with contextlib.ExitStack() as cleanup:
        directory = kubectl.kubeconfig.parent / "demo"
        directory.mkdir(exist_ok=True)
        model = write_tiny_model(directory / "tiny.gguf")
        registry = cleanup.enter_context(Registry())
        objects = list(yaml.safe_load_all(kubectl("kustomize", str(samples))))
        for resource in objects:
            redirect(resource, registry, model)
        rendered = directory / "samples.yaml"
        rendered.write_text(yaml.safe_dump_all(objects, sort_keys=False))
        yield ("-f", str(rendered))


def redirect(resource: dict[str, Any], registry: Registry, model: Path) -> None:
    """Point an Ollama model at the registry, after publishing the tiny model there under the same name."""
    spec = resource["spec"]
    source: str = spec["model"]["source"]
    if not source.startswith(OLLAMA_SCHEME):
        return
    name = f"library/{source.removeprefix(OLLAMA_SCHEME)}"
    registry.publish(name, model)
    spec["model"]["source"] = f"{OLLAMA_SCHEME}{registry.address}/{name}"
    spec["engine"]["env"] = [{"name": "FAIRLEAD_PULL_INSECURE", "value": "1"}]
