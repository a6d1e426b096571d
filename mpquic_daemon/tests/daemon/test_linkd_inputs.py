"""What linkd reads from others: replies of systemd and requests on its control socket; each is used or refused."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.linkd.control import MAX_REASON, MAX_SECONDS, LinkdSocket
from mpquic.linkd.systemd import CommandError, Systemd
from mpquic.linkd.units import Activity, Unit

ROW = ["mpquic@mpq5.service", "a tunnel", "loaded", "active", "running", "", "/unit", 0, "", "/"]
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=10), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
words = st.sampled_from([
    "mpquic@mpq5.service", "mpquic@.service", "/etc/systemd/system/mpquic@mpq4.service", "masked", "loaded", "active",
    "failed", "activating", "auto-restart", "dead", 0, 7,
])  # fmt: skip
listings = st.one_of(values, st.lists(st.one_of(values, st.lists(words, max_size=11)), max_size=4))


def units(files: Any, rows: Any) -> dict[str, Unit]:
    """What linkd makes of two replies of systemd."""
    control = Systemd(lambda: None)

    async def reply(_address: object, method: str, *_arguments: object) -> Any:
        return files if method == "ListUnitFilesByPatterns" else rows

    control._call = reply  # type: ignore[method-assign, assignment]
    return asyncio.run(control.units())


@given(listings, listings)
def test_any_listing_of_units_is_read_or_refused(files: Any, rows: Any) -> None:
    try:
        found = units(files, rows)
    except CommandError:
        return
    assert all(isinstance(name, str) and isinstance(unit, Unit) for name, unit in found.items())


@pytest.mark.parametrize("rows", [None, 7, [[]], [{}], [ROW[:5]], [[None, *ROW[1:]]]])
def test_a_listing_that_is_none_is_refused(rows: Any) -> None:
    with pytest.raises(CommandError, match="a form that isn't known"):
        units([], rows)


def test_a_mask_of_the_template_is_that_of_every_instance() -> None:
    found = units([("/etc/systemd/system/mpquic@.service", "masked")], [ROW])
    assert found["mpq5"] == Unit(Activity.RUNNING, masked=True)


class Linkd:
    """Notes what passed the checks of the control socket."""

    def __init__(self) -> None:
        self.held: list[tuple[str, str, str, float | None]] = []

    def instances(self) -> object:
        return []

    def hold(self, name: str, by: str, reason: str, seconds: float | None) -> object:
        self.held.append((name, by, reason, seconds))
        return {}

    def release(self, _name: str, _by: str) -> object:
        return {}


class Writer:
    """The connection of whoever asks."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def get_extra_info(self, _name: str) -> socket.socket:
        return self._connection


requests = st.one_of(
    st.binary(max_size=80),
    values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"v": st.just(1)},
        optional={
            "id": values,
            "op": st.one_of(st.sampled_from(["get", "hold", "release"]), values),
            "what": st.one_of(st.just("instances"), values),
            "name": st.one_of(st.just("mpq5"), values),
            "reason": st.one_of(st.just("the dish is moved"), values),
            "for_seconds": st.one_of(st.just(60), values),
            "user": values,
        },
    ).map(lambda request: json.dumps(request).encode()),
)


@given(requests)
def test_any_request_is_done_or_refused(line: bytes) -> None:
    linkd = Linkd()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer: Any = Writer(ours)
        reply = LinkdSocket(Path("unused"), linkd)._answer(line, writer)
    assert reply["ok"] is True or isinstance(reply["error"], str)
    for name, by, reason, seconds in linkd.held:
        assert isinstance(name, str)
        assert by.isprintable()
        assert 1 <= len(reason) <= MAX_REASON
        assert reason.isprintable()
        assert seconds is None or 1 <= seconds <= MAX_SECONDS
