"""mpquicctl hold, release and linkd: what they ask, what they say, and how they end."""

from __future__ import annotations

import argparse
import asyncio
import json
import pwd
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic import ctl
from mpquic.ctl.hold import duration
from mpquic.daemon.json_lines import RequestError
from mpquic.hold import Hold
from mpquic.linkd.control import LinkdSocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAITING: dict[str, Any] = {
    "name": "mpq1", "state": "waiting", "hold": None, "error": None,
    "missing": [{"device": "wan1", "missing": "carrier", "reason": "wan1: no carrier"}],
}  # fmt: skip


class Linkd:
    """What the control socket asks of linkd, with fixed answers."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.more: list[dict[str, Any]] = []
        self.asked: list[tuple[object, ...]] = []

    def instances(self) -> object:
        masked = {"name": "mpq2", "state": "masked", "hold": None, "missing": [], "error": None}
        running = {"name": "mpq3", "state": "running", "hold": None, "missing": [], "error": None}
        return {"instances": [WAITING, masked, running, *self.more], "problem": self.problem}

    def hold(self, name: str, by: str, reason: str, seconds: float | None) -> object:
        self.asked.append(("hold", name, by, reason, seconds))
        record = Hold(by=by, reason=reason, since=0.0, until=seconds)
        return {"name": name, "state": "held", "hold": record.plain(), "missing": [], "error": None}

    def release(self, name: str, by: str) -> object:
        self.asked.append(("release", name, by))
        if name == "mpq2":
            raise RequestError("mpq2 is not held")
        return WAITING


@pytest.fixture
def linkd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Linkd]:
    monkeypatch.setenv("MPQUIC_LINKD_CONTROL", str(tmp_path / "control.sock"))
    found = Linkd()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = LinkdSocket(tmp_path / "control.sock", found)
    asyncio.run_coroutine_threadsafe(served.open(), loop).result(5)
    yield found
    asyncio.run_coroutine_threadsafe(served.close(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.fixture
def instances(tmp_path: Path) -> str:
    (tmp_path / "instances").mkdir()
    for name in ("mpq1", "mpq2"):
        (tmp_path / "instances" / f"{name}.yml").touch()
    return f"--instances-dir={tmp_path / 'instances'}"


def test_a_hold_names_who_and_why_and_until_when(
    linkd: Linkd, instances: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert ctl.main(["hold", instances, "mpq1", "--for", "2h", "--reason", "the dish is moved"]) == 0
    assert linkd.asked == [("hold", "mpq1", "alice", "the dish is moved", 7200.0)]
    assert capsys.readouterr().out == "mpq1 is held until 1970-01-01T02:00:00Z: the dish is moved\n"
    assert ctl.main(["hold", instances, "mpq1", "--reason", "for good", "--json"]) == 0
    hold = json.loads(capsys.readouterr().out)["hold"]
    assert hold == {
        "by": "alice", "reason": "for good", "since": "1970-01-01T00:00:00Z", "until": None, "origin": "operator",
    }  # fmt: skip


def test_a_time_beyond_the_calendar_is_told_as_its_end(
    linkd: Linkd, instances: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Hold(by="alice", reason="x", since=0.0, until=1e300)
    row = {"name": "mpq1", "state": "held", "hold": record.plain(), "missing": [], "error": None}
    monkeypatch.setattr(linkd, "instances", lambda: {"instances": [row], "problem": None})
    assert ctl.main(["linkd", instances]) == 0
    assert "by alice until 9999-12-31T23:59:59Z: x" in capsys.readouterr().out
    assert ctl.main(["linkd", instances, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["instances"][0]["hold"]["until"] == "9999-12-31T23:59:59Z"


def test_a_user_whose_name_is_longer_than_a_record_takes_can_hold(
    linkd: Linkd, instances: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    account = pwd.struct_passwd(("a" * 100, "x", 0, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: account)
    assert ctl.main(["hold", instances, "mpq1", "--reason", "x"]) == 0
    assert linkd.asked[0][2] == "a" * 64


def test_a_name_that_sudo_does_not_know_counts_as_none(
    linkd: Linkd, instances: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "a b\x1b[2J")
    assert ctl.main(["hold", instances, "mpq1", "--reason", "x"]) == 0
    assert linkd.asked[0][2] == "root"


def test_a_release_says_what_the_instance_waits_for(
    linkd: Linkd, instances: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["release", instances, "mpq1"]) == 0
    assert capsys.readouterr().out == "mpq1 is in service again, but waiting: wan1: no carrier\n"
    assert ctl.main(["release", instances, "mpq2"]) == 1
    assert capsys.readouterr().err == "mpquicctl: mpq2 is not held\n"
    assert linkd.asked[0][:2] == ("release", "mpq1")


@pytest.mark.usefixtures("linkd")
def test_an_instance_that_does_not_exist_is_refused_with_those_that_do(
    instances: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["hold", "--reason", "x"], ["release"]):
        assert ctl.main([*command, instances, "mpq7"]) == 4
        assert "there is no instance mpq7" in (told := capsys.readouterr().err)
        assert "mpq1, mpq2" in told


def test_without_linkd_each_command_says_what_to_do(
    instances: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPQUIC_LINKD_CONTROL", str(tmp_path / "none.sock"))
    for command in (["hold", "mpq1", "--reason", "x"], ["release", "mpq1"], ["linkd"]):
        assert ctl.main([*command, instances]) == 3
        assert "systemctl start mpquic-linkd" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [1e300, -1e300, -1.0, float("nan")])
def test_a_record_with_a_time_that_no_calendar_has_is_shown(
    linkd: Linkd, capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    record = Hold(by="alice", reason="x", since=seconds, until=seconds)
    linkd.more = [{"name": "mpq4", "state": "held", "hold": record.plain(), "missing": [], "error": None}]
    assert ctl.main(["linkd"]) == 0
    assert "held     by alice until 9999-12-31T23:59:59Z: x" in capsys.readouterr().out
    assert ctl.main(["linkd", "--json"]) == 0
    hold = json.loads(capsys.readouterr().out)["instances"][-1]["hold"]
    assert (hold["since"], hold["until"]) == ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z")


def test_what_linkd_does_is_a_table_and_a_problem_of_its_own_a_failure(
    linkd: Linkd, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["linkd"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["NAME", "STATE"], ["mpq1", "waiting"], ["mpq2", "masked"], ["mpq3", "running"],
    ]  # fmt: skip
    linkd.problem = "polkit refuses"
    assert ctl.main(["linkd", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problem"] == "polkit refuses"


@given(st.integers(1, 3650 * 86400), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_a_duration_is_a_number_with_its_unit(count: int, unit: tuple[str, int]) -> None:
    letter, size = unit
    if count * size <= 3650 * 86400:
        assert duration(f"{count}{letter}") == count * size
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            duration(f"{count}{letter}")


@pytest.mark.parametrize("text", ["", "0s", "5", "h", "-1h", "1.5h", "2h30m", "1w", " 1h", "1h\n", "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="as 90s, 30m, 2h or 3d"):
        duration(text)
