"""The table for people and the document for monitoring."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import jsonschema
import pytest
from mpquic_plan.check import CHECKS, Finding, Result, report

NOW = dt.datetime(2026, 6, 1, 12, 30, tzinfo=dt.UTC)
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas/check.schema.json").read_text())
OK = Finding("release", Result.OK, "as it should be")
PROBLEM = Finding("files", Result.PROBLEM, "/etc/x is missing", "run site.yml")
HELD = Finding("hold", Result.HELD, "mpq4 is held by alice", "mpquicctl release mpq4")
SKIPPED = Finding("tunnels", Result.SKIPPED, "mpq1 is inactive")
HOSTS = {
    "site1": [OK, PROBLEM, HELD, SKIPPED],
    "site2": [OK, HELD],
    "site3": [report.unreachable("timed out")],
    "vps1": [OK, PROBLEM, Finding("units", Result.PROBLEM, "x has failed", "journalctl")],
}


def test_the_table_has_a_line_for_each_host_and_then_what_to_do() -> None:
    assert report.table(HOSTS) == [
        "HOST   RESULT       FINDINGS",
        "site1  problem      1 problem, 1 held, 1 not looked at",
        "site2  ok           1 held",
        "site3  unreachable  1 problem",
        "vps1   problem      2 problems",
        "",
        "Problems:",
        "  site1: /etc/x is missing [run site.yml]",
        "  site3: it can't be reached: timed out [check again when it's back]",
        "  vps1: /etc/x is missing [run site.yml]",
        "  vps1: x has failed [journalctl]",
        "",
        "Held:",
        "  site1: mpq4 is held by alice [mpquicctl release mpq4]",
        "  site2: mpq4 is held by alice [mpquicctl release mpq4]",
        "",
        "Not looked at:",
        "  site1: mpq1 is inactive",
    ]
    assert report.table({"site1": [OK]}) == ["HOST   RESULT  FINDINGS", "site1  ok      none"]


def test_nothing_that_a_host_says_reaches_the_terminal_as_a_command() -> None:
    told = Finding("hold", Result.HELD, "held by alice: \x1b[2J\nproblem", "\x07")
    assert report.table({"site1": [told]})[-1] == r"  site1: held by alice: \x1b[2J\nproblem [\x07]"


def test_the_document_is_as_its_schema_says() -> None:
    document = report.document(HOSTS, NOW)
    jsonschema.validate(document, SCHEMA)
    assert document["time"] == "2026-06-01T12:30:00Z"
    assert document["hosts"] == {"site1": "problem", "site2": "ok", "site3": "unreachable", "vps1": "problem"}
    assert document["findings"][1] == {
        "host": "site1",
        "check": "files",
        "result": "problem",
        "text": "/etc/x is missing",
        "remedy": "run site.yml",
    }
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("names", "overall"),
    [(["site2"], "ok"), (["site2", "site1"], "problem"), (["site1", "site3"], "unreachable"), ([], "ok")],
)
def test_one_word_says_how_the_fleet_is(names: list[str], overall: str) -> None:
    assert report.document({name: HOSTS[name] for name in names}, NOW)["result"] == overall


def test_the_schema_names_every_check() -> None:
    names = SCHEMA["properties"]["findings"]["items"]["properties"]["check"]["enum"]
    assert set(names) == {report.UNREACHABLE, report.COMPLETE, *CHECKS}


def test_a_host_that_could_not_be_looked_at_has_a_problem() -> None:
    assert report.result([report.incomplete("no Python")]) == "problem"
