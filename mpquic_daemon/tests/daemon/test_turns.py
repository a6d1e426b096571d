"""The loops of server and client, with a TUN and sockets that are played: what one turn does, and survives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.config import load
from mpquic.daemon import client as client_module
from mpquic.daemon import server as server_module
from mpquic.daemon.journal import Journal
from mpquic.net.quic import LinkState
from mpquic.net.udp import SendStatus, UdpCounters

from .conftest import Site

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = ("10.77.1.2", 40000)
SERVER = ("10.77.2.2", 45009)


class Tun:
    """Takes and gives nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.carrier = self.gone = False
        self.counters: dict[str, int] = {}

    def fileno(self) -> int:
        return -1

    def set_carrier(self, on: bool) -> None:
        self.carrier = on

    def write(self, buffers: Any) -> None:
        raise AssertionError(f"nothing was sent: {buffers}")

    def close(self) -> None:
        self.carrier = False


class Wire:
    """Sockets of both ends. `limit` is the largest datagram that the server's kernel sends."""

    def __init__(self) -> None:
        self.up: list[tuple[bytes, tuple[str, int]]] = []
        self.down: list[tuple[bytes, tuple[str, int]]] = []
        self.limit = 65535
        self.deaf = False
        """Whether the client hears nothing."""
        self.sockets = 0

    def server(self, *_: object, **__: object) -> Any:
        def send(datagrams: list[bytes], address: tuple[str, int]) -> SendStatus:
            fitting = [datagram for datagram in datagrams if len(datagram) <= self.limit]
            self.down += [(datagram, address) for datagram in fitting]
            return SendStatus.OK if len(fitting) == len(datagrams) else SendStatus.TOO_LARGE

        def receive() -> list[Any]:
            found, self.up = self.up, []
            return [(memoryview(data), len(data), address) for data, address in found]

        return self._socket(send, receive, SERVER)

    def client(self, *_: object, **__: object) -> Any:
        self.sockets += 1
        own = (CLIENT[0], CLIENT[1] + self.sockets)

        def send(datagrams: list[bytes]) -> SendStatus:
            self.up += [(datagram, own) for datagram in datagrams]
            return SendStatus.OK

        def receive() -> list[Any]:
            found = [data for data, address in self.down if address == own]
            self.down = [entry for entry in self.down if entry[1] != own]
            return [] if self.deaf else [(memoryview(data), len(data), SERVER) for data in found]

        return self._socket(send, receive, own)

    @staticmethod
    def _socket(send: Callable[..., SendStatus], receive: Callable[[], list[Any]], own: tuple[str, int]) -> Any:
        return SimpleNamespace(
            send_batch=send, recv_batch=receive, fileno=lambda: -1, wants_write=False, counters=UdpCounters(),
            peer_address=SERVER, local_address=own, close=lambda: None,
        )  # fmt: skip


class Ends:
    """A server and, once it is started, a client in this process."""

    def __init__(self, site: Site) -> None:
        loop = asyncio.get_running_loop()
        journal = Journal(logging.getLogger("mpquic"))
        self.changes: list[float] = []
        self.fatal: list[str] = []
        server_file = site.server_config()
        client_file = site.client_config(bind_ip="10.77.1.2")
        self.server = server_module.Server(
            load(server_file), journal, lambda: self.changes.append(loop.time()), self.fatal.append
        )
        self.client = client_module.Client(load(client_file), journal, lambda: None, self.fatal.append)

    @property
    def client_state(self) -> str:
        return str(self.client.status()["state"])

    async def run(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not condition():
            assert loop.time() < end, f"not reached: {self.client.status()}"
            self.server._on_socket()
            for connection in (self.client._current, self.client._candidate):
                if connection is not None:
                    self.client._on_socket(connection)
            await asyncio.sleep(0.002)


Scenario = Callable[[Ends, Wire], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Run a scenario with both ends up."""
    wire = Wire()
    for module in (server_module, client_module):
        monkeypatch.setattr(module, "TunDevice", Tun)
    monkeypatch.setattr(server_module, "UdpSocket", wire.server)
    monkeypatch.setattr("mpquic.daemon.client_connection.UdpSocket", wire.client)
    site = Site(tmp_path)

    async def main(scenario: Scenario) -> None:
        loop = asyncio.get_running_loop()
        for name in ("add_reader", "remove_reader", "remove_writer"):
            monkeypatch.setattr(loop, name, lambda *_: None)
        ends = Ends(site)
        ends.server.start()
        ends.client.start()
        try:
            await ends.run(lambda: ends.client_state == "up")
            await scenario(ends, wire)
        finally:
            await ends.client.stop()
            await ends.server.stop()

    return lambda scenario: asyncio.run(main(scenario))


def test_a_fault_in_a_turn_leaves_the_loop_its_timer(play, monkeypatch):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        def broken(_now: float) -> None:
            raise IndexError("a defect")

        for end in (ends.server, ends.client):
            end._timer.cancel()
            with monkeypatch.context() as patch:
                patch.setattr(end, "_send", broken)
                with pytest.raises(IndexError):
                    end._turn()
            assert not end._timer.cancelled()

    play(scenario)


@pytest.mark.parametrize("method", ["advance", "poll"])
def test_a_defect_that_one_connection_brings_to_light_ends_that_one_only(play, monkeypatch, caplog, method):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        (connection,) = ends.server._connections.values()

        def broken(_now: float) -> None:
            raise IndexError("a defect")

        monkeypatch.setattr(connection, method, broken)
        await ends.run(lambda: connection.link.state is LinkState.CLOSED)
        assert connection not in ends.server._connections.values()
        await ends.run(lambda: ends.client_state == "up" and ends.server.status()["peers"] == 1)
        assert ends.client.status()["reconnects"] == 1
        assert "connection.fault" in caplog.text

    play(scenario)


def test_changes_are_told_once_a_second(play):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        ends.changes.clear()
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            ends.server._announce()
            await asyncio.sleep(0)
        await ends.run(lambda: asyncio.get_running_loop().time() > began + 1.2)
        assert 1 <= len(ends.changes) <= 2

    play(scenario)


def test_tunnels_in_which_nothing_waits_cost_nothing(play, monkeypatch):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        (tunnel,) = ends.server._tunnels.values()
        asked: list[float] = []
        monkeypatch.setattr(tunnel.sender, "flush", lambda now: asked.append(now) or 0)
        ends.server._turn()
        assert asked == []

    play(scenario)
