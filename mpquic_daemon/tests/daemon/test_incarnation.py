"""The boot id of a client, and what it says of another machine."""

from __future__ import annotations

import itertools

from mpquic.daemon import incarnation
from mpquic.daemon.incarnation import Incarnation
from mpquic.proto.control.handshake import Rejected

from ..proto.pki import CLIENT


def made() -> Incarnation:
    numbers = itertools.count()
    return Incarnation(lambda size: bytes([next(numbers)] * size))


def test_epochs_grow_and_a_boot_id_stays_while_nobody_else_has_its_place() -> None:
    own = made()
    assert [own.next_epoch(), own.next_epoch()] == [1, 2]
    own.registered()
    assert own.boot_id == bytes(16)


def test_whoever_was_registered_and_lost_its_place_draws_another_boot_id_once() -> None:
    own = made()
    own.registered()
    own.displaced()
    assert own.boot_id == b"\1" * 16
    own.displaced()
    assert own.boot_id == b"\1" * 16


def test_a_second_machine_that_never_had_the_place_keeps_its_boot_id() -> None:
    own = made()
    own.displaced()
    assert own.boot_id == bytes(16)


def test_what_the_server_says_of_another_machine_reaches_no_terminal_as_a_command() -> None:
    rejected = Rejected("in_use", "\x1b[2J", None, peer="\x1b[2J192.0.2.9")
    text = incarnation.words(rejected, CLIENT.credentials(), "mpq5")
    assert text.isprintable()
    assert "another machine at \\x1b[2J192.0.2.9 uses this identity (site1 mpq5)" in text


def test_a_server_that_tells_no_address_is_understood() -> None:
    text = incarnation.words(Rejected("handed_over", "x"), CLIENT.credentials(), "mpq5")
    assert text.startswith("an operator has handed this identity (site1 mpq5) over to another machine: switch")
