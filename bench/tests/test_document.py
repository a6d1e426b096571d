"""Tables and the document that is made of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from mpqbench import class_loss
from mpqbench.__main__ import _keep, main
from mpqbench.conditions import Conditions, Measurement
from mpqbench.conditions import load as load_conditions
from mpqbench.conditions import save as save_conditions
from mpqbench.document import NOTES, SYSTEMS, TITLES, compose
from mpqbench.plots import folder_name
from mpqbench.results import BENCHES, Result, load, pairs, save
from mpqbench.systems import SYSTEMS as RUNNABLE
from mpqbench.table import markdown, number, screen, tables

CONDITIONS = Conditions(
    "2030-01-02", "Debian", "6.1", "Some CPU", 2, "3.11.2", {"openvpn": "2.6.3-1", "tinc": "1.0.36-2"}, 2, 4.0
)
RESULTS = [
    Result("tcp1", "up", "veth", "goodput", 12000.0, "Mbit/s", (11000.0, 13000.0)),
    Result("tcp1", "down", "veth", "goodput", 11.26, "Mbit/s", (11.26,)),
    Result("tcp1", "up", "tinc", "goodput", 0.5, "Mbit/s", (0.4, 0.6)),
    Result("ping", "idle", "tinc", "p50", 0.25, "ms", (0.25,)),
]
CPU = "Some CPU"
MEASURED = [Measurement(CONDITIONS, tuple(pairs(RESULTS)))]


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (4.567, "4.57"), (78.91, "78.9"), (1234.4, "1,234"), (0, "0.000")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_table_has_a_row_for_each_system_and_a_dash_for_what_was_not_measured() -> None:
    assert tables(RESULTS) == {
        "tcp1": [
            ["system", "up: goodput, Mbit/s", "down: goodput, Mbit/s"],
            ["veth", "12,000 (11,000 - 13,000)", "11.3"],
            ["tinc", "0.500 (0.400 - 0.600)", "-"],
        ],
        "ping": [["system", "idle: p50, ms"], ["tinc", "0.250"]],
    }


def test_screen_aligns_names_left_and_values_right() -> None:
    assert screen([["system", "x"], ["a", "1,234"]]) == "system      x\na       1,234"


def test_markdown_has_a_separator_for_each_column() -> None:
    assert markdown([["system", "x", "y"], ["a", "1", "2"]]).splitlines() == [
        "| system | x | y |",
        "|---|---:|---:|",
        "| a | 1 | 2 |",
    ]


def test_bench_with_many_values_has_a_row_for_each_metric_and_a_column_for_each_case() -> None:
    rows = [
        Result("lossy", "0 %", "veth", "goodput", 48.0, "Mbit/s", (48.0,)),
        *(
            Result("lossy", f"{loss} %", "stripe", metric, value, unit, (value,))
            for loss in (0, 1, 2, 5)
            for metric, value, unit in (("goodput", 40.0, "Mbit/s"), ("share", 0.9, "share"))
        ),
    ]
    assert tables(rows) == {
        "lossy": [
            ["system", "metric", "0 %", "1 %", "2 %", "5 %"],
            ["veth", "goodput, Mbit/s", "48.0", "-", "-", "-"],
            ["stripe", "goodput, Mbit/s", *["40.0"] * 4],
            ["stripe", "share", *["0.900"] * 4],
        ]
    }


def test_columns_are_in_the_order_of_the_system_that_has_most() -> None:
    def at(system: str, case: str) -> Result:
        return Result("lossy", case, system, "share", 1.0, "share", (1.0,))

    rows = [at("x", "0 %"), at("x", "10 %"), at("y", "0 %"), at("y", "5 %"), at("y", "10 %"), at("z", "bursts")]
    assert tables(rows)["lossy"][0] == ["system", *(f"{case}: share" for case in ("0 %", "5 %", "10 %", "bursts"))]


def test_document_tells_conditions_results_and_only_the_systems_measured() -> None:
    text = compose({CPU: RESULTS}, {CPU: MEASURED}, {CPU: ["ping"]})
    assert "* Measured 2030-01-02, up to 2 runs, 4 s for each measurement" in text
    assert "2 x Some CPU" in text
    assert "openvpn 2.6.3-1, tinc 1.0.36-2" in text
    assert "### One TCP connection (`tcp1`)" in text
    assert "| veth | 12,000 (11,000 - 13,000) | 11.3 |" in text
    assert "* **tinc**" in text
    assert "**openvpn**" not in text
    assert "(`cpu`)" not in text


def test_document_embeds_the_plots_that_there_are() -> None:
    text = compose({CPU: RESULTS}, {CPU: MEASURED}, {CPU: ["ping"]})
    assert "![Latency](../bench/results/some-cpu/ping.svg)" in text
    assert "tcp1.svg" not in text


def test_document_says_what_was_measured_at_another_time_and_how_that_differed() -> None:
    later = replace(CONDITIONS, date="2030-02-03", runs=1, kernel="7.0")
    text = compose(
        {CPU: RESULTS},
        {CPU: [Measurement(later, (("ping", "tinc"),)), Measurement(CONDITIONS, (("tcp1", "veth"), ("tcp1", "tinc")))]},
        {},
    )
    assert "* Measured 2030-01-02, up to 2 runs, 4 s" in text
    assert "* `ping` of tinc: measured 2030-02-03, one run, 4 s" in text
    assert "  * Debian, kernel 7.0, 2 x Some CPU" in text
    assert text.count("Python 3.11.2") == 1


def test_every_bench_and_every_system_is_explained() -> None:
    assert list(TITLES) == list(BENCHES)
    assert list(NOTES) == list(BENCHES)
    assert list(RUNNABLE) == list(SYSTEMS)


def test_document_is_made_from_kept_results_without_measuring(tmp_path: Path) -> None:
    results, document = tmp_path / "latest.json", tmp_path / "performance.md"
    save({CPU: RESULTS}, results)
    save_conditions({CPU: MEASURED}, tmp_path / "conditions.json")
    status = main(["--only-document", "--results", str(results), "--document", str(document)])
    assert status == 0
    assert document.read_text() == compose({CPU: RESULTS}, {CPU: MEASURED}, {CPU: ["tcp1", "ping"]})
    assert {file.name for file in (tmp_path / "some-cpu").glob("*.svg")} == {"tcp1.svg", "ping.svg"}


def test_committed_document_belongs_to_the_committed_results() -> None:
    root = Path(__file__).parents[2]
    kept = root / "bench/results"
    if not (kept / "latest.json").exists():
        pytest.skip("nothing measured yet")
    measured = load(kept / "latest.json")
    drawn = {name: [file.stem for file in (kept / folder_name(name)).glob("*.svg")] for name in measured}
    classes = class_loss.load(kept / class_loss.FILE)
    expected = compose(measured, load_conditions(kept / "conditions.json"), drawn, classes)
    assert (root / "docs/performance.md").read_text() == expected


@pytest.mark.parametrize("arguments", [["--systems", "veth,carrier-pigeon"], ["--benches", "x"], ["--runs", "0"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "unknown: carrier-pigeon; there are veth" in capsys.readouterr().err or arguments[0] != "--systems"


def test_document_marks_kinds_of_processors_that_were_not_measured() -> None:
    text = compose({"AMD EPYC": RESULTS}, {"AMD EPYC": MEASURED}, {})
    assert "* AMD: AMD EPYC\n* Intel: **not measured**" in text
    both = {"AMD EPYC": RESULTS, "Intel(R) Xeon(R)": RESULTS}
    text = compose(both, dict.fromkeys(both, MEASURED), {})
    assert "not measured**" not in text
    assert "## AMD EPYC\n" in text
    assert "## Intel(R) Xeon(R)\n" in text


@pytest.mark.parametrize("merge", [False, True])
def test_results_of_other_processors_are_kept(tmp_path: Path, merge: bool) -> None:
    file = tmp_path / "latest.json"
    other = replace(CONDITIONS, processor="AMD EPYC")
    _keep(RESULTS, CONDITIONS, file, merge=False)
    _keep(RESULTS[:1], other, file, merge=False)
    _keep(RESULTS[3:], other, file, merge=merge)
    kept = load(file)
    assert kept[CPU] == RESULTS
    assert kept["AMD EPYC"] == (RESULTS[:1] if merge else []) + RESULTS[3:]
    about = load_conditions(tmp_path / "conditions.json")
    assert list(about) == list(kept) == ["AMD EPYC", CPU]
    assert about[CPU] == MEASURED
