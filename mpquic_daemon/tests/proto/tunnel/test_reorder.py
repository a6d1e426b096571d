from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.frame import Frame, class_octet
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.tcp import TcpSpan, run_span, tcp_span
from mpquic.proto.stripe.session import repair_time
from mpquic.proto.tunnel.reorder import HELD_COST, ReorderBuffer, held_cost

from .. import packets as make
from ..superframes import assembled, run_of, singles


def tcp(connection: int, sequence: int, size: int = 100, flags: int = 0x10, version: int = 4) -> bytes:
    segment = (connection.to_bytes(2, "big") + b"\x01\xbb" + (sequence % 2**32).to_bytes(4, "big") + bytes(4)) + bytes(
        (0x50, flags, 0, 0, 0, 0, 0, 0)
    )
    segment += bytes(size)
    if version == 6:
        return b"\x60\0\0\0" + len(segment).to_bytes(2, "big") + bytes((6, 64)) + bytes(32) + segment
    return b"\x45\0" + (20 + len(segment)).to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, 6, 0, 0)) + bytes(8) + segment


def udp(size: int = 100) -> bytes:
    return b"\x45\0" + (28 + size).to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, 17)) + bytes(18 + size)


def sequences(frames: list[Frame]) -> list[int]:
    return [frame.sequence for frame in frames]


def connection_frames(count: int, connection: int = 1, first: int = 0) -> list[Frame]:
    return [Frame(tcp(connection, 2**32 - 250 + 100 * place), 1, first + place) for place in range(count)]


def test_spans_are_read_for_both_versions_and_nothing_else() -> None:
    for version in (4, 6):
        span = tcp_span(tcp(7, 1000, 55, version=version))
        assert span is not None
        assert (span.sequence, span.length, span.opens) == (1000, 55, False)
    opening = tcp_span(tcp(7, 5, 0, flags=0x02))
    assert opening is not None
    assert (opening.length, opening.opens) == (1, True)
    fragment = bytearray(tcp(7, 5))
    fragment[6] = 0x20
    assert tcp_span(bytes(fragment)) is None
    assert tcp_span(udp()) is None
    assert tcp_span(tcp(7, 5)[:60]) is None


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45", b"\x60", b"\x4f"]))
def test_arbitrary_octets_have_a_span_or_none(tail: bytes, start: bytes) -> None:
    span = tcp_span(start + tail)
    assert span is None or (span.length >= 0 and 0 <= span.sequence < 2**32)


def test_in_order_frames_pass() -> None:
    order = ReorderBuffer()
    frames = connection_frames(10)
    assert order.add(frames, 0.0, 0.1) == frames
    assert order.next_time() is None


def test_what_follows_a_gap_of_its_own_connection_waits_for_the_repair() -> None:
    order = ReorderBuffer()
    frames = connection_frames(8)
    order.add(frames[:3], 0.0, 0.1)
    assert order.add(frames[4:7], 0.01, 0.1) == []
    assert order.bytes == 3 * (140 + HELD_COST)
    assert order.add([frames[3]], 0.05, 0.1) == frames[3:7]
    assert order.bytes == 0
    assert order.add([frames[7]], 0.06, 0.1) == [frames[7]]


def test_what_has_gone_on_at_once_tells_whose_a_gap_is() -> None:
    order = ReorderBuffer()
    mine, theirs = connection_frames(6, 1), connection_frames(3, 2, first=6)
    order.passed(mine[:3], 0, 2, 3 * 140)
    order.passed([mine[3], *theirs[:1]], 3, 4, 2 * 140)
    later = [Frame(mine[5].payload, 1, 6), Frame(theirs[1].payload, 1, 7)]
    # Number 5 is lost: mine, since one of its octets is missing.
    assert order.add(later, 0.01, 0.1) == later[1:]
    missing = Frame(mine[4].payload, 1, 5)
    assert order.add([missing], 0.02, 0.1) == [missing, later[0]]


def test_numbers_of_what_was_refused_are_no_gap() -> None:
    order = ReorderBuffer()
    frames = connection_frames(6)
    order.add(frames[:2], 0.0, 0.1)
    order.arrived(2, 2, 0.0, 0.1)
    assert order.add(frames[4:], 0.0, 0.1) == frames[4:]
    assert order.is_idle


def test_nothing_waits_for_what_does_not_come_again() -> None:
    order = ReorderBuffer()
    frames = connection_frames(6)
    order.add(frames[:2], 0.0, 0.0)
    assert order.add(frames[3:], 0.0, 0.0) == frames[3:]
    assert order.is_idle


def test_what_never_comes_is_waited_for_no_longer_than_said() -> None:
    order = ReorderBuffer()
    frames = connection_frames(6)
    order.add(frames[:2], 0.0, 0.1)
    assert order.add(frames[3:], 0.01, 0.1) == []
    assert order.next_time() == 0.11
    assert order.expire(0.1) == []
    assert order.expire(0.111) == frames[3:]
    assert order.given_up == 1
    assert order.add([frames[2]], 0.2, 0.1) == [frames[2]]


def test_others_do_not_wait() -> None:
    order = ReorderBuffer()
    mine, theirs = connection_frames(4, 1), connection_frames(4, 2)
    mixed = [frame for pair in zip(mine, theirs, strict=True) for frame in pair]
    for number, frame in enumerate(mixed):
        frame.sequence = number
    order.add(mixed[:4], 0.0, 0.1)
    ping = Frame(udp(), 1, 8)
    opening = Frame(tcp(3, 9, 0, flags=0x02), 1, 9)
    # Number 4, of the first connection, is lost.
    assert order.add([*mixed[5:], ping, opening], 0.0, 0.1) == [mixed[5], mixed[7], ping, opening]
    assert order.add([mixed[4]], 0.0, 0.1) == [mixed[4], mixed[6]]


def test_what_a_connection_sends_again_does_not_overtake_what_waits() -> None:
    order = ReorderBuffer()
    segments = [tcp(1, 100 * place) for place in range(8)]
    # A queue dropped segment 2 before the tunnel; then the path lost segment 4, and 2 is sent again.
    sent = [Frame(segments[place], 1, number) for number, place in enumerate((0, 1, 3, 4, 5, 6, 2, 7))]
    assert order.add(sent[:3], 0.0, 0.1) == sent[:3]
    assert order.add(sent[4:], 0.01, 0.1) == []
    assert order.add([sent[3]], 0.05, 0.1) == sent[3:]
    assert order.bytes == 0


def test_a_repetition_with_the_octet_that_is_due_passes_and_the_next_gap_still_counts() -> None:
    order = ReorderBuffer()
    segments = [tcp(1, 100 * place) for place in range(8)]
    # The path lost segments 2 and 5; the connection sends 2 again before the path's copies come.
    sent = [Frame(segments[place], 1, number) for number, place in enumerate((0, 1, 2, 3, 4, 5, 6, 7, 2))]
    order.add(sent[:2], 0.0, 0.1)
    assert order.add([*sent[3:5], *sent[6:8]], 0.01, 0.1) == []
    assert order.add([sent[8]], 0.02, 0.1) == [sent[8], *sent[3:5]]
    assert order.add([sent[5]], 0.05, 0.1) == sent[5:8]


def test_a_packet_that_was_dropped_before_the_tunnel_is_not_waited_for() -> None:
    order = ReorderBuffer()
    frames = connection_frames(6)
    del frames[3]
    for number, frame in enumerate(frames):
        frame.sequence = number
    assert order.add(frames, 0.0, 0.1) == frames


def test_memory_is_bounded() -> None:
    order = ReorderBuffer(max_bytes=2000)
    frames = connection_frames(100)
    passed = order.add(frames[:2], 0.0, 1.0)
    for frame in frames[3:]:
        passed = passed + order.add([frame], 0.0, 1.0)
        assert order.bytes <= 2000
    assert sequences(passed)[2:] == list(range(3, 100))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.4), st.integers(1, 4), st.booleans())
def test_every_frame_passes_once_and_repaired_connections_are_in_order(
    seed: int, loss: float, connections: int, repaired: bool
) -> None:
    rng = random.Random(seed)
    order = ReorderBuffer()
    counters = [0] * connections
    arrivals: list[tuple[float, int, Frame]] = []
    for number in range(150):
        mine = rng.randrange(connections + 1)
        if mine == connections:
            frame = Frame(udp(), 1, number)
        else:
            frame = Frame(tcp(mine, counters[mine]), 1, number)
            counters[mine] += 100
        lost = number >= 20 and rng.random() < loss
        if not lost:
            arrivals.append((number * 0.001, number, frame))
        elif repaired:
            arrivals.append((number * 0.001 + 0.03 + rng.random() * 0.05, number, frame))
    passed: list[Frame] = []
    waited = 0.0
    for at, _, frame in sorted(arrivals, key=lambda one: one[:2]):
        passed += order.expire(at)
        passed += order.add([frame], at, 0.1)
        waited = at
    passed += order.expire(waited + 0.2)
    assert sorted(sequences(passed)) == sorted(number for _, number, _ in arrivals)
    assert order.bytes == 0
    if repaired:
        assert order.given_up == 0
        for connection in range(connections):
            seen = [
                span.sequence
                for frame in passed
                if (span := tcp_span(frame.payload)) is not None
                and span.connection[8:10] == connection.to_bytes(2, "big")
            ]
            assert seen == sorted(seen)


def test_an_outage_is_not_waited_for() -> None:
    order = ReorderBuffer()
    order.add(connection_frames(3), 0.0, 0.1)
    late = connection_frames(2, 1, first=100_000)
    assert order.add(late, 1.0, 0.1) == late


def test_waiting_lasts_some_round_trips() -> None:
    assert repair_time(class_octet(2, low_latency=True), 0.03) < repair_time(2, 0.03) < 0.3
    assert repair_time(2, 0.6) == 1.0


def runs_of_a_connection(count: int, segments: int = 4) -> list[SegmentRun]:
    """Superframes of one connection, as they arrive."""
    size = segments * 100
    reads = [make.superframe(4, 2**32 - 250 + size * place, bytes(size), 100) for place in range(count)]
    assembler = FrameAssembler(pytest.fail)
    for place, read in enumerate(reads):
        for datagram in run_of(read, segments * place).encode():
            assembler.add(datagram)
    runs = assembler.take()
    assert [run.sequence for run in runs] == [segments * place for place in range(count)]
    return runs  # type: ignore[return-value]


def part_of(run: SegmentRun, first: int, last: int) -> SegmentRun:
    """The run that its segments first..last make."""
    return SegmentRun(
        run.head,
        run.layout,
        run.parts[first : last + 1],
        run.skip,
        run.gso_size,
        run.offset + first * run.gso_size,
        run.sequence + first,
        last - first + 1,
        run.traffic_class,
    )


def test_runs_in_order_pass_as_they_are() -> None:
    order = ReorderBuffer()
    runs = runs_of_a_connection(3)
    assert order.add([*runs], 0.0, 0.1) == runs
    assert order.next_time() is None


def test_runs_behind_a_gap_wait_for_what_is_missing_between_them() -> None:
    order = ReorderBuffer()
    first, second, third = runs_of_a_connection(3)
    assert order.add([first], 0.0, 0.1) == [first]
    assert order.add([third], 0.01, 0.1) == []
    assert order.bytes == held_cost(third)
    assert order.add([second], 0.02, 0.1) == [second, third]
    assert (order.bytes, order.next_time()) == (0, None)
    assert order.add(runs_of_a_connection(4)[3:], 0.03, 0.1)[0].sequence == 12


def test_a_gap_inside_a_run_is_filled_by_the_segment_alone() -> None:
    order = ReorderBuffer()
    [run] = runs_of_a_connection(1, 6)
    frames = run.frames()
    head, tail = part_of(run, 0, 1), part_of(run, 3, 5)
    assert order.add([head, tail], 0.0, 0.1) == [head]
    assert order.add([frames[2]], 0.05, 0.1) == [frames[2], tail]
    assert order.bytes == 0


def test_pieces_of_a_superframe_that_waited_go_on_as_one() -> None:
    order = ReorderBuffer()
    [run, after] = runs_of_a_connection(2, 6)
    parts = [part_of(run, first, first + 1) for first in (0, 2, 4)]
    assert order.add([parts[0]], 0.0, 0.1) == [parts[0]]
    assert order.add([parts[2]], 0.01, 0.1) == []
    assert order.add([after], 0.01, 0.1) == []
    [rest, second] = order.add([parts[1]], 0.02, 0.1)
    assert singles([rest]) == run.frames()[2:]
    assert second is after
    assert [part.count for part in parts] == [2, 2, 2]


def test_a_run_that_ends_its_connection_is_as_long_as_its_segments_say() -> None:
    read = make.superframe(4, 2**32 - 100, bytes(350), 100, make.ACK | make.FIN)
    run = run_of(read)
    spans = [tcp_span(frame.payload) for frame in run.frames()]
    assert None not in spans
    whole = run_span(run)
    assert whole is not None
    assert (whole.connection, whole.sequence, whole.opens) == (*spans[0][:2], False)  # type: ignore[index]
    assert whole.length == sum(span.length for span in spans if span is not None)
    part = part_of(assembled(run.encode()), 1, 2)
    assert run_span(part) == TcpSpan(whole.connection, 0, 200, opens=False)


def test_a_run_whose_gap_is_never_filled_goes_on_after_its_time() -> None:
    order = ReorderBuffer()
    first, _, third = runs_of_a_connection(3)
    order.add([first], 0.0, 0.1)
    assert order.add([third], 0.01, 0.1) == []
    assert order.expire(0.1) == []
    assert order.expire(0.111) == [third]
    assert (order.given_up, order.bytes) == (4, 0)


def test_runs_of_others_and_of_udp_do_not_wait() -> None:
    order = ReorderBuffer()
    first, _, third = runs_of_a_connection(3)
    other = run_of(make.superframe(4, 2, bytes(300), 100, ports=(1, 2)), 4)
    datagrams = run_of(make.udp_superframe(6, bytes(300), 100), 12)
    order.add([first, other], 0.0, 0.1)
    third.sequence = 8
    assert order.add([third, datagrams], 0.01, 0.1) == [datagrams]
    assert order.expire(0.2) == [third]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.4), st.integers(2, 12))
def test_every_segment_of_runs_passes_once_and_in_order_when_repaired(seed: int, loss: float, segments: int) -> None:
    rng = random.Random(seed)
    order = ReorderBuffer()
    runs = runs_of_a_connection(12, segments)
    arrivals: list[tuple[float, Frame | SegmentRun]] = []
    for place, run in enumerate(runs):
        at, frames = place * 0.002, run.frames()
        kept = [place < 2 or rng.random() >= loss for _ in range(segments)]
        start = 0
        while start < segments:
            stop = start
            while stop < segments and kept[stop] == kept[start]:
                stop += 1
            if kept[start]:
                arrivals.append((at, part_of(run, start, stop - 1)))
            else:
                arrivals += [(at + 0.03 + rng.random() * 0.05, frame) for frame in frames[start:stop]]
            start = stop
    passed: list[Frame | SegmentRun] = []
    for at, carried in sorted(arrivals, key=lambda one: one[0]):
        passed += order.add([carried], at, 0.2)
    assert sequences(singles(passed)) == list(range(12 * segments))
    assert (order.bytes, order.given_up) == (0, 0)
