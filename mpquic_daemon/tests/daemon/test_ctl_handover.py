"""`mpquicctl handover`: whom it asks, what it says, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from mpquic import ctl

from .test_ctl import CLIENT, SERVER, documented, host, ok, process, run, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["host"]

ROW = {"identity": "urn:mpquic:site:site1", "tunnel": "mpq5", "for_seconds": 600.0, "peer": "192.0.2.7:40000"}


@pytest.fixture
def servers(host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A VPS with two listeners, of which site1 has a tunnel at one."""
    monkeypatch.setenv("SUDO_USER", "alice")
    for name in ("mpq5", "mpq6"):
        write(host, name, {**SERVER, "name": name})
    return host


def refuse(text: str) -> Callable[[dict[str, object]], bytes]:
    return lambda request: json.dumps({"v": 1, "id": request["id"], "ok": False, "error": text}).encode() + b"\n"


def end(host: Path, *arguments: str) -> int:
    return ctl.main(["handover", *arguments, "--instances-dir", str(host / "instances")])


def test_every_server_of_the_host_is_asked_and_one_that_knows_the_site_is_enough(
    servers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, object]] = []

    def answer(request: dict[str, object]) -> bytes:
        asked.append(request)
        return ok([ROW])(request)

    with process(servers, "mpq5", answer), process(servers, "mpq6", refuse("there is no client site1 here")):
        text = run(servers, capsys, "handover", "site1", "mpq5", "--for", "30m")
    assert (
        text == "site1 mpq5: the next other machine within 600 s takes over, in place of the one at 192.0.2.7:40000\n"
    )
    (request,) = asked
    expected = {"op": "handover", "who": "site1", "tunnel": "mpq5", "for_seconds": 1800, "user": "alice"}
    assert {key: request[key] for key in expected} == expected


def test_the_object_for_programs_is_that_of_the_document(servers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(servers, "mpq5", ok([{**ROW, "peer": None}])), process(servers, "mpq6", refuse("no")):
        (row,) = json.loads(run(servers, capsys, "handover", "site1", "--json"))
    assert row == {**ROW, "peer": None}
    assert {"second_machine", "handover_until"} <= set(documented("of `peers`"))


def test_a_machine_that_is_not_connected_is_said(servers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(servers, "mpq5", ok([{**ROW, "peer": None}])), process(servers, "mpq6", refuse("no")):
        assert run(servers, capsys, "handover", "site1").endswith("takes over, (none is connected now)\n")


def test_a_site_that_nobody_knows_is_an_error(servers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(servers, "mpq5", refuse("there is no client site9 here")):
        assert end(servers, "site9") == 1
    said = capsys.readouterr().err
    assert "mpquicctl: mpq5: there is no client site9 here" in said
    assert "mpquicctl: mpq6: it is not running" in said


def test_servers_that_do_not_run_have_an_exit_status_of_their_own(servers: Path) -> None:
    assert end(servers, "site1") == 3


def test_a_client_sends_to_the_vps(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(host, "mpq5", CLIENT)
    assert end(host, "site1") == 1
    assert "run it on the VPS" in capsys.readouterr().err


@pytest.mark.parametrize("time", ["0s", "25h", "soon"])
def test_a_time_that_makes_no_sense_is_refused(host: Path, time: str) -> None:
    with pytest.raises(SystemExit) as ended:
        end(host, "site1", "--for", time)
    assert ended.value.code == 2
