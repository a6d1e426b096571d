"""Medians, spreads, percentiles, and the form of the results file."""

import json
from pathlib import Path

import pytest
from mpqbench.results import KEYS, Result, ResultError, Sample, load, merge, ordered, pairs, percentile, save, summarise


def sample(value: float, bench: str = "tcp1", case: str = "up") -> Sample:
    return Sample(bench, case, "goodput", value, "Mbit/s")


def test_value_is_the_median_and_every_run_is_kept() -> None:
    (result,) = summarise([("veth", sample(value)) for value in (30.0, 10.0, 20.0)])
    assert result.value == 20.0
    assert result.runs == (30.0, 10.0, 20.0)
    assert result.spread == (10.0, 30.0)


def test_alternating_systems_and_cases_are_kept_apart() -> None:
    results = summarise(
        [("veth", sample(1)), ("veth", sample(2, case="down")), ("tinc", sample(3)), ("veth", sample(5))]
    )
    assert [(r.system, r.case, r.value) for r in results] == [("veth", "up", 3), ("veth", "down", 2), ("tinc", "up", 3)]


def row(bench: str, system: str, case: str = "up", value: float = 1.0) -> Result:
    return Result(bench, case, system, "goodput", value, "Mbit/s", (value,))


def test_merging_replaces_all_rows_of_a_bench_and_system_that_was_measured_again() -> None:
    kept = [row("tcp1", "veth"), row("tcp1", "veth", "down"), row("tcp1", "tinc"), row("tcp8", "veth")]
    merged = merge(kept, [row("tcp1", "veth", value=5.0)])
    assert merged == [row("tcp1", "tinc"), row("tcp8", "veth"), row("tcp1", "veth", value=5.0)]
    assert pairs(merged) == [("tcp1", "tinc"), ("tcp8", "veth"), ("tcp1", "veth")]


def test_order_is_that_of_benches_and_then_of_systems_whenever_each_was_measured() -> None:
    rows = [row("ping", "tinc"), row("tcp1", "tinc"), row("tcp1", "veth", "up"), row("tcp1", "veth", "down")]
    assert ordered(rows, ["veth", "tinc"]) == [
        row("tcp1", "veth", "up"), row("tcp1", "veth", "down"), row("tcp1", "tinc"), row("ping", "tinc")
    ]  # fmt: skip


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentile_is_the_nearest_rank(share: float, value: float) -> None:
    assert percentile(range(100, 0, -1), share) == value


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.5) == 7.0


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_file_has_for_each_processor_a_list_of_objects_with_the_agreed_keys(tmp_path: Path) -> None:
    file = tmp_path / "new" / "latest.json"
    results = [Result("ping", "idle", "tinc", "p50", 0.25, "ms", (0.25, 0.5, 0.125))]
    save({"y": results, "x": results * 2}, file)
    read = json.loads(file.read_text())
    assert [(processor, len(rows)) for processor, rows in read.items()] == [("x", 2), ("y", 1)]
    assert list(read["y"][0]) == list(KEYS)
    assert load(file) == {"x": results * 2, "y": results}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "fast"}, r"\[0\]\.value: expected a number"),
        ({"value": True}, r"\[0\]\.value: expected a number"),
        ({"runs": []}, r"\[0\]\.runs: expected at least one"),
        ({"runs": ["1"]}, r"\[0\]\.runs: expected a number"),
        ({"bench": "tcp2"}, r"\[0\]\.bench: expected one of tcp1"),
        ({"unit": 3}, r"\[0\]\.unit: expected str"),
        ({"extra": 1}, r"\[0\]: expected an object with the keys"),
    ],
)
def test_wrong_entry_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    row = {"bench": "tcp1", "case": "up", "system": "veth", "metric": "goodput", "value": 1, "unit": "x", "runs": [1]}
    file = tmp_path / "latest.json"
    file.write_text(json.dumps({"x": [row]}))
    assert len(load(file)["x"]) == 1
    file.write_text(json.dumps({"x": [{**row, **change}]}))
    with pytest.raises(ResultError, match=message):
        load(file)


@pytest.mark.parametrize(("text", "message"), [("[]", "an object with a list"), ('{"x": 1}', r"\.x: expected a list")])
def test_another_form_of_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "latest.json"
    file.write_text(text)
    with pytest.raises(ResultError, match=message):
        load(file)


def test_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latest.json"
    file.write_text("[")
    with pytest.raises(ResultError, match="not JSON"):
        load(file)
