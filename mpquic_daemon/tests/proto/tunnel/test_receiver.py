"""Order is the tunnel's: what is missing is waited for by what its planes may yet bring."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame, FrameFlag
from mpquic.proto.path.memory import MemoryBudget
from mpquic.proto.tunnel.fragments import split
from mpquic.proto.tunnel.receiver import MAX_PATIENCE, RECENT, TunnelReceiver

from .. import packets as make


@dataclass(eq=False)
class Plane:
    """A plane that may yet bring what it has lost for so many seconds."""

    repairs: float
    rtt: float | None = 0.05

    def repair_time(self, traffic_class: int, now: float) -> float:
        del traffic_class, now
        return self.repairs


def segments(count: int, traffic_class: int = 1, version: int = 4) -> list[Frame]:
    """Segments of one TCP connection in order."""
    return [
        Frame(make.tcp(version, 7 + 100 * place, bytes(100), partial=False), traffic_class, place)
        for place in range(count)
    ]


class Tunnel:
    """A receiver, and what has come out of it: the places of segments."""

    def __init__(self) -> None:
        self.receiver = TunnelReceiver()
        self.out: list[int] = []

    def take(self, frames: list[Frame], now: float, plane: Plane) -> list[int]:
        self.write(self.receiver.receive(frames, now, plane))
        return self.out

    def expire(self, now: float) -> list[int]:
        self.write(self.receiver.expire(now))
        return self.out

    def write(self, writes: list[list[bytes]]) -> None:
        for write in writes:
            # Neighbours are joined to a superframe: 100 octets of each.
            data = b"".join(write)[10:]
            first = (int.from_bytes(data[24:28], "big") - 7) // 100
            self.out += range(first, first + (len(data) - 40) // 100)


def test_what_a_striped_path_repairs_is_waited_for() -> None:
    tunnel, stripe = Tunnel(), Plane(0.3)
    frames = segments(8)
    assert tunnel.take(frames[:3], 0.0, stripe) == [0, 1, 2]
    assert tunnel.take(frames[4:6], 0.01, stripe) == [0, 1, 2]
    assert tunnel.receiver.next_time == 0.01 + 0.3
    assert tunnel.take([frames[3]], 0.05, stripe) == [0, 1, 2, 3, 4, 5]
    assert tunnel.receiver.next_time is None
    assert (tunnel.receiver.held, tunnel.receiver.given_up) == (2, 0)


def test_nothing_waits_for_a_path_that_repairs_nothing() -> None:
    tunnel, quic = Tunnel(), Plane(0.0)
    frames = segments(6)
    tunnel.take(frames[:2], 0.0, quic)
    assert tunnel.take(frames[3:], 0.0, quic) == [0, 1, 3, 4, 5]
    assert tunnel.receiver.next_time is None


def test_what_another_path_has_brought_is_no_gap_of_this_one() -> None:
    tunnel, stripe, other = Tunnel(), Plane(0.3), Plane(0.3)
    frames = segments(9)
    tunnel.take(frames[:3], 0.0, stripe)
    tunnel.take(frames[3:6], 0.01, other)
    assert tunnel.take(frames[6:], 0.02, stripe) == list(range(9))
    assert tunnel.receiver.held == 0


def test_what_a_slower_path_is_yet_to_bring_is_waited_for_by_a_quicker_one() -> None:
    tunnel, slow, quick = Tunnel(), Plane(0.0, rtt=0.6), Plane(0.0, rtt=0.02)
    frames = segments(9)
    tunnel.take(frames[:2], 0.0, slow)
    # The sender has gone over to the quicker path while 2 and 3 are on the slower one's way.
    assert tunnel.take(frames[4:6], 0.1, quick) == [0, 1]
    assert tunnel.take(frames[2:4], 0.3, slow) == [0, 1, 2, 3, 4, 5]
    # A path that has brought nothing for long brings nothing more.
    assert tunnel.take(frames[7:], 0.4 + RECENT, quick) == [0, 1, 2, 3, 4, 5, 7, 8]


def test_what_was_lost_for_good_goes_on_after_its_time() -> None:
    tunnel, stripe = Tunnel(), Plane(0.3)
    frames = segments(6)
    tunnel.take(frames[:2], 0.0, stripe)
    tunnel.take(frames[3:], 0.1, stripe)
    assert tunnel.expire(0.39) == [0, 1]
    assert tunnel.expire(0.401) == [0, 1, 3, 4, 5]
    assert tunnel.receiver.given_up == 1


def test_what_is_refused_leaves_no_gap() -> None:
    tunnel, stripe = Tunnel(), Plane(0.3)
    frames = segments(8)
    frames[2].payload = b"\x45"
    tunnel.take(frames[:2], 0.0, stripe)
    # In one piece with others, and out of order.
    assert tunnel.take(frames[2:4], 0.0, stripe) == [0, 1, 3]
    frames[5].payload = b"\x45"
    assert tunnel.take([frames[5], frames[4], *frames[6:]], 0.0, stripe) == [0, 1, 3, 4, 6, 7]
    assert tunnel.receiver.next_time is None


def test_a_packet_in_fragments_is_waited_for_until_it_is_whole() -> None:
    tunnel, stripe = Tunnel(), Plane(0.3)
    frames = segments(4)
    first, second = split(Frame(frames[1].payload, 1, 1), 100)
    assert first.flags & FrameFlag.FRAGMENT
    tunnel.take([frames[0], first], 0.0, stripe)
    assert tunnel.take(frames[2:], 0.01, stripe) == [0]
    assert tunnel.take([second], 0.02, stripe) == [0, 1, 2, 3]


def test_classes_do_not_wait_for_each_other() -> None:
    tunnel, stripe = Tunnel(), Plane(0.3)
    one, other = segments(4, 1), segments(4, 2)
    tunnel.take([one[0], other[0]], 0.0, stripe)
    tunnel.out.clear()
    assert tunnel.take([one[2], other[1], other[2]], 0.0, stripe) == [1, 2]
    assert tunnel.take([one[1], other[3]], 0.1, stripe) == [1, 2, 1, 2, 3]


def test_a_plane_that_has_ended_is_not_kept() -> None:
    receiver = TunnelReceiver()
    frames = segments(4)
    first, second = Plane(0.3), Plane(0.3)
    gone = weakref.ref(first)
    receiver.receive(frames[:1], 0.0, first)
    receiver.receive(frames[1:2], 0.5, second)
    del first
    assert gone() is not None
    receiver.receive(frames[2:3], RECENT + 0.1, second)
    assert gone() is None


def test_a_new_session_and_the_end_forget_what_waits() -> None:
    memory = MemoryBudget()
    receiver, stripe = TunnelReceiver(memory=memory), Plane(0.3)
    frames = segments(6)
    receiver.receive(frames[:1], 0.0, stripe)
    receiver.receive(frames[2:], 0.0, stripe)
    assert memory.stored > 0
    receiver.restart()
    assert memory.stored == 0
    assert receiver.next_time is None
    assert receiver.held == 4
    assert len(receiver.receive(segments(3), 1.0, stripe)) > 0


def test_what_was_counted_stays_so_in_a_new_session() -> None:
    receiver = TunnelReceiver()
    for fragment in split(Frame(segments(1)[0].payload, 1, 0), 100):
        receiver.receive([fragment], 0.0)
    receiver.receive(split(Frame(segments(1)[0].payload, 1, 1), 100)[:1], 0.0)
    receiver.restart()
    assert receiver.reassembler.snapshot()["completed"] == 1
    assert (len(receiver.reassembler), receiver.reassembler.memory) == (0, 0)


def test_however_long_the_ways_are_a_gap_is_not_waited_for_longer_than_anybody_would() -> None:
    tunnel, full, other = Tunnel(), Plane(9.0, rtt=3.0), Plane(0.0, rtt=4.0)
    frames = segments(6)
    tunnel.take(frames[:1], 0.0, other)
    tunnel.take(frames[1:2], 0.0, full)
    tunnel.take(frames[3:], 0.1, full)
    assert tunnel.expire(0.1 + MAX_PATIENCE) == [0, 1, 3, 4, 5]


@settings(deadline=None)
@given(st.integers(2, 40), st.randoms(use_true_random=False), st.floats(0, 0.4), st.booleans())
def test_two_paths_bring_a_connection_in_order_whichever_took_what(
    count: int, rng: object, loss: float, repaired: bool
) -> None:
    """Each plane brings what it was given in order, but for what it lost, which it brings later if it repairs."""
    random = rng.random  # type: ignore[attr-defined]
    tunnel, planes = Tunnel(), (Plane(0.4, rtt=0.03), Plane(0.4, rtt=0.1))
    arrivals: list[tuple[float, int, int]] = []
    for place in range(count):
        which = int(random() < 0.3)
        at = place * 0.002 + (0.015, 0.05)[which]
        if place > 3 and random() < loss:
            if not repaired:
                continue
            at += 0.04 + 0.1 * random()
        arrivals.append((at, which, place))
    frames = segments(count)
    now = 0.0
    for now, which, place in sorted(arrivals):
        tunnel.expire(now)
        tunnel.take([frames[place]], now, planes[which])
    tunnel.expire(now + 2.0)
    assert sorted(tunnel.out) == sorted(place for _, _, place in arrivals)
    if repaired:
        first = [place for place in tunnel.out if place > tunnel.out[0]]
        assert first == sorted(first)
