"""What the table is found to be."""

from __future__ import annotations

from mpquic.guard.nftables import Table
from mpquic.guard.ruleset import Note, Verdict, judge, needs_digest, revision

OLD, NEW = "revision aa", "revision bb"
NOTE = Note(7, OLD, "sum")


def test_a_table_is_intact_while_it_is_the_one_that_was_noted() -> None:
    assert needs_digest(Table(7, OLD), NOTE)
    assert judge(Table(7, OLD), "sum", NOTE, OLD) is Verdict.INTACT


def test_another_listing_of_the_same_table_is_an_edit() -> None:
    assert judge(Table(7, OLD), "other", NOTE, OLD) is Verdict.EDITED


def test_a_run_that_has_written_the_file_and_not_yet_loaded_it_is_no_drift() -> None:
    assert judge(Table(7, OLD), "sum", NOTE, NEW) is Verdict.INTACT


def test_a_load_of_the_file_by_somebody_else_is_no_drift() -> None:
    assert judge(Table(9, NEW), "", NOTE, NEW) is Verdict.UNKNOWN
    assert judge(Table(9, OLD), "", NOTE, OLD) is Verdict.UNKNOWN


def test_a_load_of_another_file_is_an_edit() -> None:
    assert judge(Table(9, "by hand"), "", NOTE, OLD) is Verdict.EDITED


def test_without_a_note_nothing_is_known() -> None:
    assert not needs_digest(Table(7, OLD), None)
    assert judge(Table(7, OLD), "", None, OLD) is Verdict.UNKNOWN
    assert judge(None, "", None, OLD) is Verdict.MISSING


def test_an_intact_table_stays_when_its_file_is_gone() -> None:
    assert judge(Table(7, OLD), "sum", NOTE, "") is Verdict.INTACT


def test_the_revision_is_the_comment_of_the_table() -> None:
    text = 'table inet mpquic {}\ndelete table inet mpquic\n\ntable inet mpquic {\n\tcomment "revision b0204"\n}\n'
    assert revision(text) == "revision b0204"
    assert revision("table inet mpquic {\n}\n") == ""
