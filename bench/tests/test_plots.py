"""Plots: one for each bench that can be drawn, the same for the same results."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from mpqbench.lossy import ALL, FEW
from mpqbench.plots import BARS, draw
from mpqbench.results import BENCHES, Result


def row(bench: str, case: str, system: str, metric: str, value: float) -> Result:
    return Result(bench, case, system, metric, value, "Mbit/s", (value * 0.9, value, value * 1.1))


RESULTS = [
    *(row(bench, case, system, metric, 5.0) for bench, bars in BARS.items() for system in ("openvpn", "stripe")
      for case, metric in bars),
    *(row("lossy", loss.case, "stripe", "share", 0.9) for loss in ALL),
    *(row("lossy", loss.case, "openvpn", "share", 0.1) for loss in FEW),
    *(row("flowcap", f"{pipes} pipes", "stripe", metric, 70.0 * pipes) for pipes in (2, 4)
      for metric in ("wire rate", "goodput")),
]  # fmt: skip


def test_every_bench_has_a_plot(tmp_path: Path) -> None:
    assert set(draw(RESULTS, tmp_path)) == set(BENCHES)
    for bench in BENCHES:
        root = ET.parse(tmp_path / f"{bench}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert any("stripe" in text or "pipes" in text for text in root.itertext())


def test_same_results_make_the_same_files(tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        draw(RESULTS, tmp_path)
        return {file.name: file.read_bytes() for file in tmp_path.glob("*.svg")}

    assert files() == files()


def test_plot_of_a_bench_that_is_gone_is_removed(tmp_path: Path) -> None:
    draw(RESULTS, tmp_path)
    assert draw(RESULTS[:2], tmp_path) == ["tcp1"]
    assert [file.name for file in tmp_path.glob("*.svg")] == ["tcp1.svg"]


@pytest.mark.parametrize("missing", ["down", "up"])
def test_a_value_that_is_missing_leaves_its_place_empty(tmp_path: Path, missing: str) -> None:
    rows = [each for each in RESULTS if each.bench == "tcp1" and not (each.system == "stripe" and each.case == missing)]
    assert draw(rows, tmp_path) == ["tcp1"]
