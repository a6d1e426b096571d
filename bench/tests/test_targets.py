"""Targets: what is wanted, what was reached, and what is said when something wasn't measured."""

import pytest
from mpqbench.results import BENCHES, Result
from mpqbench.systems import SYSTEMS
from mpqbench.targets import TARGETS, Target, Value, rows

OURS = Value("tcp1", "up", "goodput", "stripe")
THEIRS = Value("tcp1", "up", "goodput", "openvpn")
RATIO = Target("faster", OURS, 3.5, over=THEIRS)
LATENCY = Target("quick", OURS, 2, "ms", at_most=True)


def test_ratio_holds_from_its_bound_on() -> None:
    assert RATIO.row({OURS: 7.0, THEIRS: 2.0}) == ["faster", "at least 3.5 x", "3.50 x", "yes"]
    assert RATIO.row({OURS: 6.9, THEIRS: 2.0}) == ["faster", "at least 3.5 x", "3.45 x", "**no**"]


def test_upper_bound_holds_up_to_it() -> None:
    assert LATENCY.row({OURS: 2.0}) == ["quick", "at most 2 ms", "2.00 ms", "yes"]
    assert LATENCY.row({OURS: 2.01}) == ["quick", "at most 2 ms", "2.01 ms", "**no**"]


@pytest.mark.parametrize("values", [{}, {OURS: 1.0}, {THEIRS: 1.0}])
def test_what_was_not_measured_is_neither_reached_nor_missed(values: dict[Value, float]) -> None:
    assert RATIO.row(values) == ["faster", "at least 3.5 x", "-", "not measured"]


def test_rows_are_made_of_medians() -> None:
    results = [
        Result("tcp1", "up", "stripe", "goodput", 2800.0, "Mbit/s", (1.0, 2800.0, 3000.0)),
        Result("tcp1", "up", "openvpn", "goodput", 700.0, "Mbit/s", (700.0,)),
    ]
    heading, first, *others = rows(results)
    assert heading == ["target", "wanted", "reached", "holds"]
    assert first == ["one TCP connection up: stripe against openvpn", "at least 3.5 x", "4.00 x", "yes"]
    assert all(row[-1] == "not measured" for row in others)


def test_targets_name_benches_and_systems_that_there_are() -> None:
    for target in TARGETS:
        for value in (target.value, target.over):
            if value is not None:
                assert value.bench in BENCHES
                assert value.bench in SYSTEMS[value.system]().benches
