"""What sends back, and what counts what has come back."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from mpqlab import echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def replying() -> Iterator[Callable[[Callable[[bytes], bytes | None]], int]]:
    """Make a UDP port of the loopback that replies as a test says."""
    opened: list[socket.socket] = []

    def make(answer: Callable[[bytes], bytes | None]) -> int:
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ours.bind(("127.0.0.1", 0))
        opened.append(ours)

        def reply() -> None:
            while True:
                try:
                    data, sender = ours.recvfrom(2048)
                except OSError:
                    return
                if not data:
                    return
                back = answer(data)
                if back is not None:
                    ours.sendto(back, sender)

        threading.Thread(target=reply, daemon=True).start()
        return int(ours.getsockname()[1])

    yield make
    for ours in opened:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ours.getsockname())
        ours.close()


def until(count: int) -> Callable[[], bool]:
    """Be over after so many questions."""
    asked = iter(range(count))
    return lambda: next(asked, None) is None


def test_a_call_counts_each_packet_that_comes_back_once(replying) -> None:
    port = replying(lambda data: data)
    found = echo.call("127.0.0.1", "127.0.0.1", port, until(40))
    assert found["sent"] > 3
    assert found["lost"] == 0


def test_a_call_counts_what_does_not_come_back(replying) -> None:
    port = replying(lambda data: None if int.from_bytes(data[:4], "big") % 2 else data)
    found = echo.call("127.0.0.1", "127.0.0.1", port, until(40))
    assert found["lost"] == found["sent"] // 2


def test_requests_are_counted_that_are_replied_to(replying) -> None:
    assert echo.send("udp", "127.0.0.1", "127.0.0.1", replying(lambda data: data), 5) == 5


def test_what_is_pushed_is_counted_for_as_long_as_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    rates = echo.count(port, 0.3, "127.0.0.1")
    got: list[float] = []
    counting = threading.Thread(target=lambda: got.append(next(rates)))
    counting.start()
    while "ready" not in capsys.readouterr().out:
        counting.join(0.01)
    echo.push("127.0.0.1", "127.0.0.1", port, 20.0)  # ended by the receiver
    counting.join()
    assert got[0] > 1


def test_an_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert echo.main(["listen"]) == 2
    assert "mpqlab.echo serve PORT..." in capsys.readouterr().err


def test_a_flood_has_the_rate_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    held_up = iter([0.05, 0.25])
    pause = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: pause(next(held_up, seconds)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sent = echo.flood("127.0.0.1", "127.0.0.1", sink.getsockname()[1], 2.0, 0.3)
    # One at the beginning, the last one within 0.3 s, however long the processor was taken away.
    assert sent == 1 + int(0.3 * 2e6 / 8 / (echo.SIZE + echo.IP_UDP_BYTES))
