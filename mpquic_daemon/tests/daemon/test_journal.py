"""Log lines are one event each, and can't be forged or multiplied by the network."""

import io
import logging

import pytest
from mpquic.daemon.journal import Journal, open_journal, set_level


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    return io.StringIO()


def test_a_line_has_priority_event_and_fields(stream: io.StringIO) -> None:
    journal = open_journal("info", stream)
    journal.info("tunnel.up", peer="203.0.113.10:45005", rtt_ms=13.25, reason="no carrier", none=None)
    journal.warning("tunnel.down")
    journal.error("config.refused", problem='a "b"')
    assert stream.getvalue().splitlines() == [
        '<5>tunnel.up peer=203.0.113.10:45005 rtt_ms=13.25 reason="no carrier" none=None',
        "<4>tunnel.down",
        r'<3>config.refused problem="a \"b\""',
    ]


def test_what_comes_from_the_network_stays_inside_its_field(stream: io.StringIO) -> None:
    open_journal("info", stream).info("client.refused", reason="x\n<0>forged line\x1b[2J")
    assert stream.getvalue() == '<5>client.refused reason="x\\n<0>forged line\\u001b[2J"\n'


def test_the_level_can_change_while_running(stream: io.StringIO) -> None:
    journal = open_journal("warning", stream)
    journal.info("a")
    set_level("debug")
    journal.debug("b")
    set_level("error")
    journal.warning("c")
    assert stream.getvalue() == "<7>b\n"


def test_repeated_failures_are_written_once_in_a_while_with_their_number(stream: io.StringIO) -> None:
    journal: Journal = open_journal("info", stream)
    for second in range(125):
        journal.limited("refused", float(second), "path.refused", reason="busy")
    journal.limited("other", 1.0, "path.no_socket")
    assert stream.getvalue().splitlines() == [
        "<4>path.refused reason=busy",
        "<4>path.refused reason=busy left_out=59",
        "<4>path.refused reason=busy left_out=59",
        "<4>path.no_socket",
    ]
