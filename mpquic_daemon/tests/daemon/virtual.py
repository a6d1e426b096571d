"""A real client and a real server in virtual time: each has an event loop of its own, and only the kernel is played.

The clock stands while anything can be done and then moves to what is due next, so hours of outages take seconds and
each run is the same. A process can sleep, as a paused virtual machine does: its loop stands while the clock moves on.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
import itertools
import logging
import os
import selectors
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, cast

import msgspec
from mpquic.config import load
from mpquic.daemon.client import Client
from mpquic.daemon.journal import Journal
from mpquic.daemon.server import Server
from mpquic.net.kernel import Kernel
from mpquic.net.netlink import WanState
from mpquic.net.rtnetlink import DefaultRoute
from mpquic.net.send_status import SendStatus
from mpquic.net.tun import VNET_HEADER_BYTES, TunCounters
from mpquic.net.udp import UdpCounters
from mpquic.quic.pmtu import IP_UDP_BYTES

from ..proto import packets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .conftest import Site

DELAY = 0.017
"""Seconds in one direction."""
CLIENT, SERVER = "10.77.1.2", "10.77.2.2"
INNER_CLIENT, INNER_SERVER = (ipaddress.ip_address(f"10.200.9.{number}").packed for number in (1, 2))
QUIC_PORT, STRIPE_PORT = 45009, 46009
LEAST_BELIEVED = 552
"""Smallest path MTU that Linux takes over from ICMP for IPv4 (net.ipv4.route.min_pmtu)."""
QUEUE = 2000
"""Datagrams that wait at most to be read by a process that sleeps."""

ITERATION = 1e-6
"""Seconds that an iteration of an event loop takes."""
BUSY = 2000
"""Iterations of a loop in 10 ms that show that it is run all the time by something that never comes to an end."""

Endpoint = tuple[str, int]


class Clock:
    """Seconds."""

    def __init__(self) -> None:
        self.now = 1000.0


class _Selector(selectors.EpollSelector):
    """Never waits: when nothing is ready, it ends the loop's run and remembers when the loop wants to be run again."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.idle: Callable[[], None] = lambda: None
        self.wake_at = float("inf")
        self._counted_from = clock.now
        self._iterations = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now += ITERATION
        self._iterations += 1
        if self._clock.now - self._counted_from > 0.01:
            self._counted_from, self._iterations = self._clock.now, 0
        assert self._iterations < BUSY, "the event loop is busy although there is nothing to do"
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            self.wake_at = float("inf") if timeout is None else self._clock.now + timeout
            self.idle()
        return events


class Process:
    """An event loop on the virtual clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._selector = _Selector(clock)
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self.suspended = 0.0
        """For how long its machine was suspended in all; the loop's clock stood meanwhile."""
        self.loop.time = lambda: clock.now - self.suspended  # type: ignore[method-assign]
        self._selector.idle = self.loop.stop
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self.asleep_until = float("-inf")
        self.is_reachable = True

    @property
    def due(self) -> float:
        return max(self._selector.wake_at, self.asleep_until)

    def wake(self) -> None:
        """Something may be read."""
        self._selector.wake_at = min(self._selector.wake_at, self._clock.now)

    def run(self) -> None:
        """Do everything that can be done now."""
        self.loop.run_forever()
        assert not self.faults, self.faults

    def call(self, function: Callable[[], object]) -> None:
        """Run a function in the loop."""
        self.loop.call_soon(function)
        self.run()

    def close(self, stop: Callable[[], Any]) -> None:
        task = self.loop.create_task(stop())
        while not task.done():
            self.run()
        task.result()
        self.loop.close()


class _Readable:
    """Something with a queue and a file descriptor that tells whether it is empty."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self._waiting: deque[Any] = deque()

    def fileno(self) -> int:
        return self._fd

    def put(self, item: object) -> None:
        if self._fd >= 0 and len(self._waiting) < QUEUE and self._process.is_reachable:
            self._waiting.append(item)
            os.eventfd_write(self._fd, 1)
            self._process.wake()

    def take(self, count: int) -> list[Any]:
        taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        for _ in taken:
            os.eventfd_read(self._fd)
        return taken

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._waiting.clear()


class Network:
    """The way between both ends. `lost` decides about each datagram, by its source and destination.

    `mtu` gives the largest IP packet for a source and a destination; a router that `tells` says by ICMP what it drops.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flying: list[tuple[float, int, Endpoint, Endpoint, bytes]] = []
        self._numbers = itertools.count()
        self.sockets: dict[Endpoint, UdpSocket] = {}
        self.delay = DELAY
        self.lost: Callable[[Endpoint, Endpoint], bool] = lambda _source, _destination: False
        self.mtu: Callable[[Endpoint, Endpoint], int] = lambda _source, _destination: 1500
        self.tells = True
        self.believed: dict[str, int] = {}
        """Path MTU that the kernel of a host believes in, for as long as it lasts."""
        self.dscps: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        """DSCPs of what a host has sent to another."""
        self.sent = 0
        """Datagrams that were sent in all, lost ones included."""

    def cut(self) -> None:
        self.lost = lambda _source, _destination: True

    def heal(self) -> None:
        self.lost = lambda _source, _destination: False

    @property
    def due(self) -> float:
        return self._flying[0][0] if self._flying else float("inf")

    def send(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        self.sent += 1
        mtu = self.mtu(source, destination)
        if len(data) + IP_UDP_BYTES[4] > mtu:
            if self.tells:
                self.report(source, mtu)
        elif not self.lost(source, destination):
            arrival = self._clock.now + self.delay
            heapq.heappush(self._flying, (arrival, next(self._numbers), source, destination, data))

    def report(self, source: Endpoint, mtu: int | None = None) -> None:
        """An error of ICMP, honest or forged, comes in for what `source` has sent; with `mtu`, "too big"."""
        if mtu is not None:
            self.believed[source[0]] = min(max(mtu, LEAST_BELIEVED), self.believed.get(source[0], 1500))
        sender = self.sockets.get(source)
        if sender is not None and sender.peer_address is not None:
            sender.put(None)

    def deliver(self) -> None:
        while self.due <= self._clock.now:
            _, _, source, destination, data = heapq.heappop(self._flying)
            receiver = self.sockets.get(destination)
            if receiver is not None and receiver.accepts(source):
                receiver.put((source, data))


class Nat:
    """A NAT in front of the client. `rebind` gives each of its sockets another public port; the old ones are dead."""

    def __init__(self, network: Network) -> None:
        self._send = network.send
        self._shift = 0
        network.send = self.send  # type: ignore[method-assign]

    def rebind(self) -> None:
        self._shift += 1_000_000

    def send(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        if source[0] == CLIENT:
            source = (CLIENT, source[1] + self._shift)
        elif destination[0] == CLIENT:
            destination = (CLIENT, destination[1] - self._shift)
        self._send(source, destination, data)


class UdpSocket(_Readable):
    """Stands for `mpquic.net.udp.UdpSocket`."""

    def __init__(self, process: Process, network: Network, host: str, local: Endpoint, **options: Any) -> None:
        super().__init__(process)
        self._network = network
        port = local[1] or 50000 + next(network._numbers)
        self.local_address: Endpoint = (host, port)
        self.peer_address: Endpoint | None = options.get("peer")
        self.counters = UdpCounters()
        self.dscp: int = options.get("dscp", 0)
        self.wants_write = self.muted = False
        self.reads = options.get("reads", 4)
        self.drained = True
        network.sockets[self.local_address] = self

    def accepts(self, source: Endpoint) -> bool:
        return self.peer_address is None or self.peer_address == source

    def recv_batch(
        self, buffers: Sequence[memoryview] | None = None, *, singles: int = 0
    ) -> list[tuple[memoryview, int, Endpoint]]:
        most = (self.reads if buffers is None else len(buffers)) + singles
        taken = self.take(most)
        self.drained = len(taken) < most
        found = [item for item in taken if item is not None]
        self.counters.reported_errors += len(taken) - len(found)
        return [(memoryview(data), len(data), source) for source, data in found]

    def path_mtu(self) -> int | None:
        return None if self.peer_address is None else self._network.believed.get(self.local_address[0], 1500)

    def send_batch(self, datagrams: Sequence[bytes], address: Endpoint | None = None, dscp: int = 0) -> SendStatus:
        destination = address or self.peer_address
        assert destination is not None
        self._network.dscps[self.local_address[0], destination[0]].add(dscp or self.dscp)
        if self.muted:
            return SendStatus.UNREACHABLE
        for datagram in datagrams:
            self._network.send(self.local_address, destination, bytes(datagram))
        self.counters.tx_datagrams += len(datagrams)
        return SendStatus.OK

    def resume(self) -> SendStatus:
        return SendStatus.OK

    def mute(self) -> None:
        self.muted = True

    def close(self) -> None:
        self._network.sockets.pop(self.local_address, None)
        super().close()


class Tun(_Readable):
    """Stands for `mpquic.net.tun.TunDevice`. `received` holds what the tunnel gave to the kernel, with its time."""

    def __init__(self, process: Process, clock: Clock, name: str) -> None:
        super().__init__(process)
        self._clock = clock
        self.name = name
        self.uso = self.gone = self.carrier = False
        self.counters = TunCounters()
        self.received: list[tuple[float, bytes]] = []

    def set_carrier(self, carrier: bool) -> None:
        self.carrier = carrier

    def read_batch(self, max_packets: int) -> list[bytes]:
        return self.take(max_packets)

    def write(self, buffers: Sequence[bytes]) -> bool:
        self.received.append((self._clock.now, b"".join(buffers)[VNET_HEADER_BYTES:]))
        return True

    def give(self, packet: bytes) -> None:
        self.put(bytes(VNET_HEADER_BYTES) + packet)


class Monitor(_Readable):
    """Stands for `mpquic.net.netlink.LinkMonitor`, for one WAN with an address."""

    def __init__(self, process: Process, devices: Sequence[str], host: str = CLIENT) -> None:
        super().__init__(process)
        self._generation = 1
        self._address: str | None = host
        self.prefix_length = 24
        self._devices = devices

    def state(self, device: str) -> WanState:
        addresses, routes = (), ()
        if self._address is not None:
            gateway = ipaddress.ip_address("10.77.1.1")
            addresses = (ipaddress.ip_address(self._address),)
            routes = (DefaultRoute(2, 2, gateway, 104, 0),)
        subnets = tuple(ipaddress.ip_interface(f"{address}/{self.prefix_length}") for address in addresses)
        return WanState(device, True, 3, True, addresses, routes, subnets, {2: self._generation, 10: 0})

    def change(self, address: str | None) -> None:
        """Have another address, or none."""
        self._address = address
        self._generation += 1
        self.put(None)

    def read(self) -> list[WanState]:
        self.take(QUEUE)
        return [self.state(device) for device in self._devices]

    refresh = read


async def _nothing() -> None:
    """Stand for the stop of an end that is stopped already."""


class Ends:
    """A client and a server, and with `probes` a packet every 0.1 s in each direction through the tunnel.

    `size` are the octets behind the IP header of these packets. `server` and other keywords are changes of the two
    configurations.
    """

    def __init__(
        self,
        site: Site,
        *,
        probes: bool = True,
        size: int = 64,
        server: dict[str, object] | None = None,
        **client: object,
    ) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.processes = {"cl": Process(self.clock), "sv": Process(self.clock)}
        self.tuns: dict[str, Tun] = {}
        self.monitors: list[Monitor] = []
        self.fatal: list[str] = []
        self.stopped: set[str] = set()
        """Ends that a test has stopped."""
        self.probes = probes
        self.size = size
        self._next_probe = self.clock.now
        self._probe = 0
        settings = {"bind_ip": CLIENT, "transport": "stripe", **client}
        files = {"cl": site.client_config(**settings), "sv": site.server_config(**(server or {}))}
        journal = Journal(logging.getLogger("mpquic"))
        roles: dict[str, Any] = {}

        def make(name: str) -> None:
            kernel = self._kernel(name, {"cl": CLIENT, "sv": SERVER}[name])
            role = {"cl": Client, "sv": Server}[name]
            roles[name] = role(load(files[name]), journal, lambda: None, self.fatal.append, kernel)
            roles[name].start()

        for name in ("sv", "cl"):
            self.processes[name].call(lambda name=name: make(name))
        self.client: Client = roles["cl"]
        self.server: Server = roles["sv"]
        self.others: dict[str, Client] = {}

    def _kernel(self, name: str, host: str) -> Kernel:
        process = self.processes[name]

        def tun(device: str, *, uso: bool) -> Tun:
            del uso
            self.tuns[name] = Tun(process, self.clock, device)
            return self.tuns[name]

        def monitor(devices: Sequence[str]) -> Monitor:
            self.monitors.append(Monitor(process, devices, host))
            return self.monitors[-1]

        def udp(local: Endpoint, **options: Any) -> UdpSocket:
            # A socket that is bound to an address of its own has that one, any other the machine's.
            bound = host if ipaddress.ip_address(local[0]).is_unspecified else local[0]
            return UdpSocket(process, self.network, bound, local, **options)

        return Kernel(
            *cast("tuple[Any, Any, Any]", (tun, udp, monitor)),
            suspended=lambda: process.suspended,
            processor_time=lambda: self.clock.now,
        )

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def state(self) -> str:
        return str(self.client.status()["state"])

    @property
    def session(self) -> str | None:
        """Name of the striped session that carries at both ends, None while there is none."""
        ends = [role.paths()[0].get("stripe") if role.paths() else None for role in (self.client, self.server)]
        if not all(isinstance(end, dict) and end["carries"] for end in ends):
            return None
        names = {str(end["session"]) for end in ends if isinstance(end, dict)}
        return names.pop() if len(names) == 1 else None

    def sleep(self, name: str, seconds: float) -> None:
        """Have a process sleep from now on, for so long."""
        self.processes[name].asleep_until = self.now + seconds

    def suspend(self, name: str, seconds: float) -> None:
        """Let time pass while the machine of an end is suspended: its clock stands, and nothing reaches it."""
        process = self.processes[name]
        began, before = self.now, process.suspended
        process.loop.time = lambda: self.now - before - min(seconds, self.now - began)  # type: ignore[method-assign]
        process.is_reachable = False
        self.sleep(name, seconds)
        self.run(seconds)
        process.suspended = before + seconds
        process.loop.time = lambda: self.now - process.suspended  # type: ignore[method-assign]
        process.is_reachable = True

    def start_other(self, name: str, host: str, config: Path) -> Client:
        """Start another client, on a machine of its own at `host`."""
        self.processes[name] = Process(self.clock)

        def make() -> None:
            kernel = self._kernel(name, host)
            self.others[name] = Client(load(config), self.client._journal, lambda: None, self.fatal.append, kernel)
            self.others[name].start()

        self.processes[name].call(make)
        return self.others[name]

    def stop_other(self, name: str, *, silently: bool) -> None:
        """Stop another client; `silently` as kill -9 does."""
        lost = self.network.lost
        if silently:
            self.network.cut()
        self.processes.pop(name).close(self.others.pop(name).stop)
        self.network.lost = lost

    def restart_server(self, **changes: object) -> None:
        """The server crashes without a word and is started anew, with some settings changed."""
        process, old, lost = self.processes["sv"], self.server, self.network.lost
        if "sv" not in self.stopped:
            self.network.cut()
            task = process.loop.create_task(old.stop())
            while not task.done():
                process.run()
            self.network.lost = lost
        self.stopped.discard("sv")
        config = msgspec.structs.replace(old._config, **changes)

        def make() -> None:
            self.server = Server(config, old._journal, lambda: None, self.fatal.append, self._kernel("sv", SERVER))
            self.server.start()

        process.call(make)

    def states(self) -> list[str]:
        """The states that the client enters from now on, in a list that grows."""
        entered: list[str] = []
        self.client._on_change = lambda: entered.append(self.state)
        return entered

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._step(end):
            pass

    def wait(self, condition: Callable[[], object], within: float, what: str) -> float:
        """Seconds until `condition` held."""
        began = self.now
        while not condition():
            more = self._step(began + within)
            assert more or condition(), f"not {what} after {within} s: {self.client.status()}, {self.client.paths()}"
        return self.now - began

    def _step(self, end: float) -> bool:
        """Do what is due next; False when nothing is before `end`, where the clock is then."""
        due = min(self.network.due, *(process.due for process in self.processes.values()))
        if self.probes:
            due = min(due, self._next_probe)
        if due > end:
            self.clock.now = end
            return False
        self.clock.now = max(self.now, due)
        self.network.deliver()
        if self.probes and self._next_probe <= self.now:
            self._send_probes()
        for process in self.processes.values():
            if process.due <= self.now:
                process.run()
        return True

    def _send_probes(self) -> None:
        self._next_probe = self.now + 0.1
        self._probe += 1
        body = self._probe.to_bytes(8, "big").ljust(self.size, b"\0")
        for name, source, destination in (("cl", INNER_CLIENT, INNER_SERVER), ("sv", INNER_SERVER, INNER_CLIENT)):
            self.tuns[name].give(packets.ipv4(253, body, source=source, destination=destination))

    def arrivals(self, name: str) -> list[float]:
        """Times at which probes came out of an end's TUN."""
        return [moment for moment, _ in self.tuns[name].received]

    def close(self) -> None:
        for process in self.processes.values():
            process.asleep_until = float("-inf")
        for name, role in (("cl", self.client), *self.others.items(), ("sv", self.server)):
            self.processes[name].close(role.stop if name not in self.stopped else _nothing)
        assert self.fatal == []
