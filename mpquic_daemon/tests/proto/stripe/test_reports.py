from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.stripe.replay import ReplayWindow
from mpquic.proto.stripe.reports import (
    Report,
    Reporter,
    ReportError,
    decode_report,
    decode_varint,
    encode_report,
    encode_varint,
    runs_of,
)


@given(st.integers(0, 2**62 - 1))
def test_varints_round_trip(value: int) -> None:
    encoded = encode_varint(value)
    assert decode_varint(encoded, 0) == (value, len(encoded))


@pytest.mark.parametrize(("value", "wire"), [(37, "25"), (15293, "7bbd"), (494878333, "9d7f3e7d")])
def test_varints_are_those_of_rfc_9000_appendix_a_1(value: int, wire: str) -> None:
    assert encode_varint(value).hex() == wire


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)), st.integers(0, 2**40), st.integers(0, 10**7))
def test_reports_round_trip(received: set[int], repaired: set[int], base: int, delay: int) -> None:
    highest = base + max(received | repaired, default=0)
    lists = [runs_of(sorted(base + number for number in numbers), 256) for numbers in (received, repaired)]
    report = Report(highest, delay / 1e6, 5, *lists)
    again = decode_report(encode_report(report))
    assert again._replace(delay=report.delay) == report
    assert again.delay == pytest.approx(report.delay, abs=2e-6)


@given(st.binary(max_size=60))
def test_arbitrary_octets_are_a_report_or_refused(data: bytes) -> None:
    try:
        report = decode_report(data)
    except ReportError:
        return
    for ranges in (report.received, report.repaired):
        assert all(0 <= first <= last <= report.highest for first, last in ranges)
        assert all(above[0] > below[1] + 1 for above, below in pairwise(ranges))


def test_a_report_comes_each_five_milliseconds_and_sooner_when_much_arrives() -> None:
    window = ReplayWindow()
    reporter = Reporter(window)
    assert reporter.next_time() is None
    window.add(0)
    reporter.on_shards(1, 0, highest_rose=True, now=1.0)
    assert reporter.next_time() == pytest.approx(1.005)
    report = decode_report(reporter.build(1.005))
    assert report == Report(0, report.delay, 1, [(0, 0)], [])
    assert report.delay == pytest.approx(0.005, abs=2e-6)
    assert reporter.next_time() is None
    assert window.add_run(1, 2)
    reporter.on_shards(2, 1, highest_rose=True, now=1.006)
    assert reporter.next_time() == pytest.approx(1.011)
    assert window.add_run(3, 62)
    reporter.on_shards(62, 3, highest_rose=True, now=1.0062)
    assert reporter.next_time() == pytest.approx(1.007)


def test_a_gap_is_told_at_once_until_its_sender_takes_it_for_loss_but_once_a_millisecond() -> None:
    window = ReplayWindow()
    reporter = Reporter(window)

    def arrive(number: int, now: float) -> float | None:
        window.add(number)
        reporter.on_shards(1, number, highest_rose=number == window.highest, now=now)
        return reporter.next_time()

    assert arrive(0, 1.0) == pytest.approx(1.005)
    # Number 1 is missing: what waits goes with it.
    assert arrive(2, 1.001) == pytest.approx(1.0)
    reporter.build(1.001)
    assert arrive(3, 1.0012) == pytest.approx(1.002)
    reporter.build(1.002)
    assert arrive(4, 1.004) == pytest.approx(1.004)
    reporter.build(1.004)
    # Three have overtaken it: from here on it is known.
    assert arrive(5, 1.01) == pytest.approx(1.015)
    # It comes late after all, which keeps its sender from repeating it.
    assert arrive(1, 1.011) == pytest.approx(1.01)
    assert decode_report(reporter.build(1.011)).received == [(0, 5)]


def test_each_number_is_in_four_reports_and_its_delay_is_told() -> None:
    window = ReplayWindow()
    reporter = Reporter(window)
    seen = []
    for step in range(6):
        number = 2 * step
        window.add(number)
        reporter.on_shards(1, number, highest_rose=True, now=step)
        report = decode_report(reporter.build(step + 0.004))
        assert report.delay == pytest.approx(0.004, abs=2e-6)
        assert report.total == step + 1
        seen.append(report.received)
    assert seen[5] == [(10, 10), (8, 8), (6, 6), (4, 4)]


def test_a_late_shard_widens_the_report_and_a_repaired_one_is_told_apart() -> None:
    window = ReplayWindow()
    reporter = Reporter(window)
    for number in (*range(5), *range(6, 20)):
        window.add(number)
    reporter.on_shards(19, 0, highest_rose=True, now=0.0)
    reporter.on_repaired(5)
    report = decode_report(reporter.build(0.0))
    assert (report.received, report.repaired) == ([(6, 19), (0, 4)], [(5, 5)])
    for step in range(1, 5):
        window.add(19 + step)
        reporter.on_shards(1, 19 + step, highest_rose=True, now=step)
        report = decode_report(reporter.build(step))
    assert (report.received, report.repaired) == ([(20, 23)], [])
    window.add(5)
    reporter.on_shards(1, 5, highest_rose=False, now=5.0)
    assert decode_report(reporter.build(5.0)).received == [(5, 23)]
