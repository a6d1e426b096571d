"""The event loop: readers are called at once, nothing of asyncio waits for them, and idle time is told."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from mpquic.net.event_loop import EventLoop, after_reading, idle_time

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")
Pair = tuple[socket.socket, socket.socket]


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        return runner.run(asyncio.wait_for(main, 10))


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def test_waiting_is_idle_and_working_is_not() -> None:
    async def main() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        began = idle_time()
        since = loop.time()
        await asyncio.sleep(0.05)
        waited, passed = idle_time() - began, loop.time() - since
        began = idle_time()
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        return waited, passed, idle_time() - began

    waited, passed, idle_at_work = run(main())
    assert 0.04 < waited <= passed
    assert idle_at_work == 0


def test_a_loop_that_does_not_tell_counts_as_idle() -> None:
    async def main() -> tuple[float, float]:
        return idle_time(), asyncio.get_running_loop().time()

    idle, now = asyncio.run(main())
    assert 0 <= now - idle < 1


def test_a_reader_is_called_for_each_datagram_with_its_arguments_until_it_is_removed(pair: Pair) -> None:
    near, far = pair

    async def main() -> tuple[list[tuple[str, bytes]], bool, bool]:
        loop = asyncio.get_running_loop()
        got: list[tuple[str, bytes]] = []
        third = loop.create_future()

        def read(name: str) -> None:
            got.append((name, near.recv(10)))
            if len(got) == 3:
                third.set_result(None)

        loop.add_reader(near, read, "first")
        far.send(b"1")
        far.send(b"2")
        await asyncio.sleep(0)
        loop.add_reader(near.fileno(), read, "second")
        far.send(b"3")
        await third
        removed = loop.remove_reader(near)
        far.send(b"4")
        await asyncio.sleep(0.01)
        return got, removed, loop.remove_reader(near)

    got, removed, again = run(main())
    assert [octets for _, octets in got] == [b"1", b"2", b"3"]
    assert got[0][0] == "first"
    assert got[-1][0] == "second"
    assert (removed, again) == (True, False)


def test_a_reader_may_set_a_timer_that_is_due_before_all_others_and_ask_for_a_call(pair: Pair) -> None:
    near, far = pair

    async def main() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        late = loop.call_later(60, order.append, "late")
        done = loop.create_future()

        def read() -> None:
            near.recv(10)
            loop.call_later(0.02, order.append, "timer")
            loop.call_later(0.03, done.set_result, None)
            loop.call_soon(order.append, "soon")
            order.append("read")

        loop.add_reader(near, read)
        far.send(b"1")
        began = loop.time()
        await done
        late.cancel()
        loop.remove_reader(near)
        return order, loop.time() - began

    order, took = run(main())
    assert order == ["read", "soon", "timer"]
    assert 0.03 <= took < 5


def test_a_reader_that_always_has_something_to_read_keeps_neither_timers_nor_tasks_waiting(pair: Pair) -> None:
    near, far = pair

    async def main() -> int:
        loop = asyncio.get_running_loop()
        reads = 0

        def look() -> None:
            nonlocal reads
            reads += 1

        loop.add_reader(near, look)
        far.send(b"1")
        await asyncio.sleep(0.02)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        loop.remove_reader(near)
        return reads

    assert run(main()) > 10


def test_what_a_reader_raises_goes_to_the_exception_handler_and_the_loop_goes_on(pair: Pair) -> None:
    near, far = pair

    async def main() -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: faults.append(context))

        def fail() -> None:
            near.recv(10)
            raise ValueError("of a reader")

        loop.add_reader(near, fail)
        for _ in range(2):
            far.send(b"1")
            await asyncio.sleep(0.01)
        loop.remove_reader(near)
        return faults

    assert [str(fault["exception"]) for fault in run(main())] == ["of a reader"] * 2


def test_a_writer_of_the_same_socket_and_transports_are_served_beside_readers(pair: Pair) -> None:
    near, far = pair

    async def main() -> tuple[bytes, bytes]:
        loop = asyncio.get_running_loop()
        got, writable = loop.create_future(), loop.create_future()
        loop.add_reader(near, lambda: got.set_result(near.recv(10)))

        def write() -> None:
            loop.remove_writer(near)
            writable.set_result(None)

        loop.add_writer(near, write)
        await writable
        far.send(b"direct")
        direct = await got
        loop.remove_reader(near)
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        with right:
            right.sendall(b"stream\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return direct, line

    assert run(main()) == (b"direct", b"stream\n")


def test_a_reader_may_stop_the_loop(pair: Pair) -> None:
    near, far = pair
    loop = EventLoop()
    try:
        loop.add_reader(near, loop.stop)
        far.send(b"1")
        loop.run_forever()
        assert loop.remove_reader(near)
    finally:
        loop.close()


def test_a_socket_that_was_closed_too_early_is_forgotten_and_its_number_can_be_used_again() -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        loop.add_reader(reading, lambda: None)
        os.close(reading)
        os.close(writing)
        again, writing = os.pipe()
        assert again == reading
        got = loop.create_future()
        loop.add_reader(again, lambda: got.set_result(os.read(again, 10)))
        os.write(writing, b"new")
        octets: bytes = await got
        assert loop.remove_reader(again)
        for each in (again, writing):
            os.close(each)
        return octets

    assert run(main()) == b"new"


def test_what_is_called_after_reading_is_called_once_and_lets_a_reply_go_first(pair: Pair) -> None:
    near, far = pair

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        order: list[str] = []
        done = loop.create_future()

        def finish() -> None:
            order.append("after")
            done.set_result(None)

        def read() -> None:
            order.append(near.recv(10).decode())
            loop.call_after_reading(finish)
            if len(order) == 1:
                far.send(b"reply")

        loop.add_reader(near, read)
        far.send(b"first")
        await done
        loop.remove_reader(near)
        return order

    assert run(main()) == ["first", "reply", "after"]


def test_what_is_called_after_reading_does_not_wait_for_readers_that_never_rest(pair: Pair) -> None:
    near, far = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.add_reader(near, lambda: None)
        far.send(b"1")
        after_reading(loop)(lambda: done.set_result(None))
        await done
        loop.remove_reader(near)

    run(main())


def test_a_loop_that_does_not_tell_what_it_reads_calls_it_soon() -> None:
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        after_reading(asyncio.get_running_loop())(lambda: done.set_result(None))
        await asyncio.wait_for(done, 10)

    asyncio.run(main())
