"""Runs in their order, iperf3's answers, and which figures count."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.speedtest import iperf3, report
from mpquic.speedtest.runs import Counters, Reading, Run, Transfer, judge, measure, order, summary

ANSWER = (Path(__file__).parent / "iperf3-down.json").read_text()
ZERO = Reading(Counters(0, 0), {"wan5": Counters(0, 0)})
MB = 1_000_000


def transfer(size: int = 10 * MB, rate: int = 80 * MB) -> Transfer:
    return Transfer(rate, size, 1.0, 0)


def counters(direction: str, count: int) -> Counters:
    return Counters(count, 0) if direction == "up" else Counters(0, count)


def moved(direction: str, tun: int, wan: int) -> Reading:
    return Reading(counters(direction, tun), {"wan5": counters(direction, wan)})


@given(repetitions=st.integers(1, 20))
def test_both_ways_of_a_pair_follow_each_other_and_either_is_first_by_turns(repetitions: int) -> None:
    runs = order(repetitions)
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    assert len(pairs) == 4 * repetitions
    for first, second in pairs:
        assert {first.way, second.way} == {"tunnel", "bare"}
        assert (first.direction, first.connections, first.number) == (
            second.direction,
            second.connections,
            second.number,
        )
    for cell in {(run.direction, run.connections) for run in runs}:
        first = [pair[0].way for pair in pairs if (pair[0].direction, pair[0].connections) == cell]
        assert len(first) == repetitions
        assert all(one != other for one, other in itertools.pairwise(first))
    assert {(run.direction, run.connections) for run in runs} == {("down", 1), ("up", 1), ("down", 10), ("up", 10)}


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(
    ("way", "tun", "wan", "problem"),
    [
        ("tunnel", 11 * MB, 12 * MB, None),
        ("tunnel", 0, 11 * MB, "the TUN moved 0 B of its 10.0 MB: the rest went outside of the tunnel"),
        ("tunnel", 9 * MB, 11 * MB, "the TUN moved 9.0 MB of its 10.0 MB"),
        ("tunnel", 11 * MB, MB, "the WAN moved 1.0 MB of its 10.0 MB: the rest went another way"),
        ("bare", 0, 11 * MB, None),
        ("bare", MB, 12 * MB, None),
        ("bare", 11 * MB, 22 * MB, "the TUN moved 11.0 MB meanwhile"),
        ("bare", 0, 5 * MB, "the WAN moved 5.0 MB of its 10.0 MB"),
    ],
)
def test_bytes_that_went_another_way_make_a_run_invalid(
    direction: str, way: str, tun: int, wan: int, problem: str | None
) -> None:
    run = Run(way, direction, 1)  # type: ignore[arg-type]
    problems, _ = judge(run, transfer(), ZERO, moved(direction, tun, wan), "wan5")
    assert len(problems) == (0 if problem is None else 1)
    if problem is not None:
        assert problems[0].startswith(problem)


@given(
    way=st.sampled_from(("tunnel", "bare")),
    size=st.integers(1, 10**12),
    tun=st.integers(0, 10**12),
    wan=st.integers(0, 10**12),
    base=st.integers(0, 10**12),
)
def test_no_run_counts_whose_bytes_its_devices_have_not_all_moved(
    way: str, size: int, tun: int, wan: int, base: int
) -> None:
    run = Run(way, "up", 1)  # type: ignore[arg-type]
    before, after = moved("up", base, base), moved("up", base + tun, base + wan)
    problems, _ = judge(run, transfer(size), before, after, "wan5")
    expected = wan >= size and (tun >= size if way == "tunnel" else tun <= size / 2)
    assert (not problems) is expected


def test_a_run_without_a_byte_and_one_that_others_shared_are_told() -> None:
    run = Run("tunnel", "down", 1)
    assert judge(run, transfer(0), ZERO, ZERO, "wan5")[0] == ["nothing was carried"]
    _, notes = judge(run, transfer(), ZERO, moved("down", 30 * MB, 40 * MB), "wan5")
    assert notes == ["others moved about 20.0 MB through the tunnel meanwhile"]


def test_medians_leave_out_what_is_not_valid() -> None:
    figures = iter([100, 200, 50, 190, 90, 210])
    proven = iter([True, True, False, True, True, True])
    runs = [Run(way, "down", 1, number) for number in (1, 2, 3) for way in ("tunnel", "bare")]  # type: ignore[arg-type]
    size = 10 * MB
    readings = []
    total = ZERO
    for run in runs:
        readings.append(total)
        tun = size if run.way == "tunnel" and next(proven) else 0
        if run.way == "bare":
            next(proven)
        total = moved("down", total.tun.received + tun, total.wans["wan5"].received + size)
        readings.append(total)
    source = iter(readings)
    results = measure(runs, lambda: next(source), lambda *_: transfer(size, next(figures) * MB), "wan5")
    assert [result.valid for result in results] == [True, True, False, True, True, True]
    assert summary(results) == [
        {
            "direction": "down",
            "connections": 1,
            "tunnel_bits_per_second": 95_000_000,
            "bare_bits_per_second": 200_000_000,
            "ratio": 0.475,
            "carried_by": ["wan5"],
        }
    ]


def test_without_a_floor_there_is_no_conclusion() -> None:
    results = measure(
        [Run("tunnel", "up", 1), Run("bare", "up", 1)],
        iter([ZERO, moved("up", 10 * MB, 11 * MB), ZERO, ZERO]).__next__,
        lambda run, _: transfer() if run.way == "tunnel" else "iperf3 says: the server is busy",
        "wan5",
    )
    assert [result.valid for result in results] == [True, False]
    assert summary(results)[0]["ratio"] is None
    lines = report.render([result.plain() for result in results], summary(results))
    assert "NOT VALID: iperf3 says: the server is busy" in lines
    assert lines.splitlines()[-1].split() == ["up", "1", "80.00", "-", "-", "wan5"]


class TwoWans:
    """A tunnel over two WANs, of which `carrier` carries it; each run moves 10 MB."""

    def __init__(self, carrier: str) -> None:
        self.carrier = carrier
        self.counts = {"tun": 0, "wan5": 0, "wan6": 0}
        self.links: list[str] = []
        self.fails_after: int | None = None

    def read(self) -> Reading:
        wans = {name: Counters(self.counts[name], 0) for name in ("wan5", "wan6")}
        return Reading(Counters(self.counts["tun"], 0), wans)

    def transfer(self, run: Run, link: str) -> Transfer:
        for name in ("wan5", "wan6"):
            self.counts[name] += 1000  # probes
        if run.way == "bare":
            self.links.append(link)
            self.counts[link] += 11 * MB
        else:
            self.counts["tun"] += 10 * MB
            self.counts[self.carrier] += 11 * MB
            if run.number == self.fails_after:
                self.carrier = "wan6"
        return transfer()


def test_a_tunnel_over_two_wans_is_compared_with_the_one_that_carries_it() -> None:
    host = TwoWans("wan6")
    runs = [Run(way, "up", 1, number) for number in (1, 2) for way in ("tunnel", "bare")]  # type: ignore[arg-type]
    results = measure(runs, host.read, host.transfer, "wan5")
    assert all(result.valid for result in results)
    assert [result.carried_by for result in results] == [["wan6"]] * 4
    assert host.links == ["wan6", "wan6"]
    (cell,) = summary(results)
    assert (cell["ratio"], cell["carried_by"]) == (1.0, ["wan6"])
    assert "wan6" in report.render([result.plain() for result in results], [cell])


def test_a_tunnel_that_moves_to_another_wan_is_measured_on_and_has_no_ratio() -> None:
    host = TwoWans("wan5")
    host.fails_after = 1
    runs = [Run(way, "up", 1, number) for number in (1, 2) for way in ("tunnel", "bare")]  # type: ignore[arg-type]
    results = measure(runs[:3], host.read, host.transfer, "wan5")
    assert [result.carried_by for result in results] == [["wan5"], ["wan5"], ["wan6"]]
    (cell,) = summary(results)
    assert (cell["tunnel_bits_per_second"], cell["ratio"], cell["carried_by"]) == (80 * MB, None, ["wan5", "wan6"])


def test_what_went_by_another_wan_than_the_bare_link_is_told() -> None:
    after = Reading(Counters(0, 0), {"wan5": Counters(0, 0), "wan6": Counters(11 * MB, 0)})
    before = Reading(Counters(0, 0), {"wan5": Counters(0, 0), "wan6": Counters(0, 0)})
    problems, _ = judge(Run("bare", "up", 1), transfer(), before, after, "wan5")
    assert problems == ["the WAN wan5 moved 0 B of its 10.0 MB: the rest went another way"]


def test_iperf3s_own_words_are_read() -> None:
    found = iperf3.transfer(ANSWER)
    assert (round(found.bits_per_second, -4), found.bytes, found.retransmits) == (34_520_000, 4314948, 0)


@pytest.mark.parametrize("output", ["", "Segmentation fault", "[]", "{}", '{"end": {"sum_received": {}}}', "null"])
def test_what_is_no_answer_is_an_error(output: str) -> None:
    with pytest.raises(iperf3.Iperf3Error, match="printed no result"):
        iperf3.transfer(output)


def test_a_server_between_two_tests_is_told_from_one_that_is_absent() -> None:
    with pytest.raises(iperf3.Iperf3Error) as busy:
        iperf3.transfer('{"error": "the server is busy running a test. try again later"}')
    assert iperf3.is_between_tests(str(busy.value))
    assert not iperf3.is_between_tests("unable to connect to server: No route to host")


def test_the_command_pins_congestion_control_and_the_device() -> None:
    command = iperf3.command(Run("bare", "down", 10), "192.0.2.80", 5201, 10, source="198.51.100.2", device="enp7s7")
    pairs = dict(itertools.pairwise(command))
    assert (pairs["--congestion"], pairs["--bind"], pairs["--bind-dev"]) == ("cubic", "198.51.100.2", "enp7s7")
    assert (pairs["--parallel"], command[-1]) == ("10", "--reverse")
    assert "--reverse" not in iperf3.command(Run("bare", "up", 1), "192.0.2.80", 5201, 10)
