import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqlab.emulator.control import Control
from mpqlab.emulator.direction import Direction
from mpqlab.emulator.model import DirectionConfig

from .packets import PLAIN, udp
from .patience import PATIENT


@pytest.fixture
def directions() -> dict[str, Direction]:
    return {name: Direction(name, DirectionConfig()) for name in ("up", "down")}


@pytest.fixture
def control(directions: Any) -> Control:
    return Control("wan5", directions, lambda name: {"up": 3, "down": 0}[name])


def ask(control: Control, **request: object) -> Any:
    line = control.answer(json.dumps(request).encode(), 10.0)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line)


def test_get_returns_all_keys_of_both_directions(control: Control) -> None:
    answer = ask(control, op="get")
    assert answer["ok"] is True
    assert answer["name"] == "wan5"
    assert answer["up"] == answer["down"] == DirectionConfig().as_dict()


def test_set_changes_one_direction_or_both(control: Control, directions: dict[str, Direction]) -> None:
    assert ask(control, op="set", up={"delay_ms": "30"})["up"]["delay_ms"] == 30
    assert directions["down"].config.delay_ms == 0
    ask(control, op="set", up={"rate_mbit": 5}, down={"rate_mbit": 5})
    assert [direction.config.rate_mbit for direction in directions.values()] == [5, 5]
    assert directions["up"].config.delay_ms == 30


def test_a_value_that_is_wrong_for_one_direction_changes_none(
    control: Control, directions: dict[str, Direction]
) -> None:
    ask(control, op="set", up={"delay_ms": 30})
    answer = ask(control, op="set", up={"jitter_ms": 5}, down={"jitter_ms": 5})
    assert answer == {"ok": False, "error": "jitter_ms=5 must not exceed delay_ms=0."}
    assert directions["up"].config == DirectionConfig(delay_ms=30.0)


@pytest.mark.parametrize(("direction", "holes"), [("up", [True, False]), ("down", [False, True]), ("both", [True] * 2)])
def test_cut_and_heal(control: Control, directions: dict[str, Direction], direction: str, holes: list[bool]) -> None:
    ask(control, op="cut", direction=direction)
    assert [each.config.blackhole for each in directions.values()] == holes
    ask(control, op="heal")
    assert [each.config.blackhole for each in directions.values()] == [False, False]


def test_counters_are_those_of_the_directions_and_of_the_kernel(
    control: Control, directions: dict[str, Direction]
) -> None:
    ask(control, op="set", up={"delay_ms": 10})
    directions["up"].receive(PLAIN + udp(100), 10.0)
    answer = ask(control, op="counters")
    assert (answer["up"]["in_packets"], answer["up"]["in_bytes"], answer["up"]["pending"]) == (1, 100, 1)
    assert (answer["up"]["overrun"], answer["down"]["overrun"]) == (3, 0)
    assert answer["down"]["dropped"]["loss"] == 0


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b"", "The request is not a JSON object on one line."),
        (b"[1]", "The request is not a JSON object on one line."),
        (b"[" * 60_000, "The request is not a JSON object on one line."),
        (b'{"op": "stop"}', "Unknown op stop: expected get, set, cut, heal or counters."),
        (b'{"op": "set"}', "set needs up, down or both of them, each an object of key: value."),
        (b'{"op": "set", "up": {}, "down": 5}', "set needs up, down or both of them, each an object of key: value."),
        (b'{"op": "cut", "direction": "left"}', "Unknown direction left: expected up, down or both."),
        (b'{"op": "set", "up": {"rate": 5}}', "Unknown key rate: did you mean rate_mbit?"),
    ],
)
def test_a_wrong_request_gets_a_sentence(control: Control, request_line: bytes, error: str) -> None:
    assert json.loads(control.answer(request_line, 0.0)) == {"ok": False, "error": error}


@PATIENT
@given(
    st.dictionaries(
        st.sampled_from(["op", "direction", "up", "down"]),
        st.one_of(
            st.sampled_from(["get", "set", "cut", "heal", "counters", "both", "up"]),
            st.none(),
            st.lists(st.integers()),
            st.dictionaries(
                st.sampled_from(["mtu", "leo", "seed", "x"]), st.floats() | st.text() | st.lists(st.none())
            ),
        ),
    )
)
def test_no_request_breaks_the_emulator(request: dict[str, object]) -> None:
    directions: Any = {name: Direction(name, DirectionConfig()) for name in ("up", "down")}
    control = Control("x", directions, lambda _: 0)
    assert isinstance(json.loads(control.answer(json.dumps(request).encode(), 0.0))["ok"], bool)
