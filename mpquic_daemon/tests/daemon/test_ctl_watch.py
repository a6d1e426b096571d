"""`mpquicctl watch` has a line for each change, and `reconnect` tells what came of it in every case."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from mpquic import ctl, hold
from mpquic.ctl import reconnect
from mpquic.ctl.watch import Change, Follower, Watch
from mpquic.hold import Hold

from .test_ctl import CLIENT, SERVER, UP, documented, host, process, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["host"]

TIME = "2026-06-01T12:30:00Z"


class Lines(list[str]):
    """The lines that a follower would print."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.follower = Follower(self.tell)

    def tell(self, change: Change, called: str) -> None:
        self.changes.append(change)
        self.append(change.words(called).removeprefix(f"{change.time} "))

    def take(self) -> list[str]:
        taken = list(self)
        self.clear()
        return taken


def row(state: str, error: str | None = None, **more: object) -> dict[str, Any]:
    return {"state": state, "error": error, **more}


def test_each_change_of_state_or_reason_is_a_line_and_nothing_else_is() -> None:
    lines = Lines()
    for each in (
        row("up", rtt_seconds=0.001),
        row("up", rtt_seconds=0.002),
        row("down", "no answer"),
        row("down", "no answer"),
        row("down", "refused"),
        row("held", "held by alice"),
        None,
    ):
        lines.follower.take("mpq5", each, TIME)
    assert lines == [
        "mpq5 up",
        "mpq5 up -> down: no answer",
        "mpq5 down: refused",
        "mpq5 down -> held: held by alice",
        "mpq5 held -> removed",
    ]


def test_a_reason_that_tells_the_time_is_no_change_by_itself() -> None:
    lines = Lines()
    for second in range(5):
        lines.follower.take("mpq5", row("down", f"refused at 2026-06-01T12:30:0{second}Z: no"), TIME)
    assert len(lines) == 1


def peer(site: str, state: str, tunnel: str = "mpq5") -> dict[str, Any]:
    return {"identity": f"urn:mpquic:site:{site}", "tunnel": tunnel, "state": state, "error": None}


def test_the_sites_of_a_server_have_lines_of_their_own() -> None:
    lines = Lines()
    lines.follower.take("mpq5", row("up", peers=[peer("a", "up"), peer("b", "never")]), TIME)
    assert lines.take() == ["mpq5 up", "mpq5/a up", "mpq5/b never"]
    lines.follower.take("mpq5", row("up", peers=[peer("a", "silent"), peer("c", "up")]), TIME)
    assert lines.take() == ["mpq5/a up -> silent", "mpq5/c up", "mpq5/b never -> removed"]
    assert (lines.changes[3].identity, lines.changes[3].tunnel) == ("urn:mpquic:site:a", "mpq5")


def test_a_restart_of_a_server_is_no_change_of_its_sites() -> None:
    lines = Lines()
    lines.follower.take("mpq5", row("up", peers=[peer("a", "up")]), TIME)
    lines.take()
    lines.follower.take("mpq5", row("down", "not running"), TIME)
    lines.follower.take("mpq5", row("up", peers=[peer("a", "up")]), TIME)
    assert lines.take() == ["mpq5 up -> down: not running", "mpq5 down -> up"]
    lines.follower.take("mpq5", None, TIME)
    assert lines.take() == ["mpq5 up -> removed", "mpq5/a up -> removed"]


def test_nothing_that_a_peer_says_reaches_a_terminal_as_a_command() -> None:
    lines = Lines()
    lines.follower.take("mpq5", row("down", "\x1b[2J\nmpq5 up"), TIME)
    assert lines == [r"mpq5 down: \x1b[2J\nmpq5 up"]


class Process:
    """Stands for an instance's process: what it tells is said by the test."""

    def __init__(self, host: Path, name: str) -> None:
        self._path = host / "run" / f"{name}.sock"
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._connection: socket.socket | None = None

    def accept(self) -> dict[str, Any]:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(5)
        request: dict[str, Any] = json.loads(self._connection.makefile("rb").readline())
        return request

    def is_asked(self) -> bool:
        """Whether somebody has connected who wasn't accepted yet."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def say(self, **message: object) -> None:
        assert self._connection is not None
        self._connection.sendall(json.dumps({"v": 1, "id": 1, **message}).encode() + b"\n")

    def end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def watch(host: Path, lines: Lines) -> Iterator[Watch]:
    found = Watch(host / "instances", [], lines.follower)
    yield found
    found.close()


def test_processes_that_begin_and_end_are_followed(host: Path, watch: Watch, lines: Lines) -> None:
    path = write(host, "mpq5", {**CLIENT, "bind_ip": "192.0.2.1"})
    watch.scan()
    assert lines.take() == ["mpq5 down: the process is not running: journalctl -u mpquic@mpq5 tells why"]
    running = Process(host, "mpq5")
    watch.scan()
    assert running.accept()["op"] == "watch"
    running.say(ok=True, result=row("connecting"))
    watch.wait(5)
    running.say(event=row("up"))
    running.say(event=row("down", "no answer"))
    watch.wait(5)
    assert lines.take() == ["mpq5 down -> connecting", "mpq5 connecting -> up", "mpq5 up -> down: no answer"]
    watch.scan()
    assert lines.take() == []
    running.end()
    watch.wait(5)
    assert lines.take() == ["mpq5 down: the process is not running: journalctl -u mpquic@mpq5 tells why"]
    path.unlink()
    watch.scan()
    assert lines.take() == ["mpq5 down -> removed"]


def test_an_instance_that_appears_is_followed_unless_others_are_named(host: Path, lines: Lines) -> None:
    others = Lines()
    everything = Watch(host / "instances", [], lines.follower)
    one = Watch(host / "instances", ["mpq5"], others.follower)
    write(host, "mpq6", {**CLIENT, "name": "mpq6"})
    everything.scan()
    one.scan()
    assert (lines, others) == (["mpq6 inactive: mpq-absent0: no such device"], [])
    everything.close()
    one.close()


def test_a_process_that_is_not_understood_is_left_alone(host: Path, watch: Watch, lines: Lines) -> None:
    write(host, "mpq5", CLIENT)
    strange = Process(host, "mpq5")
    watch.scan()
    strange.accept()
    strange.say(event=[1, 2])
    watch.wait(5)
    assert lines.take() == []
    assert not strange.is_asked()
    watch.scan()
    assert strange.is_asked()
    strange.end()
    watch.wait(5)
    watch.scan()
    assert [line.split(":")[0] for line in lines.take()] == ["mpq5 inactive"]


def test_it_ends_by_an_interrupt_with_success_and_each_line_is_an_object(host: Path) -> None:
    write(host, "mpq5", CLIENT)
    watch = [sys.executable, "-m", "mpquic.ctl", "watch", "--json", "--instances-dir", str(host / "instances")]
    # Who runs tests in the background may have them ignore SIGINT.
    command = ["env", "--default-signal=INT", *watch]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        found = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(20) == 0
        finally:
            running.kill()
        assert running.stderr is not None
        assert running.stderr.read() == ""
    assert sorted(found) == sorted(documented("`mpquicctl watch --json`"))
    assert (found["name"], found["state"], found["previous"]) == ("mpq5", "inactive", None)


def test_a_reader_that_has_seen_enough_is_no_fault(host: Path) -> None:
    write(host, "mpq5", CLIENT)
    for number in range(50):
        write(host, f"x{number}", {**CLIENT, "name": f"x{number}"})
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mpquic.ctl", "watch", "--instances-dir", str(host / "instances")]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, timeout=20)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_unknown_name_is_said(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["watch", "mpq9", "--instances-dir", str(host / "instances")]) == 4
    assert "there is no instance mpq9" in capsys.readouterr().err


# reconnect


def told(host: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    status = ctl.main(["reconnect", "mpq5", "--json", *options, "--instances-dir", str(host / "instances")])
    found = json.loads(capsys.readouterr().out)
    assert tuple(found) == reconnect.JSON_FIELDS
    assert sorted(found) == sorted(documented("`mpquicctl reconnect --json`"))
    return status, found


def replies(*, before: dict[str, Any], refusal: str | None = None, after: dict[str, Any] | None = None) -> Any:
    """What an instance replies: its status before, to the request, and afterwards."""
    has_begun: list[bool] = []

    def reply(request: dict[str, Any]) -> bytes:
        message: dict[str, Any] = {"v": 1, "id": request["id"], "ok": True}
        if request["op"] == "reconnect":
            has_begun.append(True)
            if refusal is not None:
                message |= {"ok": False, "error": refusal}
                return json.dumps(message).encode() + b"\n"
            return json.dumps(message | {"result": before}).encode() + b"\n"
        return json.dumps(message | {"result": after if has_begun and after is not None else before}).encode() + b"\n"

    return reply


BEFORE = {**UP, "error": None}


@pytest.mark.parametrize(
    ("replies", "status", "result", "error"),
    [
        (replies(before=BEFORE, after={**BEFORE, "reconnects": 3}), 0, "up", None),
        (
            replies(before={**BEFORE, "state": "inactive"}, refusal="there is nothing to connect by: wan5: no carrier"),
            1,
            "inactive",
            "there is nothing to connect by: wan5: no carrier",
        ),
        (
            replies(before=BEFORE, after={**BEFORE, "state": "inactive", "error": "wan5: no carrier"}),
            1,
            "inactive",
            "no new connection in 0.1 s: wan5: no carrier",
        ),
        (
            replies(before=BEFORE, after={**BEFORE, "state": "held", "error": "held by alice"}),
            1,
            "held",
            "no new connection in 0.1 s: held by alice",
        ),
        (
            replies(before=BEFORE, after={**BEFORE, "state": "down", "error": "no answer"}),
            1,
            "failed",
            "no new connection in 0.1 s: no answer",
        ),
        (replies(before=BEFORE, refusal="a server makes no connections"), 1, "failed", "a server makes no connections"),
    ],
)
def test_a_reconnect_ends_with_its_result(
    host: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    replies: Any,
    status: int,
    result: str,
    error: str | None,
) -> None:
    write(host, "mpq5", CLIENT)
    monkeypatch.setattr(reconnect.reconnect, "__kwdefaults__", {"timeout": 0.1})
    with process(host, "mpq5", replies):
        code, found = told(host, capsys)
    assert (code, found["result"], found["error"]) == (status, result, error)
    assert found["reconnects"] == (1 if status == 0 else 0)


@pytest.mark.parametrize(
    ("config", "is_held", "result"),
    [(CLIENT, False, "inactive"), ({**SERVER, "name": "mpq5"}, False, "not_running"), (CLIENT, True, "held")],
)
def test_a_reconnect_of_what_does_not_run_says_why(
    host: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, object],
    is_held: bool,
    result: str,
) -> None:
    monkeypatch.setenv(hold.DIRECTORY_VARIABLE, str(host))
    write(host, "mpq5", config)
    (host / "run/mpq5.sock").touch()
    if is_held:
        hold.write("mpq5", Hold(by="alice", reason="the dish is moved", since=1.0))
    code, found = told(host, capsys)
    assert (code, found["result"]) == (3, result)
    assert found["error"].startswith("not running: ")
