"""Brokers of a walk: one behind a proxy, or three of which each partition is on all."""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tests.brokers import KafkaBroker, new_cluster
from tests.walk.proxy import Proxy
from tracker.demo.processes import free_port

ONE = """\
listeners=PLAINTEXT://127.0.0.1:{port},SLOW://127.0.0.1:{target},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SLOW://127.0.0.1:{proxy}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SLOW:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.quorum.voters=1@127.0.0.1:{controller}
"""

THREE = """\
node.id={node}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.quorum.voters={voters}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
controlled.shutdown.enable=true
"""


class Brokers:
    """The brokers of a walk, in processes that can be killed.

    Attributes:
        all: the brokers.
        address: of them all, for those who are not disturbed.
        workers_address: the same for the workers.
        proxy: before the only broker; None if there are three.
        wounded: numbers of brokers that do not run.
    """

    def __init__(self, folder: Path, count: int) -> None:
        """Format the brokers, or take up those of an interrupted walk."""
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "ports.json"
        if not known.exists():
            plan = {
                "ports": [free_port() for _ in range(count)],
                "controllers": [free_port() for _ in range(count)],
                "proxy": free_port(),
                "cluster": new_cluster(),
            }
            known.write_text(json.dumps(plan))
        plan = json.loads(known.read_text())
        self.proxy = Proxy(plan["proxy"]) if count == 1 else None
        voters = ",".join(
            f"{node}@127.0.0.1:{port}" for node, port in enumerate(plan["controllers"], 1)
        )
        self.all = []
        for node, port in enumerate(plan["ports"], 1):
            controller = plan["controllers"][node - 1]
            extra = (
                THREE.format(node=node, port=port, controller=controller, voters=voters)
                if self.proxy is None
                else ONE.format(
                    port=port,
                    target=self.proxy.target,
                    proxy=self.proxy.port,
                    controller=controller,
                )
            )
            self.all.append(KafkaBroker(folder / f"kafka-{node}", port, extra, plan["cluster"]))
        self.address = ",".join(broker.address for broker in self.all)
        self.workers_address = (
            self.address if self.proxy is None else f"127.0.0.1:{self.proxy.port}"
        )
        self.wounded: set[int] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator["Brokers"]:
        """Start all, and end them with the block."""
        with contextlib.ExitStack() as stack:
            if self.proxy is not None:
                stack.enter_context(self.proxy)
            for broker in self.all:
                stack.callback(broker.stop)
                if len(self.all) == 1:
                    broker.start()
                else:
                    broker.begin()
            for broker in self.all:
                broker.wait()
            yield self

    def kill_one(self, chance: random.Random) -> int:
        """Kill a broker as a power failure would, and return its number."""
        number = chance.randrange(len(self.all))
        self.all[number].kill()
        self.wounded.add(number)
        return number

    def restart(self, number: int) -> None:
        """Start a broker again."""
        self.all[number].start()
        self.wounded.discard(number)
