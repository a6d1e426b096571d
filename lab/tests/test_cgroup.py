"""A machine is frozen by whichever control groups there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab import cgroup
from mpqlab.errors import LabError
from mpqlab.topology import LAB_NAME

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "_hierarchies", lambda: [tmp_path])
    found = tmp_path / f"{LAB_NAME}-client"
    found.mkdir()
    return found


def test_the_freezer_of_version_1_gets_a_word(group: Path) -> None:
    (group / "freezer.state").write_text("THAWED\n")
    cgroup.freeze("client", frozen=True)
    assert (group / "freezer.state").read_text() == "FROZEN"
    cgroup.freeze("client", frozen=False)
    assert (group / "freezer.state").read_text() == "THAWED"


def test_a_group_of_version_2_gets_a_number_and_says_when_it_is_done(group: Path) -> None:
    (group / "cgroup.freeze").write_text("0\n")
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    cgroup.freeze("client", frozen=True)
    assert (group / "cgroup.freeze").read_text() == "1"


def test_a_freezer_that_does_not_come_to_an_end_is_an_error(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "FREEZE_SECONDS", 0.0)
    (group / "cgroup.freeze").write_text("0\n")
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(LabError, match="frozen 1"):
        cgroup.freeze("client", frozen=True)


@pytest.mark.usefixtures("group")
def test_without_a_freezer_nothing_is_frozen() -> None:
    with pytest.raises(LabError, match="no freezer"):
        cgroup.freeze("client", frozen=True)


@pytest.mark.parametrize(
    ("control", "as_made", "preferred"), [("cpu.shares", "1024", "16384"), ("cpu.weight", "100", "1600")]
)
def test_a_group_can_be_preferred_where_processors_are_short(
    group: Path, control: str, as_made: str, preferred: str
) -> None:
    (group / control).write_text(as_made)
    cgroup.prefer("client", 16)
    assert (group / control).read_text() == preferred
    cgroup.prefer("client", 1)
    assert (group / control).read_text() == as_made
