"""The life of the lab: start what is missing, reboot a machine, remove everything."""

from __future__ import annotations

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mpqlab import cgroup, machine_links, namespaces, network, nics, services, ssh, topology
from mpqlab.bare import BareNode
from mpqlab.errors import LabError
from mpqlab.image import Image
from mpqlab.lock import locked
from mpqlab.machine import STORAGE, Machine
from mpqlab.mounts import remove_tree
from mpqlab.qemu import QemuMachine
from mpqlab.run import SERVICES, run
from mpqlab.state import Process, State
from mpqlab.topology import CLIENT, LAB_NAME, MACHINES, NAMESPACE_PREFIX, NODES, SUITES, namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpqlab.progress import Progress

NSPAWN = "nspawn"
QEMU = "qemu"
CLIENTS = (NSPAWN, QEMU)
"""What runs the client: a machine of the controller's kernel, or one with a kernel of its own."""


class Lab:
    """One lab on one controller."""

    def __init__(self, progress: Progress, state: State | None = None) -> None:
        self.state = state or State()
        self.progress = progress
        self.machines = {name: Machine(name, self.state) for name in MACHINES}
        if self.own_kernel:
            self.machines[CLIENT] = QemuMachine(CLIENT, self.state, progress)
        self.bare = BareNode()

    @property
    def suite(self) -> str | None:
        """The Debian suite of the running lab, None when none was started."""
        suite = self.state.read("lab").get("suite")
        return suite if isinstance(suite, str) else None

    @property
    def client(self) -> str:
        """What runs the client of the running lab, or would run it: one of `CLIENTS`."""
        return str(self.state.read("lab").get("client", NSPAWN))

    @property
    def own_kernel(self) -> bool:
        """Whether the client has a kernel of its own."""
        return self.client == QEMU

    @property
    def complete(self) -> bool:
        """Whether an `up` has come to its end since the last `down`, and its namespaces are still there."""
        return bool(self.state.read("lab").get("complete")) and all(network.namespace_exists(node) for node in NODES)

    def require(self) -> None:
        """Check that the lab is up.

        Raises:
            LabError: it isn't, or its devices have other names than the environment says.
        """
        if not self.complete:
            raise LabError("the lab isn't up: start it with `mpqlab up`")
        self.require_names()

    def require_names(self) -> None:
        """Check that a lab which is up has the device names that this process reckons with.

        Raises:
            LabError: it hasn't.
        """
        record = self.state.read("lab")
        scheme = record.get("nics", nics.REFERENCE)
        if record.get("complete") and scheme != topology.NICS_SCHEME:
            raise LabError(
                f"the lab's devices have the names of {nics.VARIABLE}={scheme}, and the environment says "
                f"{topology.NICS_SCHEME}: set {nics.VARIABLE} to {scheme} or leave it out"
            )

    def exclusively(self) -> contextlib.AbstractContextManager[None]:
        """Keep other commands that change this lab out until the block ends."""
        return locked(LAB_NAME, lambda: self.progress.say("waiting for another mpqlab command"))

    def up(self, suite: str | None, *, access: ssh.Access | None = None, client: str | None = None) -> bool:
        """Start what isn't running. What a person has changed (cut, unplugged, renumbered) stays changed.

        With `access` the machines get an ssh way in, also those that run already. `client` is one of `CLIENTS`; under
        qemu there is no way in but ssh.

        Returns:
            Whether there was anything to start.

        Raises:
            LabError: the lab runs another suite or client, or a part doesn't start.
        """
        if self.complete:
            self.require_names()
            if suite not in {None, self.suite}:
                raise LabError(f"the lab runs {self.suite}: `mpqlab down` first, then `mpqlab up --suite {suite}`")
            if client not in {None, self.client}:
                raise LabError(
                    f"the client runs in {self.client}: `mpqlab down` first, then `mpqlab up --client {client}`"
                )
            for machine in self.machines.values():
                if machine.leader is None:
                    machine.kill()
                    self._renew_network(machine.name)
        else:
            self._build(suite or SUITES[0], client or NSPAWN)
        if self.own_kernel and access is None and not self.state.read("ssh"):
            access = ssh.Access()
        opened = access is not None and ssh.set_up(self.state, self.machines, access)
        tags = machine_links.tagging(own_kernel=self.own_kernel) is machine_links.Tagging.PROGRAM
        started = services.start_all(self.state, tags=tags)
        booting = [machine for machine in self.machines.values() if machine.leader is None]
        if booting:
            with self.progress.step(f"booting {', '.join(machine.name for machine in booting)}"):
                self._boot(booting)
        self._record(self.suite, self.client, complete=True)
        return opened or started or bool(booting)

    def _record(self, suite: str | None, client: str, *, complete: bool) -> None:
        record = {"suite": suite, "client": client, "complete": complete, "nics": topology.NICS_SCHEME}
        self.state.write("lab", record)

    def _build(self, suite: str, client: str) -> None:
        """Make namespaces and root file systems, after removing what an interrupted run has left."""
        self.down()
        kind = QemuMachine(CLIENT, self.state, self.progress) if client == QEMU else Machine(CLIENT, self.state)
        self.machines[CLIENT] = kind
        image = Image(suite)
        image.build(self.progress)
        self.state.create()
        self._record(suite, client, complete=False)
        namespaces.note_mount()
        with self.progress.step("making namespaces and links"):
            network.create_all_namespaces()
            for machine in self.machines.values():
                machine_links.connect_machine(machine.name, own_kernel=isinstance(machine, QemuMachine))
        with self.progress.step("making the machines' root file systems"), ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.create(image), self.machines.values()))
            self.bare.create(image)

    def _boot(self, machines: list[Machine]) -> None:
        def boot(machine: Machine) -> None:
            machine.power_on()
            if machine.wait_until_up() == "degraded":
                failed = run(machine.enter(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]))
                units = ", ".join(line.split()[0] for line in failed.splitlines())
                self.progress.say(f"  {machine.name} has failed units: {units}")

        with ThreadPoolExecutor() as pool:
            list(pool.map(boot, machines))

    def reboot(self, name: str, *, pull_the_plug: bool = False) -> None:
        """Power a machine off, take everything away that a kernel forgets, and boot it again."""
        machine = self.machines[name]
        ssh.close_connections(self.state)
        with self.progress.step(f"switching {name} off"):
            if pull_the_plug:
                machine.kill()
            else:
                machine.power_off()
        self._renew_network(name)
        with self.progress.step(f"booting {name}"):
            self._boot([machine])

    def freeze(self, names: Sequence[str], seconds: float) -> None:
        """Freeze machines, all at once, and let them go on after so many seconds.

        Raises:
            LabError: one isn't running, or there is no freezer.
        """
        machines = [self.machines[name] for name in names]
        for machine in machines:
            machine.enter([])
        try:
            for machine in machines:
                machine.freeze(frozen=True)
            time.sleep(seconds)
        finally:
            for machine in machines:
                machine.freeze(frozen=False)

    def _renew_network(self, name: str) -> None:
        """Take away what a kernel forgets, and make the devices anew; a WAN that was unplugged stays so.

        A kernel of its own forgets by itself.
        """
        if isinstance(self.machines[name], QemuMachine):
            return
        plugged = machine_links.plugged_wans()
        machine_links.disconnect_machine(name)
        network.delete_namespace(name)
        network.create_namespace(name)
        machine_links.connect_machine(name, plugged)

    def down(self) -> bool:
        """Remove every trace, also of a run that crashed: machines, processes, namespaces, mounts, directories.

        Returns:
            Whether there was any.
        """
        found = bool(self._namespaces()) or STORAGE.exists() or self.state.run.exists()
        for machine in self.machines.values():
            machine.kill()
        running = [process for process in self.state.processes() if process.alive]
        for process in running:
            process.send(signal.SIGTERM)
        for process in running:
            process.end(signal.SIGTERM)
        cgroup.remove(SERVICES)
        for node in self._namespaces():
            self._end_strays(node)
            network.delete_namespace(node)
        self.bare.delete()
        for machine in self.machines.values():
            machine.delete()
        for folder in (STORAGE, self.state.run):
            remove_tree(folder)
        namespaces.release_mount()
        return found

    @staticmethod
    def _namespaces() -> list[str]:
        found = network.NETNS.glob(f"{NAMESPACE_PREFIX}*") if network.NETNS.is_dir() else ()
        return [
            path.name.removeprefix(NAMESPACE_PREFIX)
            for path in found
            if path.name.removeprefix(NAMESPACE_PREFIX) in NODES
        ]

    @staticmethod
    def _end_strays(node: str) -> None:
        """End what still runs in a namespace of the lab: whatever is in there was started for the lab."""
        for pid in run(["ip", "netns", "pids", namespace(node)]).split():
            with contextlib.suppress(ProcessLookupError):
                Process.of(f"stray {pid}", int(pid)).end(signal.SIGKILL)
