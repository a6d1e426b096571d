"""Holds of instances: what is kept comes back, and nothing else counts as one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic import hold
from mpquic.hold import Hold

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(hold.DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_hold_that_is_kept_comes_back_and_is_gone_after_its_end() -> None:
    kept = Hold(by="alice", reason="the dish is moved", since=100.0, until=200.5)
    hold.write("mpq4", kept)
    assert hold.read("mpq4") == kept
    assert (kept.is_over(200.4), kept.is_over(200.5)) == (False, True)
    hold.remove("mpq4")
    hold.remove("mpq4")
    assert hold.read("mpq4") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"by": "a"}', b'{"by": "", "reason": "", "since": 1}'])
def test_what_is_no_hold_holds_nothing(folder: Path, content: bytes) -> None:
    (folder / "mpq4.json").write_bytes(content)
    assert hold.read("mpq4") is None


def test_a_fifo_in_place_of_a_record_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "mpq4.json")
    assert hold.read("mpq4") is None


@given(
    st.builds(
        Hold,
        by=st.text(min_size=1, max_size=64),
        reason=st.text(max_size=200),
        since=st.floats(0, 1e12),
        until=st.none() | st.floats(0, 1e12),
        origin=st.sampled_from(["operator", "mask", "variables"]),
    )
)
def test_plain_data_describe_a_hold_completely(each: Hold) -> None:
    assert hold.from_plain(each.plain()) == each


@pytest.mark.parametrize(
    "data", [None, {}, {"by": "x" * 65, "reason": "", "since": 1}, {"by": 1, "reason": "", "since": 1}]
)
def test_data_of_another_form_are_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"Object|Expected|object"):
        hold.from_plain(data)
