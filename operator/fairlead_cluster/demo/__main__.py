"""`make demo`: start the local cluster, tell a story on it, take everything down again."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fairlead_cluster.build import describe, find_or_build
from fairlead_cluster.cluster import require_linux
from fairlead_cluster.demo import story_route, story_scale, story_serve
from fairlead_cluster.demo.attached import AttachedCluster
from fairlead_cluster.demo.console import Console
from fairlead_cluster.demo.samples import prepared_samples
from fairlead_cluster.demo.story_serve import StoryFailedError
from fairlead_cluster.errors import LocalClusterError, UnsupportedPlatformError
from fairlead_cluster.node.options import Engines
from fairlead_cluster.supervisor import start_in_background, stop_in_background

STORIES = {"serve": story_serve.tell, "route": story_route.tell, "scale": story_scale.tell}
KEPT_DIRECTORY = Path(".localcluster")


def main() -> int:
    """Exit status: 0 when the story went as promised, 1 when not, 2 when it cannot be told here, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--story", choices=sorted(STORIES), default="serve")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running afterwards")
    parser.add_argument("--samples", type=Path, default=Path("manifests/samples"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # taken down as by Ctrl-C: nothing is left running
    try:
        require_linux()
        engines = Engines(os.environ.get("FAIRLEAD_ENGINES", Engines.AUTO))
        return run(arguments.story, arguments.samples, engines, keep=arguments.keep)
    except UnsupportedPlatformError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; everything was taken down", file=sys.stderr)
        return 130


def run(story: str, samples: Path, engines: Engines, *, keep: bool) -> int:
    """Tell one story on a cluster of its own."""
    console = Console()
    try:
        console.step("The control plane: found, or built once (about 6 minutes the first time)")
        console.say(describe(find_or_build(say=console.say)))
        with running_cluster(console, engines, keep=keep) as cluster:
            with prepared_samples(samples, cluster.kubectl, engines, console) as arguments:
                STORIES[story](cluster, console, arguments)
            if keep:
                print_usage(cluster, console)
            else:
                console.step("Take everything down")
    except (StoryFailedError, LocalClusterError) as error:
        console.fail(str(error))
        return 1
    console.say(f"done in {console.elapsed_s:.0f} s")
    return 0


@contextlib.contextmanager
def running_cluster(console: Console, engines: Engines, *, keep: bool) -> Iterator[AttachedCluster]:
    """The local cluster with the operator; ended afterwards unless kept. Kept ones live in `.localcluster`."""
    with contextlib.ExitStack() as cleanup:
        directory = KEPT_DIRECTORY.resolve()
        if not keep:
            directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="fairlead-demo-"))) / "cluster"
            cleanup.callback(stop_in_background, directory)
        console.step("Start the local cluster: etcd, API server, controllers, scheduler, three nodes, the operator")
        state = start_in_background(directory, operator=True, say=console.say, engines=engines)
        yield AttachedCluster(directory, state)


def print_usage(cluster: AttachedCluster, console: Console) -> None:
    """How to use the cluster that was left running."""
    console.step("The cluster is yours")
    console.say(f"export KUBECONFIG={cluster.kubeconfig}")
    console.say(f"alias kubectl={cluster.kubectl_binary}")
    console.say("kubectl get llmdep -o wide; kubectl describe llmdep; kubectl scale llmdep llama-8b --replicas=1")
    for model in story_serve.list_models(cluster):
        console.say(
            f"curl {cluster.service_url(story_serve.NAMESPACE, model.name, model.port)}/v1/models   # {model.name}"
        )
    console.say("make cluster-down   # ends it")


if __name__ == "__main__":
    sys.exit(main())
