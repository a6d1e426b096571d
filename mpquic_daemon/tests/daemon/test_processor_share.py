"""Passes of bounded length over the work of clients, and what has been read for them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.daemon.arrivals import MAX_READS, MIXED_TIME, Arrivals
from mpquic.daemon.processor_share import PASS_TIME, PIECE, ProcessorShare
from mpquic.net.udp import MAX_EMPTY, UdpSocket
from mpquic.proto.processor.share_limit import MAX_DELAY

if TYPE_CHECKING:
    from collections.abc import Iterator


class Machine:
    """An event loop and a processor clock that only work moves on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.time = 0.0
        self.passes = 0
        self.done: list[str] = []
        self.share = ProcessorShare(loop, lambda: self.time, self._after)

    def _after(self) -> None:
        self.passes += 1

    def iterate(self) -> None:
        """Have the event loop make one iteration."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def occupy(self, client: str, cost: float, pieces: int = 1) -> None:
        """Give a client work that takes `cost` seconds a piece."""

        def work(_now: float, left: int = pieces) -> None:
            self.time += cost
            self.done.append(client)
            if left > 1:
                self.share.add(client, lambda now: work(now, left - 1))

        self.share.add(client, work)


@pytest.fixture
def machine() -> Iterator[Machine]:
    loop = asyncio.new_event_loop()
    yield Machine(loop)
    loop.close()


def test_work_is_done_at_once_when_there_is_time(machine: Machine) -> None:
    machine.occupy("a", PASS_TIME / 10, pieces=3)
    machine.share.start()
    assert (machine.done, machine.passes, machine.share.is_idle) == (["a"] * 3, 1, True)


def test_what_comes_while_nothing_waits_is_done_at_once_and_charged(machine: Machine) -> None:
    def work(_now: float) -> None:
        machine.time += 0.001
        machine.done.append("a")
        machine.occupy("b", 0.001)
        machine.share.do("a", lambda _now: machine.done.append("later"), 0, 0.0)

    assert machine.share.is_idle
    machine.share.do("a", work, 1000, 0.0)
    assert (machine.done, machine.passes, machine.share.is_idle) == (["a"], 1, False)
    assert machine.share.charged("a") == 0.001
    machine.iterate()
    machine.iterate()
    assert machine.done == ["a", "b", "later"], "who had less comes first"
    assert machine.share.is_idle


def test_a_fault_in_what_is_done_at_once_leaves_nobody_waiting(machine: Machine) -> None:
    def work(_now: float) -> None:
        machine.occupy("b", 0.001)
        raise ValueError

    with pytest.raises(ValueError):
        machine.share.do("a", work, 0, 0.0)
    machine.iterate()
    machine.iterate()
    assert (machine.done, machine.share.is_idle) == (["b"], True)


def test_a_pass_ends_in_time_and_the_next_one_comes_by_itself(machine: Machine) -> None:
    machine.occupy("a", PASS_TIME / 2, pieces=10)
    machine.share.start()
    assert (len(machine.done), machine.share.is_idle) == (2, False)
    machine.share.start()
    assert len(machine.done) == 2, "sockets come first"
    for _ in range(10):
        machine.iterate()
    assert (len(machine.done), machine.share.is_idle) == (10, True)


def test_time_is_shared_equally_whatever_the_pieces_take(machine: Machine) -> None:
    machine.occupy("small", 0.0001, pieces=10_000)
    machine.occupy("large", 0.001, pieces=1000)
    machine.share.start()
    while machine.time < 0.2:
        machine.iterate()
    took = {"small": 0.0001 * machine.done.count("small"), "large": 0.001 * machine.done.count("large")}
    assert abs(took["small"] - took["large"]) <= 0.0011


def test_who_comes_new_does_not_wait_for_what_others_have_waiting(machine: Machine) -> None:
    machine.occupy("busy", PASS_TIME / 4, pieces=1000)
    machine.share.start()
    machine.iterate()
    machine.occupy("sparse", 0.00001)
    machine.done.clear()
    machine.iterate()
    assert "sparse" in machine.done[:2]


def test_the_work_of_one_alone_is_not_cut(machine: Machine) -> None:
    pieces: list[int | None] = []
    machine.share.add("a", lambda _now: pieces.append(machine.share.piece))
    machine.share.start()
    machine.share.add("a", lambda _now: pieces.append(machine.share.piece))
    machine.share.add("a", lambda _now: pieces.append(machine.share.piece))
    machine.share.add("b", lambda _now: pieces.append(machine.share.piece))
    machine.share.start()
    assert pieces == [None, PIECE, None, None] or pieces == [None, PIECE, PIECE, None]


def test_a_fault_is_told_and_stops_nobody_else(machine: Machine) -> None:
    def fail(_now: float) -> None:
        raise ValueError("a defect")

    machine.share.add("a", fail)
    machine.occupy("b", 0.0001)
    with pytest.raises(ValueError, match="a defect"):
        machine.share.start()
    machine.iterate()
    machine.iterate()
    assert machine.done == ["b"]
    machine.occupy("a", 0.0001)
    machine.share.start()
    assert machine.done == ["b", "a"]


class ShortMachine(Machine):
    """One whose clocks are all the processor's: there is never time without work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        loop.time = lambda: self.time  # type: ignore[method-assign]
        self.share = ProcessorShare(loop, lambda: self.time, self._after, idle=lambda: 0.0)

    def press(self, seconds: float = 1.0) -> None:
        """Have `greedy` take three times what `modest` takes, by little pieces that never wait for each other."""
        until = self.time + seconds
        while self.time < until:
            for client, cost in (("greedy", 0.0003), ("modest", 0.0001)):
                self.occupy(client, cost)
                self.share.start()
                self.iterate()
            self.time += 0.0001


@pytest.fixture
def short() -> Iterator[ShortMachine]:
    loop = asyncio.new_event_loop()
    yield ShortMachine(loop)
    loop.close()


def test_while_time_is_short_the_work_of_the_greedy_is_put_off_and_goes_on_by_itself(short: ShortMachine) -> None:
    short.press()
    while short.done[-1] == "greedy":
        short.occupy("greedy", 0.0003)
        short.share.start()
    short.done.clear()
    short.occupy("modest", 0.0001)
    short.share.start()
    assert short.done == ["modest"]
    short.time += MAX_DELAY
    short.iterate()
    short.iterate()
    assert "greedy" in short.done


def test_work_that_is_put_off_ends_with_its_client(short: ShortMachine) -> None:
    short.press()
    while not short.share.put_off("greedy", lambda _now: short.done.append("late")):
        short.occupy("greedy", 0.0003)
        short.share.start()
    short.share.forget("greedy")
    short.time += MAX_DELAY
    short.iterate()
    short.iterate()
    assert "late" not in short.done
    assert not short.share.put_off("greedy", lambda _now: None), "who comes anew has taken nothing"


def test_work_that_waits_and_is_put_off_besides_goes_on_once(short: ShortMachine, monkeypatch: Any) -> None:
    faults: list[object] = []
    short.loop.set_exception_handler(lambda _loop, context: faults.append(context))
    # Its datagrams wait for this pass; what the server has for it is put off before that.
    short.occupy("greedy", 0.0001)
    with monkeypatch.context() as patches:
        patches.setattr(short.share._limit, "is_set", True)
        patches.setattr(short.share._limit, "delay", lambda *_: 0.01)
        assert short.share.put_off("greedy", lambda _now: short.done.append("put off"))
        short.share.start()
        assert not short.done
    while short.share._work and not faults:
        short.time += 0.01
        short.iterate()
    short.time += 0.01
    short.iterate()
    assert (sorted(short.done), faults) == (["greedy", "put off"], [])


@pytest.mark.parametrize("is_short", [False, True])
def test_while_time_is_short_reading_is_charged_to_the_senders(short: ShortMachine, is_short: bool) -> None:
    class Socket:
        def read(self, _now: float, counts: dict[str, int] | None = None) -> bool:
            assert (counts is not None) == is_short
            if counts is not None:
                counts |= {"small": 9, "large": 1}
            short.time += 0.01
            return True

    if is_short:
        short.press()
    before = short.share.charged("anybody")
    assert short.share.read(Socket(), str.upper, short.time)  # type: ignore[arg-type]
    took = [short.share.charged(client) - before for client in ("SMALL", "LARGE")]
    assert took == pytest.approx([0.009, 0.001] if is_short else [0, 0])


def test_pieces_are_cut_while_somebody_waits_for_his_share(short: ShortMachine) -> None:
    short.press()
    while not short.share.put_off("greedy", lambda _now: None):
        short.occupy("greedy", 0.0003)
        short.share.start()
    pieces: list[int | None] = []
    short.share.add("modest", lambda _now: pieces.append(short.share.piece))
    short.share.start()
    assert pieces == [PIECE]


def test_who_has_gone_is_not_served(machine: Machine) -> None:
    machine.occupy("a", 0.0001)
    machine.occupy("b", 0.0001)
    machine.share.forget("a")
    machine.share.start()
    assert machine.done == ["b"]


class Socket:
    """Gives what waits, into buffers that the next batch is read into."""

    reads = 4

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.drained = True
        self._buffers = [bytearray(100) for _ in range(self.reads)]

    def recv_batch(self) -> list[Any]:
        batch = []
        for buffer, data in zip(self._buffers, self.waiting[: self.reads], strict=False):
            buffer[: len(data)] = data
            batch.append((memoryview(buffer)[: len(data)], len(data), ("192.0.2.1", 1)))
        del self.waiting[: self.reads]
        self.drained = len(batch) < self.reads
        return batch


@pytest.fixture
def arrivals() -> Any:
    socket, firsts = Socket(), []
    found: Arrivals[int] = Arrivals(
        socket,  # type: ignore[arg-type]
        lambda read: read[0][0] or None,
        firsts.append,
    )
    return SimpleNamespace(arrivals=found, socket=socket, firsts=firsts)


def contents(reads: list[Any]) -> list[bytes]:
    return [bytes(data) for data, _, _ in reads]


def test_nobody_waits_unseen_behind_the_packets_of_another(arrivals: Any) -> None:
    many = [bytes([1, number]) for number in range(100)]
    arrivals.socket.waiting = [b"\x02a", *many, b"\x02b"]
    assert arrivals.arrivals.read(5.0)
    assert arrivals.firsts == [2, 1]
    assert contents(arrivals.arrivals.take(2, None)) == [b"\x02a", b"\x02b"]
    assert contents(arrivals.arrivals.take(1, None)) == many


def test_what_waits_survives_later_reads(arrivals: Any) -> None:
    packets = [bytes([1 + number % 2, number]) for number in range(40)]
    for start in range(0, 40, 3):
        arrivals.socket.waiting = packets[start : start + 3]
        arrivals.arrivals.read(float(start))
    assert contents(arrivals.arrivals.take(1, None)) == packets[::2]
    assert contents(arrivals.arrivals.take(2, None)) == packets[1::2]


def test_the_packets_of_one_alone_are_taken_where_they_were_read_batch_by_batch(arrivals: Any) -> None:
    arrivals.socket.waiting = [bytes([1, number]) for number in range(10)]
    arrivals.arrivals.read(0.0)
    arrivals.arrivals.take(1, None)
    arrivals.socket.waiting = [bytes([1, number]) for number in range(10)]
    assert not arrivals.arrivals.read(5.0)
    taken = arrivals.arrivals.take(1, None)
    assert len(taken) == Socket.reads
    assert not any(data.readonly for data, _, _ in taken)


def test_what_is_all_of_one_alone_has_no_queue(arrivals: Any) -> None:
    packets = [bytes([1, number]) for number in range(3)]
    arrivals.socket.waiting = packets[:1]
    assert arrivals.arrivals.read_alone(int, 0.0) is None
    arrivals.arrivals.read(0.0)
    arrivals.socket.waiting = packets[1:]
    assert arrivals.arrivals.read_alone(int, 5.0) is None, "something of it waits"
    arrivals.arrivals.take(1, None)
    assert arrivals.arrivals.read_alone(int, MIXED_TIME / 2) is None, "it hasn't been alone for long"
    assert arrivals.arrivals.read_alone(str, 5.0) is None, "it is of another kind"
    assert len(arrivals.socket.waiting) == 2, "nothing was read"
    key, found = arrivals.arrivals.read_alone(int, 5.0)
    assert (key, contents(found), len(arrivals.arrivals)) == (1, packets[1:], 0)
    assert arrivals.firsts == [1]


def test_what_is_of_several_waits_for_each_and_survives_later_reads(arrivals: Any) -> None:
    arrivals.socket.waiting = [b"\x01a"]
    arrivals.arrivals.read(0.0)
    arrivals.arrivals.take(1, None)
    arrivals.socket.waiting = [b"\x01b", b"\x02c", b"\0", b"\x01d"]
    assert arrivals.arrivals.read_alone(int, 5.0) is None
    assert arrivals.firsts == [1, 1, 2]
    arrivals.socket.waiting = [b"\x01e", b"\x02f"]
    arrivals.arrivals.read(5.0)
    assert contents(arrivals.arrivals.take(1, None)) == [b"\x01b", b"\x01d", b"\x01e"]
    assert contents(arrivals.arrivals.take(2, None)) == [b"\x02c", b"\x02f"]
    assert arrivals.arrivals.read_alone(int, 5.0 + MIXED_TIME / 2) is None


def test_reading_ends_though_more_comes_all_the_time(arrivals: Any) -> None:
    arrivals.socket.waiting = [bytes([1 + number % 2]) for number in range(10 * MAX_READS)]
    assert not arrivals.arrivals.read(0.0)
    assert len(arrivals.socket.waiting) == 9 * MAX_READS


def test_what_is_nobodys_is_dropped(arrivals: Any) -> None:
    arrivals.socket.waiting = [b"\0"]
    assert arrivals.arrivals.read(0.0)
    assert not arrivals.arrivals
    assert arrivals.firsts == []


def test_what_comes_between_empty_datagrams_is_not_delayed_and_a_flood_of_them_ends_a_read() -> None:
    receiver = UdpSocket(("127.0.0.1", 0))
    sender = UdpSocket(("127.0.0.1", 0), peer=receiver.local_address, gso="off")
    found: Arrivals[bytes] = Arrivals(receiver, lambda read: bytes(read[0]), lambda _key: None)
    real = [bytes([number]) for number in range(40)]
    for datagram in real:
        sender.send_batch([b"", b"", datagram])
    assert found.read(5.0)
    assert [content for one in real for content in contents(found.take(one, None))] == real
    sender.send_batch([b""] * 10 * MAX_EMPTY)
    before = receiver.counters.rx_calls
    assert not found.read(9.0)
    assert receiver.counters.rx_calls - before == MAX_EMPTY
    sender.close()
    receiver.close()
