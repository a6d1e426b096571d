"""The modules that a packet crosses between the TUN and the wire are those of docs/architecture.md, and few.

A packet crosses a module when it is handed to an object of it, alone or with others, as a packet, in a frame or in a
datagram. What is only asked meanwhile (scheduler, paths, clocks) isn't crossed, and neither are pure functions and
the values that hold it (`proto/packet`'s formats).
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpquic
import pytest

from ..proto import packets
from .conftest import Site
from .virtual import INNER_CLIENT, INNER_SERVER, Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SOURCE = Path(mpquic.__file__).parent
DOCUMENT = (Path(__file__).parents[3] / "docs/architecture.md").read_text()
MOST = 10
PLAYED = {"send_batch": "net/udp", "recv_batch": "net/udp", "read_batch": "net/tun", "write": "net/tun"}
"""Methods of the devices that stand in for the kernel's here."""
VALUES = {"proto/packet/frame", "proto/packet/run", "proto/packet/superframe"}
"""Formats: their objects are the packet."""
DEPTH = 6
BODY = 500
"""Octets of the packet behind its IP header: more than anything else that is sent meanwhile."""


def octets(value: object, depth: int = DEPTH) -> Iterator[bytes]:
    """All bytes in a value: what is in its lists, tuples and fields, too."""
    if isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value)
    elif depth and isinstance(value, list | tuple | set | deque):
        for each in list(value):
            yield from octets(each, depth - 1)
    elif depth and type(value).__module__.startswith("mpquic."):
        if is_dataclass(value):
            names = [each.name for each in fields(value)]
        elif type(value).__module__.startswith("mpquic.proto.packet."):
            names = list(getattr(type(value), "__slots__", ()))
        else:
            return
        for name in names:
            yield from octets(getattr(value, name, None), depth - 1)


def crossed(act: Callable[[], None], is_it: Callable[[bytes], bool]) -> list[str]:
    """Modules to whose objects `act` hands what `is_it` knows, or which return it, in the order of the first time."""
    handed: list[tuple[str, list[bytes]]] = []

    def note(frame: FrameType, event: str, returned: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_argcount or code.co_varnames[0] != "self":
            return
        file = Path(code.co_filename)
        if file.is_relative_to(SOURCE):
            module = file.relative_to(SOURCE).with_suffix("").as_posix()
        elif file.name == "virtual.py" and code.co_name in PLAYED:
            module = PLAYED[code.co_name]
        else:
            return
        if module in VALUES:
            return
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        given: Any = returned if event == "return" else [frame.f_locals.get(name) for name in names]
        large = [each for each in octets(given) if len(each) >= BODY]
        if large:
            handed.append((module, large))

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    # Which datagrams the packet has become is known afterwards only.
    return list(dict.fromkeys(module for module, given in handed if any(map(is_it, given))))


def documented(row: str, column: int) -> list[str]:
    [line] = re.findall(rf"^\| {row} \|(.+)\|$", DOCUMENT, re.MULTILINE)
    return re.findall(r"`([\w/]+)`", line.split("|")[column])


def followed(ends: Ends, sender: str, receiver: str) -> tuple[list[str], list[str]]:
    """The modules that a packet crosses at either end."""
    body, sent = os.urandom(BODY), []
    inner, send = {"cl": INNER_CLIENT, "sv": INNER_SERVER}, ends.network.send

    def note(source: Any, destination: Any, data: bytes) -> None:
        sent.append(data)
        send(source, destination, data)

    def is_packet(data: bytes) -> bool:
        return body in data or any(each in data for each in sent if len(each) > BODY)

    ends.network.send = note  # type: ignore[method-assign]
    ends.tuns[sender].give(packets.ipv4(253, body, source=inner[sender], destination=inner[receiver]))
    out = crossed(ends.processes[sender].run, is_packet)
    before = len(ends.arrivals(receiver))
    came = crossed(lambda: ends.wait(lambda: len(ends.arrivals(receiver)) > before, 0.2, "there"), is_packet)
    ends.network.send = send  # type: ignore[method-assign]
    return out, came


@pytest.mark.parametrize(("transport", "column"), [("stripe", 0), ("quic", 1)])
def test_a_packet_takes_the_way_that_is_described(tmp_path: Path, transport: str, column: int) -> None:
    ends = Ends(Site(tmp_path), transport=transport, probes=False)
    try:
        ends.wait(lambda: ends.state == "up" and (transport == "quic" or ends.session), 10.0, "up")
        ends.run(3.0)
        out, _ = followed(ends, "cl", "sv")
        _, came = followed(ends, "sv", "cl")
    finally:
        ends.close()
    assert (out, came) == (documented("out", column), documented("in", column))
    assert len(out) <= MOST
    assert len(came) <= MOST
