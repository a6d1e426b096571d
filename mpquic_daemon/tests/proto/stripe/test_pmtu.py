"""What a path carries is found, kept, and found anew when it shrinks and nobody says so (RFC 8899)."""

from __future__ import annotations

import heapq
import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpquic.proto.path.pmtu import (
    DOUBT_INTERVAL,
    FIRST_RAISE,
    LARGE_LOSSES,
    MAX_PROBES,
    MAX_REPLIES,
    MAX_WITNESSES,
    MIN_OVERDUE,
    PROBE_INTERVAL,
    RAISE_INTERVAL,
    SILENT_INTERVAL,
    SILENT_PROBES,
    STEP,
    TRUST_TIME,
    AnswerLimit,
    PathMtu,
    PathMtuState,
    Probe,
    decode_probe,
    decode_probe_ack,
    encode_probe,
    encode_probe_ack,
)
from mpquic.proto.stripe.config import MAX_DATAGRAM, MIN_DATAGRAM
from mpquic.proto.stripe.inflight import InFlight, SentBatch
from mpquic.proto.stripe.reports import Report
from mpquic.proto.stripe.wire import OVERHEAD

CEILING = 1472
RTT = 0.05
VERDICT = (MAX_PROBES - 1) * PROBE_INTERVAL + RTT + MIN_OVERDUE
"""Seconds until a size has failed on a clean path."""


class Wire:
    """A path that carries datagrams up to `mtu` bytes; probes and answers are lost with `loss` each."""

    def __init__(self, mtu: int, *, ceiling: int = CEILING, loss: float = 0.0, rtt: float = RTT, seed: int = 1) -> None:
        self.mtu, self.loss, self.rtt = mtu, loss, rtt
        self.now = 0.0
        self.path = PathMtu(MIN_DATAGRAM, ceiling, self.now)
        self.sent: list[int] = []
        self.sizes: list[int] = []
        self._rng = random.Random(seed)
        self._answers: list[tuple[float, Probe]] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = self.path.due_at
            times = [self._answers[0][0]] if self._answers else []
            times += [] if due is None else [max(due, self.now)]
            if not times or min(times) > end:
                self.now = end
                return
            self.now = min(times)
            while self._answers and self._answers[0][0] <= self.now:
                self.path.on_acknowledged(heapq.heappop(self._answers)[1], self.now)
            for probe in self.path.poll(self.now, self.rtt):
                self.sent.append(probe.size)
                kept = self._rng.random() >= self.loss and self._rng.random() >= self.loss
                if probe.size <= self.mtu and kept:
                    heapq.heappush(self._answers, (self.now + self.rtt, probe))
            self.sizes.append(self.path.size)

    def lose(self, count: int, *, carried: bool = False, size: int | None = None) -> None:
        """So many shards are lost, full ones by default; another as large has arrived since, or none has."""
        for number in range(count):
            self.path.on_lost(number, size or self.path.size, self.now)
        self.path.weigh(lambda _size, _after: carried)


def converged(mtu: int) -> Wire:
    """A wire whose search has just ended."""
    wire = Wire(mtu)
    while wire.path.state is not PathMtuState.SEARCH_COMPLETE:
        wire.run(0.05)
    wire.run(2 * TRUST_TIME)
    wire.sent.clear()
    return wire


def test_the_first_probe_is_the_ceiling_and_its_answer_ends_the_search() -> None:
    wire = Wire(CEILING)
    assert (wire.path.size, wire.path.state) == (MIN_DATAGRAM, PathMtuState.BASE)
    wire.run(RTT + 0.001)
    assert (wire.path.size, wire.path.state) == (CEILING, PathMtuState.SEARCH_COMPLETE)
    assert wire.sent == [CEILING, MIN_DATAGRAM]
    assert wire.path.due_at is None


@pytest.mark.parametrize("mtu", [1232, 1252, 1392, 1444, 1464])
def test_a_common_size_is_found_exactly_and_soon(mtu: int) -> None:
    wire = Wire(mtu)
    wire.run(3.0)
    assert wire.path.size == mtu
    wire.run(3.0)
    assert wire.path.state is PathMtuState.SEARCH_COMPLETE


def test_a_size_fails_after_three_probes_and_not_before() -> None:
    wire = Wire(1300)
    wire.run(VERDICT - 0.01)
    assert wire.sent == [CEILING, MIN_DATAGRAM] * MAX_PROBES
    wire.run(0.02)
    assert wire.sent[-2] not in (CEILING, MIN_DATAGRAM)


def test_over_a_long_round_trip_probes_overlap_and_each_has_its_time() -> None:
    wire = Wire(CEILING, rtt=0.6)
    wire.run(0.59)
    assert wire.sent == [CEILING, MIN_DATAGRAM] * MAX_PROBES
    wire.run(0.02)
    assert wire.path.size == CEILING
    wire = Wire(1252, rtt=0.6)
    wire.run(2 * PROBE_INTERVAL + 0.6 * 1.25 - 0.01)
    assert set(wire.sent) == {MIN_DATAGRAM, CEILING}
    wire.run(0.02)
    assert wire.sent[-2] not in (CEILING, MIN_DATAGRAM)


def test_nothing_is_concluded_while_not_even_the_base_size_is_answered() -> None:
    wire = Wire(0)
    wire.run(60.0)
    assert wire.path.state is PathMtuState.BASE
    assert set(wire.sent) == {MIN_DATAGRAM, CEILING}
    assert len(wire.sent) <= 2 * (60 / SILENT_INTERVAL + SILENT_PROBES)
    wire.mtu = CEILING
    wire.run(1.1)
    assert wire.path.size == CEILING


def test_an_equal_base_and_ceiling_leave_nothing_to_discover() -> None:
    path = PathMtu(CEILING, CEILING, 0.0)
    assert (path.state, path.due_at, path.size) == (PathMtuState.DISABLED, None, CEILING)
    for number in range(100):
        path.on_lost(number, CEILING, 0.0)
    path.weigh(lambda _size, _after: False)
    path.on_stall(CEILING)
    path.on_too_large(CEILING, 0.0)
    assert (path.due_at, path.size, path.poll(1e9, RTT)) == (None, CEILING, [])
    with pytest.raises(ValueError, match="above the ceiling"):
        PathMtu(CEILING + 1, CEILING, 0.0)


def test_what_the_kernel_refuses_is_not_waited_for() -> None:
    wire = Wire(1252)
    wire.path.poll(0.0, RTT)
    wire.path.on_too_large(CEILING, 0.0)
    assert wire.path.due_at == 0.0
    assert wire.path.poll(0.0, RTT)[0].size < CEILING


def test_a_refusal_of_the_size_in_use_takes_it_back_at_once() -> None:
    wire = converged(1400)
    size = wire.path.size
    wire.path.on_too_large(size, wire.now)
    wire.path.on_too_large(size, wire.now)
    wire.path.on_too_large(MIN_DATAGRAM, wire.now)
    assert (wire.path.size, wire.path.black_holes) == (MIN_DATAGRAM, 1)
    wire.mtu = 1372
    wire.run(5.0)
    assert 1372 - STEP < wire.path.size <= 1372
    assert max(wire.sent) < size


@pytest.mark.parametrize("sign", ["losses", "stall"])
def test_a_black_hole_is_found_within_a_second_and_the_size_falls_to_the_base(sign: str) -> None:
    wire = converged(CEILING)
    wire.mtu = 1252
    if sign == "losses":
        wire.lose(LARGE_LOSSES)
    else:
        wire.path.on_stall(CEILING)
    wire.run(VERDICT + 0.001)
    assert (wire.path.size, wire.path.black_holes) == (MIN_DATAGRAM, 1)
    wire.run(3.0)
    assert wire.path.size == 1252


def test_a_doubted_size_that_passes_is_kept_and_trusted_for_a_second() -> None:
    wire = converged(1400)
    size, due = wire.path.size, wire.path.due_at
    wire.path.on_stall(size)
    wire.run(RTT)
    assert wire.sent == [size, MIN_DATAGRAM]
    assert (wire.path.size, wire.path.due_at, wire.path.black_holes) == (size, due, 0)
    wire.path.on_stall(size)
    wire.run(TRUST_TIME - 0.01)
    assert len(wire.sent) == 2
    wire.run(0.02)
    assert wire.sent == [size, MIN_DATAGRAM] * 2


def test_doubt_during_a_search_is_resolved_first_and_the_search_goes_on() -> None:
    wire = Wire(1400)
    wire.run(2.0)
    size = wire.path.size
    assert wire.path.state is PathMtuState.SEARCHING
    assert size > MIN_DATAGRAM
    wire.sent.clear()
    wire.path.on_stall(size)
    wire.run(5.0)
    assert wire.sent[:2] == [size, MIN_DATAGRAM]
    assert 1400 - STEP < wire.path.size <= 1400


def test_an_outage_is_no_black_hole() -> None:
    wire = converged(CEILING)
    wire.mtu = 0
    wire.lose(LARGE_LOSSES)
    wire.run(30.0)
    assert wire.path.size == CEILING
    wire.mtu = CEILING
    wire.run(2.0)
    assert (wire.path.size, wire.path.black_holes, wire.path.due_at) == (CEILING, 0, None)


def test_of_probes_that_a_peer_never_answers_few_are_remembered() -> None:
    wire = converged(CEILING)
    wire.mtu = 0
    wire.lose(LARGE_LOSSES)
    wire.run(1000.0)
    trial = wire.path._trial
    assert trial is not None
    assert wire.path._next_number > 1000
    assert len(trial._witnesses) <= MAX_WITNESSES


@pytest.mark.parametrize(
    ("count", "carried", "size"),
    [(LARGE_LOSSES - 1, False, None), (1000, True, None), (1000, False, MIN_DATAGRAM), (1000, False, CEILING + 1)],
    ids=["too few", "others as large arrived", "small ones", "sent before the size fell"],
)
def test_losses_that_say_nothing_about_the_size_raise_no_doubt(count: int, carried: bool, size: int | None) -> None:
    wire = converged(1400)
    due = wire.path.due_at
    wire.lose(count, carried=carried, size=size)
    assert wire.path.due_at == due


def test_losses_long_after_each_other_say_nothing_together() -> None:
    wire = converged(1400)
    due = wire.path.due_at
    for _ in range(3):
        wire.lose(LARGE_LOSSES - 1)
        wire.run(2.1)
    assert wire.path.due_at == due
    wire.lose(1)
    assert wire.path.due_at == due


def test_a_larger_size_is_tried_again_at_growing_intervals() -> None:
    wire = converged(1252)
    started = [wire.now]
    for _ in range(9):
        due = wire.path.due_at
        assert due is not None
        wire.run(due - wire.now)
        started.append(wire.now)
        wire.sent.clear()
        while wire.path.state is not PathMtuState.SEARCH_COMPLETE:
            wire.run(0.01)
        # Nothing has changed, and that is found out with two sizes.
        assert set(wire.sent) == {MIN_DATAGRAM, CEILING, 1252 + STEP}
    gaps = [after - before for before, after in pairwise(started)]
    assert gaps[0] <= FIRST_RAISE
    assert all(after == pytest.approx(2 * before, rel=0.2) for before, after in pairwise(gaps[1:6]))
    assert gaps[-1] == pytest.approx(RAISE_INTERVAL, abs=5.0)


@pytest.mark.parametrize("mtu", [1380, CEILING])
def test_a_path_that_grows_is_used(mtu: int) -> None:
    wire = converged(1252)
    wire.mtu = mtu
    wire.run(FIRST_RAISE + 6.0)
    assert mtu - STEP < wire.path.size <= mtu


def test_an_answer_that_was_late_counts_and_one_from_before_a_black_hole_does_not() -> None:
    path = PathMtu(MIN_DATAGRAM, CEILING, 0.0)
    probe, witness = path.poll(0.0, RTT)
    for attempt in range(1, MAX_PROBES):
        path.on_acknowledged(witness, attempt * PROBE_INTERVAL - 0.1)
        _, witness = path.poll(attempt * PROBE_INTERVAL, RTT)
    path.on_acknowledged(witness, 0.6)
    [following, _] = path.poll(0.7, RTT)
    assert following.size < CEILING
    assert path.on_acknowledged(probe, 1.0)
    assert path.size == CEILING
    path.on_too_large(CEILING, 1.0)
    assert not path.on_acknowledged(following, 1.1)
    assert path.size == MIN_DATAGRAM


def test_a_policer_that_has_room_for_one_probe_of_two_is_no_small_mtu() -> None:
    path, room = PathMtu(MIN_DATAGRAM, CEILING, 0.0), CEILING
    for attempt in range(MAX_PROBES):
        for probe in path.poll(attempt * PROBE_INTERVAL, RTT):
            if probe.size <= room:
                room -= probe.size
                path.on_acknowledged(probe, attempt * PROBE_INTERVAL + RTT)
        room = CEILING
    assert path.size == CEILING


def test_answers_that_nobody_asked_for_are_not_believed() -> None:
    path = PathMtu(MIN_DATAGRAM, CEILING, 0.0)
    probe, _ = path.poll(0.0, RTT)
    assert not path.on_acknowledged(Probe(probe.number + 1, CEILING), 0.1)
    assert not path.on_acknowledged(Probe(probe.number, CEILING - 1), 0.1)
    assert path.on_acknowledged(probe, 0.1)
    assert not path.on_acknowledged(probe, 0.1)


@settings(max_examples=200, deadline=None)
@given(
    ceiling=st.integers(MIN_DATAGRAM + 1, 9000),
    share=st.floats(0, 1),
    loss=st.floats(0, 0.2),
    rtt=st.floats(0.001, 0.7),
    seed=st.integers(0, 2**32),
)
@example(ceiling=1472, share=1.0, loss=0.2, rtt=0.05, seed=0)
@example(ceiling=1201, share=0.0, loss=0.2, rtt=0.05, seed=0)
@example(ceiling=8972, share=0.999, loss=0.2, rtt=0.6, seed=0)
def test_any_size_is_found_at_any_loss_and_none_is_claimed_that_does_not_pass(
    ceiling: int, share: float, loss: float, rtt: float, seed: int
) -> None:
    mtu = MIN_DATAGRAM + round(share * (ceiling - MIN_DATAGRAM))
    wire = Wire(mtu, ceiling=ceiling, loss=loss, rtt=rtt, seed=seed)
    wire.run(600.0)
    assert max(wire.sizes) <= mtu
    assert wire.path.size == mtu if mtu == ceiling else wire.path.size > mtu - STEP


@settings(max_examples=100, deadline=None)
@given(mtu=st.integers(MIN_DATAGRAM, CEILING - STEP), rtt=st.floats(0.001, 0.1))
def test_on_a_clean_path_the_search_takes_seconds(mtu: int, rtt: float) -> None:
    wire = Wire(mtu, rtt=rtt)
    wire.run(FIRST_RAISE)
    assert mtu - STEP < wire.path.size <= mtu
    assert len(wire.sent) <= 2 * MAX_PROBES * 8


@settings(max_examples=100, deadline=None)
@given(
    before=st.integers(MIN_DATAGRAM, CEILING),
    after=st.integers(MIN_DATAGRAM, CEILING),
    loss=st.floats(0, 0.2),
    seed=st.integers(0, 2**32),
)
def test_whatever_a_path_becomes_it_is_followed(before: int, after: int, loss: float, seed: int) -> None:
    wire = Wire(before, loss=loss, seed=seed)
    wire.run(300.0)
    wire.mtu = after
    if wire.path.size > after:
        wire.path.on_stall(wire.path.size)
    wire.run(1500.0)
    assert after - STEP < wire.path.size <= after


@given(st.integers(0, 2**32 - 1), st.integers(MIN_DATAGRAM, MAX_DATAGRAM))
def test_probes_and_their_answers_round_trip(number: int, size: int) -> None:
    probe = Probe(number, size)
    assert len(encode_probe(probe)) == size - OVERHEAD
    assert decode_probe(encode_probe(probe)) == probe
    assert decode_probe_ack(encode_probe_ack(probe)) == probe


@given(st.binary(max_size=20))
def test_arbitrary_octets_are_a_probe_or_refused_and_no_answer_is_larger_than_its_question(body: bytes) -> None:
    asked = decode_probe(body)
    assert asked is None or len(encode_probe_ack(asked)) <= len(body)
    assert asked is None or decode_probe_ack(body) is None


def test_a_flood_of_probes_is_answered_within_bounds() -> None:
    limit = AnswerLimit()
    assert sum(limit.take(step / 1000) for step in range(1000)) == MAX_REPLIES
    assert limit.take(1.001)


def test_the_flight_knows_what_size_has_arrived_since() -> None:
    flight = InFlight(*[lambda _batch, _place: None] * 3)
    for first, sizes in ((0, [1400, 1400]), (2, [300, 1300]), (4, [300])):
        flight.add(SentBatch(first, sizes, 0.0))
    flight.on_report(Report(4, 0.0, 3, [(3, 4), (1, 1)], []), 0.05, RTT)
    assert flight.carried(1400, 0)
    assert flight.carried(1300, 1)
    assert not flight.carried(1301, 2)
    assert not flight.carried(1300, 4)


def test_what_a_shrunk_path_cannot_have_carried_is_lost_at_once_and_the_rest_stays_on_its_way() -> None:
    lost: list[tuple[int, int]] = []
    flight = InFlight(lambda batch, place: lost.append((batch.first, place)), *[lambda _batch, _place: None] * 2)
    for first, sizes in ((0, [1400, 1201]), (2, [300, 1300]), (4, [1200])):
        flight.add(SentBatch(first, sizes, 0.0))
    assert flight.declare_all_lost(above=1200) == 2
    assert lost == [(0, 0), (0, 1)]
    assert flight.bytes == 300 + 1300 + 1200


@given(
    hints=st.lists(st.tuples(st.integers(-28, 65535), st.floats(0.0, 1.5)), max_size=20),
    mtu=st.sampled_from([MIN_DATAGRAM, 1321, CEILING]),
)
@settings(deadline=None, max_examples=60)
def test_no_hint_takes_away_what_passes(hints: list[tuple[int, float]], mtu: int) -> None:
    wire = converged(mtu)
    size = wire.path.size
    wire.sizes.clear()
    for hint, pause in hints:
        wire.path.on_hint(hint)
        wire.run(pause)
    assert min([size, *wire.sizes]) == size
    assert wire.path.black_holes == 0
    assert len(wire.sent) <= 2 * (wire.now / TRUST_TIME + 1 + MAX_PROBES * wire.now / FIRST_RAISE) + 2 * len(hints)


def test_an_honest_hint_is_followed_to_the_byte_before_any_other_size_is_tried() -> None:
    wire = converged(CEILING)
    wire.mtu = 1333
    wire.path.on_hint(1333)
    wire.run((MAX_PROBES - 1) * DOUBT_INTERVAL + RTT + MIN_OVERDUE + RTT + 0.01)
    assert wire.path.size == 1333
    assert wire.sent[: 2 * MAX_PROBES] == [CEILING, MIN_DATAGRAM] * MAX_PROBES
    assert wire.sent[2 * MAX_PROBES : 2 * MAX_PROBES + 2] == [1333, MIN_DATAGRAM]


def test_a_hint_below_the_base_has_the_base_looked_at_and_nothing_else() -> None:
    for wire in (converged(MIN_DATAGRAM), Wire(MIN_DATAGRAM, ceiling=MIN_DATAGRAM)):
        wire.path.on_hint(524)
        wire.run(0.2)
        assert wire.sent == [MIN_DATAGRAM, MIN_DATAGRAM]
        assert (wire.path.size, wire.path.is_silent) == (MIN_DATAGRAM, False)
        wire.mtu = 1000
        wire.path.on_hint(524)
        wire.run(5.0)
        assert wire.path.is_silent
