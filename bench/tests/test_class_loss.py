"""The table of what loss on one class costs, from the figures that were kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from mpqbench import class_loss

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [
    {"data_plane": plane, "loss_percent": percent, "own": own, "neighbours": others, "ping": ping, "lost": lost}
    for plane, percent, own, others, ping, lost in (
        ("stripe", 0, 45.0, 46.0, 15.0, 0.0),
        ("stripe", 10, 40.0, 44.0, 15.5, 0.0),
        ("reliable", 0, 44.0, 45.0, 16.0, 0.0),
        ("reliable", 10, 38.0, 47.0, 15.1, 5.0),
    )
]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    file = tmp_path / class_loss.FILE
    file.write_text(json.dumps({"date": "2030-01-02", "processor": "Some CPU", "kernel": "6.1", "rows": ROWS}))
    return file


def test_each_loss_is_a_row_beside_that_of_the_earlier_implementation(kept: Path) -> None:
    found = class_loss.load(kept)
    assert found is not None
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.section().splitlines()]
    heading = next(line for line in lines if line[0] == "loss")
    rows = {line[0]: dict(zip(heading, line, strict=True)) for line in lines if line[0].endswith("%")}
    assert list(rows) == ["0 %", "10 %"]
    ten = rows["10 %"]
    assert (ten["the class: earlier"], ten["the class: stripe"], ten["the class: reliable"]) == ("2.30", "40.0", "38.0")


def test_of_the_neighbours_the_worst_counts(kept: Path) -> None:
    found = class_loss.load(kept)
    assert found is not None
    ten = found.figures[10]
    assert (ten.neighbours, ten.ping, ten.lost_percent) == (44.0, 15.5, 5.0)


def test_where_nothing_was_kept_there_is_no_section(tmp_path: Path) -> None:
    assert class_loss.load(tmp_path / class_loss.FILE) is None


def test_a_row_without_a_figure_is_refused(kept: Path) -> None:
    rows = json.loads(kept.read_text())
    del rows["rows"][0]["ping"]
    kept.write_text(json.dumps(rows))
    with pytest.raises(KeyError, match="ping"):
        class_loss.load(kept)
