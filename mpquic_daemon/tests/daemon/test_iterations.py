"""The loops of server and client, with a TUN and sockets that are played: what one iteration does, and survives."""

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
from mpquic.daemon import wan_watch
from mpquic.daemon.client_connection import Phase
from mpquic.daemon.credentials import CredentialsError
from mpquic.daemon.journal import Journal
from mpquic.daemon.session import MAX_REFUSED_STREAMS, CloseCode, Inbox, SessionError
from mpquic.net.kernel import Kernel
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import UdpCounters
from mpquic.proto.control.handshake import HandshakeState
from mpquic.proto.control.messages import StreamType
from mpquic.proto.path.ending import Ending, Failure
from mpquic.quic.connection_view import LinkState
from mpquic.quic.events import StreamReceived
from waiting import wait_for_async

from .conftest import Site

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = ("10.77.1.2", 40000)
SERVER = ("10.77.2.2", 45009)


class Tun:
    """Takes and gives nothing."""

    def __init__(self, name: str, *, uso: bool) -> None:
        self.name = name
        self.uso = uso
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
        def send(datagrams: list[bytes], address: tuple[str, int], _dscp: int = 0) -> SendStatus:
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
            send_batch=send, recv_batch=receive, fileno=lambda: -1, wants_write=False, reads=4, counters=UdpCounters(),
            drained=True, peer_address=SERVER, local_address=own, close=lambda: None, path_mtu=lambda: 1500,
        )  # fmt: skip


class Ends:
    """A server and, once it is started, a client in this process."""

    def __init__(self, site: Site, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        journal = Journal(logging.getLogger("mpquic"))
        self.changes: list[float] = []
        self.fatal: list[str] = []
        server_file = site.server_config()
        client_file = site.client_config(bind_ip="10.77.1.2")
        self.server = server_module.Server(
            load(server_file),
            journal,
            lambda: self.changes.append(loop.time()),
            self.fatal.append,
            Kernel(tun=Tun, udp=wire.server),
        )
        self.client = client_module.Client(
            load(client_file), journal, lambda: None, self.fatal.append, Kernel(tun=Tun, udp=wire.client)
        )

    @property
    def client_state(self) -> str:
        return str(self.client.status()["state"])

    async def run(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        await wait_for_async(lambda: self._read() or condition(), seconds, shown=self.client.status)

    def _read(self) -> None:
        """Have both ends read their sockets."""
        self.server._port._on_readable()
        for connection in (self.client._paths[0].current, self.client._paths[0].candidate):
            if connection is not None:
                self.client._paths[0]._on_socket(connection)


Scenario = Callable[[Ends, Wire], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Run a scenario with both ends up."""
    wire = Wire()
    site = Site(tmp_path)

    async def main(scenario: Scenario) -> None:
        loop = asyncio.get_running_loop()
        for name in ("add_reader", "remove_reader", "remove_writer"):
            monkeypatch.setattr(loop, name, lambda *_: None)
        ends = Ends(site, wire)
        ends.server.start()
        ends.client.start()
        try:
            await ends.run(lambda: ends.client_state == "up")
            await scenario(ends, wire)
        finally:
            await ends.client.stop()
            await ends.server.stop()

    return lambda scenario: asyncio.run(main(scenario))


def test_a_fault_in_an_iteration_leaves_the_loop_its_timer(play, monkeypatch):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        def broken(_now: float) -> None:
            raise IndexError("a defect")

        for end, part in ((ends.server, "_send"), (ends.client, "_update_state")):
            end._timer.close()
            with monkeypatch.context() as patch:
                patch.setattr(end, part, broken)
                with pytest.raises(IndexError):
                    end._iterate()
            assert end._timer.due is not None

    play(scenario)


@pytest.mark.parametrize("method", ["advance", "poll"])
def test_a_defect_that_one_connection_brings_to_light_ends_that_one_only(play, monkeypatch, caplog, method):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        (connection,) = ends.server._connections

        def broken(_now: float) -> None:
            raise IndexError("a defect")

        monkeypatch.setattr(connection, method, broken)
        await ends.run(lambda: connection.link.state is LinkState.CLOSED)
        assert connection not in ends.server._connections
        await ends.run(lambda: ends.client_state == "up" and ends.server.counters()["tables"]["registered"] == 1)
        assert ends.client.status()["reconnects"] == 1
        assert "connection.fault" in caplog.text

    play(scenario)


def test_changes_are_told_once_a_second(play):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        ends.changes.clear()
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            ends.server._announcer.announce()
            await asyncio.sleep(0)
        await ends.run(lambda: asyncio.get_running_loop().time() > began + 1.2)
        assert 1 <= len(ends.changes) <= 2

    play(scenario)


def test_tunnels_in_which_nothing_waits_cost_nothing(play, monkeypatch):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        (tunnel,) = ends.server._tunnels
        asked: list[float] = []
        monkeypatch.setattr(tunnel.sender, "flush", lambda now: asked.append(now) or 0)
        ends.server._iterate()
        assert asked == []

    play(scenario)


def has_registered(candidate: Any) -> bool:
    """Whether the REGISTER has gone and the WELCOME has not come."""
    return candidate.phase is Phase.REGISTERING and candidate._registration.state is HandshakeState.AWAIT_WELCOME


def test_a_lost_welcome_takes_nothing_down(play, monkeypatch):
    """The server has replaced the old connection and says so, while the client waits for the WELCOME of the new."""

    async def scenario(ends: Ends, _wire: Wire) -> None:
        client = ends.client
        old = client._paths[0].current
        client.reconnect(silent=False)
        candidate = client._paths[0].candidate
        read = candidate.read
        await ends.run(lambda: has_registered(candidate))
        monkeypatch.setattr(candidate, "read", lambda _now: None)  # The WELCOME is on its way for long.
        since = client.status()["since"]
        await ends.run(lambda: client._paths[0].current is None)
        assert old.ending.failure is Failure.REPLACED
        began = asyncio.get_running_loop().time()
        await ends.run(lambda: asyncio.get_running_loop().time() > began + 0.3)
        assert (ends.client_state, client._tun.carrier) == ("up", True)
        monkeypatch.setattr(candidate, "read", read)
        await ends.run(lambda: client._paths[0].current is candidate)
        assert (client.status()["since"], client._tun.carrier) == (since, True)
        assert client.status()["error"] is None

    play(scenario)


def test_a_welcome_that_never_comes_takes_the_tunnel_down_in_time(play, monkeypatch):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        client = ends.client
        client._paths[0].connector.down_after = 1.0
        client.reconnect(silent=False)
        candidate = client._paths[0].candidate
        await ends.run(lambda: has_registered(candidate))
        monkeypatch.setattr(candidate, "read", lambda _now: None)
        await ends.run(lambda: client._paths[0].current is None)
        await ends.run(lambda: ends.client_state == "down", 2.0)
        assert not client._tun.carrier

    play(scenario)


def test_a_copy_of_this_machine_is_named_and_not_fought(play, caplog):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        (connection,) = ends.server._connections
        connection.end(CloseCode.REPLACED, "replaced by a newer connection")
        ends.server._connections.note_change(connection)
        await ends.run(lambda: ends.client_state == "down")
        assert ends.client._paths[0].connector.retry.next_attempt - asyncio.get_running_loop().time() > 3.0
        assert caplog.text.count("path.taken_over") == 1
        (told,) = (record for record in caplog.records if record.message == "path.taken_over")
        assert "a copy of this machine" in told.fields["cause"]

    play(scenario)


def test_a_second_connection_that_ends_is_no_outage(play):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        client = ends.client
        client.reconnect(silent=False)
        candidate = client._paths[0].candidate
        candidate.ending = Ending(Failure.SILENT, "no answer")
        client._iterate()
        assert client._paths[0].candidate is not candidate
        retry = client._paths[0].connector.retry
        assert (retry.failures, retry._silent, retry._outage_began) == (0, 0, None)
        assert ends.client_state == "up"

    play(scenario)


def test_a_fault_in_sending_for_a_candidate_leaves_the_current_connection(play, monkeypatch, caplog):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        client = ends.client
        current = client._paths[0].current
        client.reconnect(silent=False)
        candidate = client._paths[0].candidate

        def broken(_now: float) -> None:
            raise IndexError("a defect")

        monkeypatch.setattr(candidate, "flush", broken)
        client._iterate()
        assert "connection.fault" in caplog.text
        assert client._paths[0].candidate is not candidate
        assert (client._paths[0].current, current.phase, current.ending) == (current, Phase.REGISTERED, None)
        assert ends.client_state == "up"

    play(scenario)


def test_a_fault_in_a_handover_between_connections_leaves_no_old_one_behind(play, monkeypatch, caplog):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        client = ends.client
        old = client._paths[0].current
        released: list[object] = []
        release = client._paths[0]._release

        def broken(*_: object) -> None:
            raise IndexError("a defect")

        def note(connection: object, farewell: str | None) -> None:
            released.append(connection)
            release(connection, farewell)

        with monkeypatch.context() as patches:
            patches.setattr(client._paths[0].stripe, "open", broken)
            patches.setattr(client._paths[0], "_release", note)
            # The server closes the old connection as it registers the new one: here WELCOME is the first to arrive.
            patches.setattr(old.socket, "recv_batch", list)
            client.reconnect(silent=False)
            await ends.run(lambda: "connection.fault" in caplog.text)
        assert released[0] is old
        await ends.run(lambda: ends.client_state == "up")
        assert [path.control for path in client._scheduler] == [client._paths[0].current.session.path]

    play(scenario)


def test_a_server_whose_device_refuses_large_packets_sends_smaller_ones(play):
    async def scenario(ends: Ends, wire: Wire) -> None:
        (connection,) = ends.server._connections
        await ends.run(lambda: connection.link.max_datagram_size == 1452)
        wire.limit = 1300
        connection.link.send_datagrams([bytes(1350)])
        ends.server._iterate()
        assert connection.link.max_datagram_size == 1200
        await ends.run(lambda: 1292 <= connection.link.max_datagram_size <= 1300)
        assert ends.client.status()["reconnects"] == 0

    play(scenario)


def test_netlink_that_fails_is_asked_again(play, monkeypatch, caplog):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        client = ends.client
        refreshed: list[float] = []

        def broken() -> None:
            raise OSError(105, "No buffer space available")

        monkeypatch.setattr(wan_watch, "LOOK_AGAIN", 0.05)
        monkeypatch.setattr(client._wan_watch.monitor, "read", broken)
        monkeypatch.setattr(client._wan_watch.monitor, "refresh", lambda: refreshed.append(1))
        client._wan_watch.on_netlink()
        client._wan_watch.on_netlink()
        await ends.run(lambda: refreshed)
        assert caplog.text.count("wan.unknown") == 1
        assert client._wan_watch.again_at is None

    play(scenario)


def test_bytes_of_a_refused_stream_are_not_taken_for_a_new_one(play):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        session = ends.client._paths[0].current.session
        data_stream = session.data_stream

        def arrives(stream: int, data: bytes) -> Inbox:
            return session.take([StreamReceived(stream, data, False)], asyncio.get_running_loop().time())

        arrives(41, b"\x09of a later version")
        arrives(41, bytes([StreamType.DATA]) + b"still of it")
        assert (session.has_frames, session.data_stream) == (False, data_stream)
        for number in range(MAX_REFUSED_STREAMS - 1):
            arrives(1001 + 4 * number, b"\x09")
        with pytest.raises(SessionError, match="too many streams"):
            arrives(997, b"\x09")

    play(scenario)


def test_files_that_can_not_be_used_are_refused_and_the_old_stay_in_force(play, tmp_path):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        before = ends.server._config
        real = server_module.credentials.load_server
        (tmp_path / "server.key").write_bytes(b"written by halves")
        try:
            # As if the file were replaced between its check and its use.
            server_module.credentials.load_server = lambda _tls: SimpleNamespace(verifier=None)
            with pytest.raises(CredentialsError, match=r"server\.key"):
                ends.server.apply(before)
        finally:
            server_module.credentials.load_server = real
        assert ends.server._registry.authorization.verifier is not None
        # The client needs no file for another attempt.
        (tmp_path / "ca.crt").unlink()
        ends.client.reconnect(silent=True)
        await ends.run(lambda: ends.client_state == "up" and ends.client._paths[0].current is not None)

    play(scenario)


def test_both_ends_have_a_share_of_their_wan_and_wake_when_it_allows_more(play):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        (connection,) = ends.server._connections
        sessions = (ends.client._paths[0].current.session, connection.session)
        for session in sessions:
            assert (session.member.name, session.member.wan) == ("mpq9" if session is sessions[1] else "cl", "wan9")
            budget = session.path._budget
            budget._rate_limit, budget._filled_at, budget._tokens = 1e6, loop.time(), -20_000.0
            assert session.timer(loop.time()) <= loop.time() + 0.0201
        (tunnel,) = ends.server._tunnels
        due = tunnel.next_allowance(loop.time())
        ends.server._tunnels._waiting[tunnel] = None
        ends.server._schedule(loop.time())
        assert due is not None
        assert ends.server._timer.due <= due

    play(scenario)


def test_counters_show_reassembly_and_paths(play):
    async def scenario(ends: Ends, _wire: Wire) -> None:
        counters = ends.client.counters()
        (path,) = counters["paths"]
        assert [path["quic"][name] for name in ("tx_frames", "tx_datagrams", "oversized_frames")] == [0, 0, 0]
        assert counters["tunnel"]["reassembly"]["completed"] == counters["tunnel"]["rx_coalesced"] == 0
        assert ends.server.counters()["tunnel"]["reassembly"]["evicted"] == 0

    play(scenario)
