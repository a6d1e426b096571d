"""A look at the kernel that fails makes no load or repair due: the next one comes after the usual time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.daemon.journal import open_journal
from mpquic.guard.filtering import FilterGuard
from mpquic.guard.kernel import NetworkEvents
from mpquic.guard.network import NetworkGuard
from mpquic.guard.nftables import Filter, FilterError, FilterEvents, FilterTimeoutError, Table
from mpquic.guard.wanted import Tun, Wanted

if TYPE_CHECKING:
    from pathlib import Path


class Nft:
    """A table that is missing, rules that don't load, and netlink that fails when the test says so."""

    def __init__(self) -> None:
        self.fails = False

    def table(self) -> Table | None:
        if self.fails:
            raise TimeoutError("netlink")
        return None

    def load(self, _file: Path) -> None:
        raise FilterError("refused")


class Edited:
    """A table that somebody edits `edits` times, each time after a load and before it is listed."""

    def __init__(self, edits: int) -> None:
        self.edits = edits
        self.loads = 0
        self.edited = True

    def table(self) -> Table | None:
        return Table(self.loads, "revision aa")

    def load(self, _file: Path) -> None:
        self.loads += 1
        self.edited = self.loads <= self.edits

    def digest(self) -> str:
        return f"edited {self.loads}" if self.edited else "whole"


class Netlink:
    """A host without any device, and netlink that fails when the test says so."""

    def __init__(self) -> None:
        self.fails = False

    def devices(self) -> dict[str, Any]:
        if self.fails:
            raise TimeoutError("netlink")
        return {}

    def rules(self) -> frozenset[Any]:
        return frozenset()

    def routes(self, _devices: object, _wanted: object) -> frozenset[Any]:
        return frozenset()

    def interfaces(self, _devices: object) -> frozenset[Any]:
        return frozenset()


def test_no_load_is_due_while_the_table_can_not_be_read(tmp_path: Path) -> None:
    nft: Any = Nft()
    guard = FilterGuard(tmp_path / "note", nft, open_journal("info", io.StringIO()))
    guard.look(tmp_path / "rules", 0.0)
    assert guard.next_time() is not None
    nft.fails = True
    guard.look(tmp_path / "rules", 100.0)
    assert guard.next_time() is None
    nft.fails = False
    guard.look(tmp_path / "rules", 115.0)
    assert guard.next_time() is not None


@pytest.mark.parametrize("edits", range(12))
def test_an_edit_between_load_and_listing_is_not_taken_for_the_rules(tmp_path: Path, edits: int) -> None:
    nft: Any = Edited(edits)
    rules = tmp_path / "rules"
    rules.write_text('comment "revision aa"')
    guard = FilterGuard(tmp_path / "note", nft, open_journal("info", io.StringIO()))
    for second in range(20):
        guard.look(rules, float(second))
    assert not nft.edited
    assert '"whole"' in (tmp_path / "note").read_text()
    loads = nft.loads
    nft.edited = True
    guard.look(rules, 100.0)
    assert (nft.loads, nft.edited) == (loads + 1, False)


class Slow(Edited):
    """An nft whose loads don't end in time, with the table that is there or without one."""

    def __init__(self, *, missing: bool) -> None:
        super().__init__(0)
        self.missing = missing

    def table(self) -> Table | None:
        return None if self.missing else super().table()

    def load(self, _file: Path) -> None:
        raise FilterTimeoutError("nft --file: no end after 20 s")


@pytest.mark.parametrize("missing", [False, True])
def test_a_load_that_takes_too_long_stops_forwarding_only_without_a_table(tmp_path: Path, missing: bool) -> None:
    nft: Any = Slow(missing=missing)
    lines = io.StringIO()
    guard = FilterGuard(tmp_path / "note", nft, open_journal("info", lines))
    guard.look(tmp_path / "rules", 0.0)
    assert guard.loaded is not missing
    assert "guard.filter_unknown" in lines.getvalue()
    assert "guard.filter_refused" not in lines.getvalue()
    assert guard.next_time() is not None


def test_an_nft_that_does_not_end_is_told_from_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpquic.guard.nftables._NFT_TIMEOUT_S", 0.05)
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\nexec sleep 60\n")
    nft.chmod(0o755)
    filter_ = Filter(str(nft))
    with pytest.raises(FilterTimeoutError, match="no end after"):
        filter_.load(tmp_path / "rules")
    filter_.close()


class Flood:
    """A socket on which events come as fast as they are read."""

    def __init__(self) -> None:
        self.reads = 0

    def recv(self, _size: int) -> bytes:
        self.reads += 1
        assert self.reads < 1000
        return bytes(16)


@pytest.mark.parametrize(("kind", "read"), [(FilterEvents, "read"), (NetworkEvents, "drain")])
def test_events_without_end_do_not_keep_the_loop_from_its_work(kind: Any, read: str) -> None:
    events = kind()
    events.close()
    events._socket = Flood()
    getattr(events, read)()
    assert events._socket.reads > 0


def test_the_watchdog_hears_before_each_run_of_nft(tmp_path: Path) -> None:
    runs: list[int] = []
    filter_ = Filter("true", lambda: runs.append(1))
    for _ in range(3):
        filter_.load(tmp_path / "rules")
    filter_.close()
    assert len(runs) == 3


def test_no_repair_is_due_while_the_network_can_not_be_read() -> None:
    netlink: Any = Netlink()
    guard = NetworkGuard(netlink, "nobody", open_journal("info", io.StringIO()))
    wanted = Wanted(tuns=[Tun(name="mpq5", mtu=1400)])
    guard.look(wanted, 0.0, forward=True)
    assert guard.next_time() is not None
    netlink.fails = True
    with pytest.raises(TimeoutError):
        guard.look(wanted, 100.0, forward=True)
    assert guard.next_time() is None
