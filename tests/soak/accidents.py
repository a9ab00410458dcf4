"""What happens to the operator itself in a soak: replicas die, are stopped or freeze, and the network between them and the API server
fails in each way that a network has. All is mended at the end of a round."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from tests.soak.relay import Mode, Relay
from tests.soak.vitals import read_page

from fairlead_cluster.cluster import LocalCluster
from fairlead_cluster.processes import ManagedProcess

REPLICAS = ("one", "two")
#: Longer than the Lease lives, so that the other replica leads when the frozen one wakes and believes that it still does.
FREEZE_S = 18.0
_OUTAGE_S = (1.0, 4.0)


class Accidents:
    """Runs two replicas, each behind its own relay."""

    def __init__(self, cluster: LocalCluster, chance: random.Random) -> None:
        self.count: Counter[str] = Counter()
        self.processes: dict[str, ManagedProcess] = {}
        self._cluster = cluster
        self._chance = chance
        self._relays = {name: Relay(cluster.control_plane.server_url) for name in REPLICAS}
        self.api_away: list[tuple[datetime, datetime]] = []  # while it starts, an API server knows nobody's rights yet
        self._frozen_until: dict[str, float] = {}

    def start(self) -> None:
        """Start whoever does not run."""
        for name in REPLICAS:
            if name not in self.processes or not self.processes[name].is_running():
                path = self._cluster.directory / f"{name}.kubeconfig"
                self._relays[name].kubeconfig(self._cluster.operator_kubeconfig, path)
                environment = {"KUBECONFIG": str(path)}
                self.processes[name] = self._cluster.start_operator(["--log-level=debug"], environment, name=name)

    def happen(self, *, may_kill: bool) -> str:
        """One accident; returns it in a few words. Of two replicas one is hit, the leader more often."""
        accidents: list[tuple[Callable[[str], str], int]] = [
            (self._cut, 3),
            (self._refuse, 2),
            (self._hole, 2),
            (self._slow, 2),
        ]
        if may_kill:
            accidents += [(self._kill, 3), (self._stop, 3), (self._freeze, 1), (self._restart_api, 1)]
        (accident,) = self._chance.choices([one for one, _ in accidents], [weight for _, weight in accidents])
        hits_leader = self._chance.random() < 0.75
        leader = self.leader() or REPLICAS[0]
        victim = leader if hits_leader else next(name for name in REPLICAS if name != leader)
        self.count[accident.__name__.removeprefix("_")] += 1
        return accident(victim)

    def mend(self) -> None:
        """Everybody runs and is connected again."""
        for name, until in list(self._frozen_until.items()):
            time.sleep(max(0.0, until - time.monotonic()))
            self.processes[name].send(signal.SIGCONT)
            del self._frozen_until[name]
        for relay in self._relays.values():
            relay.be(Mode.OPEN)
        self.start()
        for name in REPLICAS:
            self._cluster.wait_for_operator(name, 120.0)

    def leader(self) -> str | None:
        """Who works now; None when nobody says so."""
        for name in REPLICAS:
            try:
                if read_page(self._cluster.operator_url(name), "/debug/queue")["leading"]:
                    return name
            except (OSError, KeyError):
                continue
        return None

    def close(self) -> None:
        """End the relays."""
        for relay in self._relays.values():
            relay.close()

    def _kill(self, victim: str) -> str:
        self._thaw(victim)
        self._cluster.stop_operator(victim, kill=True)
        return f"SIGKILL for {victim}"

    def _stop(self, victim: str) -> str:
        self._thaw(victim)
        self._cluster.stop_operator(victim)
        return f"SIGTERM for {victim}"

    def _freeze(self, victim: str) -> str:
        self.processes[victim].send(signal.SIGSTOP)
        self._frozen_until[victim] = time.monotonic() + FREEZE_S
        return f"{victim} frozen"

    def _thaw(self, victim: str) -> None:
        if self._frozen_until.pop(victim, None) is not None:
            self.processes[victim].send(signal.SIGCONT)

    def _restart_api(self, _: str) -> str:
        """The controller manager with it, as when their machine fails. One that lives through it does not always see that an owner
        was deleted and made anew while its watch was down, and then leaves the old one's dependents for ever (seen with 1.36)."""
        plane = self._cluster.control_plane
        began = datetime.now(UTC)
        plane.process("kube-apiserver").kill()
        plane.start_again("kube-apiserver")
        plane.wait_until_ready(120.0)
        plane.process("kube-controller-manager").kill()
        plane.start_again("kube-controller-manager")
        self.api_away.append((began, datetime.now(UTC)))
        return "API server and controllers killed and started again"

    def _cut(self, victim: str) -> str:
        self._relays[victim].cut()
        return f"connections of {victim} cut"

    def _refuse(self, victim: str) -> str:
        return self._outage(victim, Mode.REFUSING)

    def _hole(self, victim: str) -> str:
        return self._outage(victim, Mode.BLACK_HOLE)

    def _slow(self, victim: str) -> str:
        self._relays[victim].be(Mode.SLOW)  # until the end of the round
        return f"network of {victim} slow"

    def _outage(self, victim: str, mode: Mode) -> str:
        self._relays[victim].be(mode)
        time.sleep(self._chance.uniform(*_OUTAGE_S))
        self._relays[victim].be(Mode.OPEN)
        return f"network of {victim} was {mode}"
