"""What commands print with `--json`, and control sockets reply, is what JSON Schemas say; each command has one."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from json_schemas import SCHEMAS, check
from jsonschema import Draft202012Validator
from mpquic import ctl
from mpquic.ctl import lan_counters, reconnect, status, trace
from mpquic.ctl.watch import Change, Follower
from mpquic.daemon import json_lines
from mpquic.hold import Hold
from mpquic.linkd.service import LinkDaemon
from mpquic.linkd.systemd import Activity
from mpquic.speedtest.runs import Counters, Reading, Run, Transfer, measure, summary
from mpquic.trace.listing import KernelWord

from ..trace.test_way import LAN5, routing, way
from .conftest import Site
from .virtual import Ends

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {
    "status": "status", "paths": "paths", "version": "version", "watch": "watch", "hold": "hold", "release": "hold",
    "linkd": "linkd", "handover": "handover", "reconnect": "reconnect", "trace": "trace", "speedtest": "speedtest",
    "counters": "lan-counters",
}  # fmt: skip
"""The schema of each command with `--json`."""
OTHERS = {"counters", "control-request", "control-reply", "control-results", "common"}
LAB = {"lab-status", "lab-table", "lab-speedtest", "lab-link"}
"""Those of `mpqlab`, which its own tests check."""


def properties(schema: Any) -> Iterator[tuple[str, Any]]:
    """Return each property in a schema, by name, and each object."""
    if isinstance(schema, list):
        for each in schema:
            yield from properties(each)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties":
                yield from value.items()
            yield from properties(value)


@pytest.fixture(params=["quic", "stripe"])
def both(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    ends = Ends(Site(tmp_path), transport=request.param)
    ends.wait(lambda: ends.session if request.param == "stripe" else ends.state == "up", 5.0, "up")
    ends.run(2.0)

    def answers(files: list[Path], request: dict[str, object]) -> list[object]:
        roles: dict[str, Any] = {"cl": ends.client, "sv": ends.server}
        return [getattr(roles[path.stem], str(request["what"]))() for path in files]

    monkeypatch.setattr(status, "call_each", answers)
    yield ends
    ends.close()


FILES = [Path("cl.yml"), Path("sv.yml")]


def test_each_command_with_json_has_a_schema() -> None:
    (commands,) = (each for each in ctl.parser()._actions if isinstance(each, argparse._SubParsersAction))
    with_json = {name for name, each in commands.choices.items() if "--json" in each._option_string_actions}
    assert with_json == set(COMMANDS)
    assert {*COMMANDS.values(), *OTHERS, *LAB} == {path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir()}


@pytest.mark.parametrize("path", sorted(SCHEMAS.iterdir()), ids=lambda path: path.name)
def test_a_schema_is_valid_and_describes_each_field(path: Path) -> None:
    schema = json.loads(path.read_text())
    Draft202012Validator.check_schema(schema)
    undescribed = [name for name, each in properties(schema) if not ("description" in each or "$ref" in each)]
    assert undescribed == []
    wrong = [name for name, _ in properties(schema) if not name.replace("_", "").isalnum() or name != name.lower()]
    assert wrong == []


def test_what_is_no_field_is_found() -> None:
    with pytest.raises(AssertionError, match="unexpected"):
        check("reconnect", {"name": "a", "result": "up", "reconnects": 1, "error": None, "unexpected": 1})


def test_status_and_paths_of_both_ends(both: Ends) -> None:
    rows = status.status(FILES)
    assert [row["state"] for row in rows] == ["up", "up"]
    check("status", rows)
    check("paths", status.paths(FILES))
    check("counters", both.client.counters())
    check("counters", both.server.counters())
    check("handover", both.server.hand_over("site1", None, 60.0, "me"))


def test_a_path_that_has_no_connection(both: Ends) -> None:
    both.network.cut()
    both.wait(lambda: both.state != "up", 60.0, "down")
    both.run(60.0)
    check("paths", status.paths(FILES))
    check("status", status.status(FILES))
    check("counters", both.client.counters())


def test_changes_are_those_of_watch() -> None:
    lines: list[Change] = []
    follower = Follower(lambda change, _: lines.append(change))
    follower.take("mpq5", {"state": "up", "error": None}, "2026-06-01T12:30:00Z")
    follower.take("mpq5", None, "2026-06-01T12:30:01Z")
    assert len(lines) == 2
    for line in lines:
        check("watch", asdict(line))


def test_a_reconnect_of_what_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPQUIC_RUNTIME_DIR", str(tmp_path))
    options = argparse.Namespace(name="mpq5", times=1, silent=False, instances_dir=tmp_path)
    row, _ = reconnect._outcome(options)
    check("reconnect", row)


def test_counters_of_lans() -> None:
    names = ("lan5/mpq5.up", "lan5/mpq5.down")
    listing = {"nftables": [{"counter": {"name": name, "packets": 3, "bytes": 180}} for name in names]}
    rows = lan_counters.rows(listing, [])
    assert len(rows) == 1
    check("lan-counters", rows)


def test_runs_of_a_speedtest() -> None:
    total = iter(range(0, 10**9, 10**7))
    read = lambda: Reading(Counters(0, at := next(total)), {"wan5": Counters(0, at)})  # noqa: E731
    runs = [Run("tunnel", "down", 1), Run("bare", "down", 1)]
    results = measure(
        runs, read, lambda run, _: Transfer(80_000_000, 10**6, 1.0, 0) if run.way == "tunnel" else "no answer", "wan5"
    )
    texts = dict.fromkeys(("tunnel", "tun_device", "server", "congestion"), "x")
    wans = [{"name": "wan5", "device": "enp7s7"}]
    check(
        "speedtest",
        {**texts, "wans": wans, "runs": [result.plain() for result in results], "medians": summary(results)},
    )


@pytest.mark.parametrize("send", [False, True])
def test_the_way_of_a_packet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, send: bool) -> None:
    one = way(LAN5, "192.0.2.80", KernelWord("unicast", "mpq5", None, "lan5"))
    monkeypatch.setattr(trace, "look", lambda _: (one, routing(4)))
    monkeypatch.setattr(trace.host, "legacy_tables", lambda _: [])
    check("trace", trace.trace(one.question, [], tmp_path, send=send))


@pytest.mark.parametrize("held", [None, Hold(by="alice", reason="tests", since=1.0, origin="operator")])
def test_a_row_of_linkd(held: Hold | None) -> None:
    linkd = SimpleNamespace(
        _units={"mpq5": SimpleNamespace(masked=False, activity=Activity.RUNNING)},
        _holds=SimpleNamespace(all={"mpq5": held} if held is not None else {}),
        _wanted={}, _files=SimpleNamespace(disabled=()), _broken={},
        _reconciler=SimpleNamespace(failing=lambda _: False),
    )  # fmt: skip
    row = ctl.hold._shown(LinkDaemon._row(linkd, "mpq5"))  # type: ignore[arg-type]
    check("hold", row)
    check("linkd", {"instances": [row], "problem": None})


def test_replies_of_a_control_socket() -> None:
    check("control-reply", json_lines._failure(7, "no such thing"))
    applied = {"applied": ["log_level"], "restart_needed": []}
    check("control-reply", {"v": json_lines.VERSION, "id": 7, "ok": True, "result": applied})
    with pytest.raises(AssertionError, match="not valid under any"):
        check("control-reply", {"v": json_lines.VERSION, "id": 7, "ok": True, "result": {"surprise": 1}})


def test_requests_to_a_control_socket() -> None:
    envelope = {"v": json_lines.VERSION, "id": 7}
    check("control-request", {**envelope, "op": "get", "what": "counters"})
    check("control-request", {**envelope, "op": "hold", "name": "mpq5", "reason": "repair", "for_seconds": 600})
    with pytest.raises(AssertionError, match="not valid under any"):
        check("control-request", {**envelope, "op": "get", "what": "the time"})


def test_paths_and_counters_as_a_control_socket_has_them(both: Ends) -> None:
    for role in (both.client, both.server):
        check("control-results", role.paths(), "paths")
        check("control-results", role.counters(), "counters")
