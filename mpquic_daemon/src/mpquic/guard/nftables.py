"""The kernel's side of the packet filter: what changed, whether our table is there, and nft(8) to list and load it.

Layouts: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h. Hearing of changes and loading need CAP_NET_ADMIN.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpquic.net.rtnetlink import attributes, messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mpquic.net.rtnetlink import Message

TABLE = "mpquic"
NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
SO_RCVBUFFORCE = 33
NFNL_SUBSYS_NFTABLES = 10
NFPROTO_INET = 1
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_NEWGEN = 0, 1, 15

_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_NFTA_TABLE = 1
"""The name of the table has this number in the messages of all kinds of objects."""
_NFTA_TABLE_HANDLE, _NFTA_TABLE_USERDATA = 4, 6
_NFTA_GEN_PROC_PID, _NFTA_GEN_PROC_NAME = 2, 3
_UDATA_TABLE_COMMENT = 0
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
_BUFFER_BYTES = 1 << 20
MAX_READS = 64
"""Reads of a socket in one pass of the loop: events may come as fast as they are read."""
_TIMEOUT_S = 2.0
_NFT_TIMEOUT_S = 20.0


class FilterError(Exception):
    """nft refused, failed or didn't end; the text says what it printed."""


class FilterTimeoutError(FilterError):
    """nft didn't end in time: nothing is known of the rules that it was given."""


@dataclass(frozen=True, slots=True)
class Table:
    """Our table as it is loaded. The handle is another one whenever the table was made anew."""

    handle: int
    comment: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a read of events held: whether our table was touched, and by which process."""

    ours: bool
    process: str


def parse_table(body: memoryview) -> Table:
    """Decode the answer to NFT_MSG_GETTABLE."""
    found = attributes(body[_FAMILY.size :])
    return Table(_number(found, _NFTA_TABLE_HANDLE, 8), _comment(bytes(found.get(_NFTA_TABLE_USERDATA, b""))))


def parse_change(events: Iterable[Message], table: str = TABLE) -> Change:
    """Tell whether events concern our table. The kernel names the process at the end of each transaction."""
    ours = False
    pending = False
    process = ""
    for kind, _flags, body in events:
        if kind >> 8 != NFNL_SUBSYS_NFTABLES or len(body) < _FAMILY.size:
            continue
        found = attributes(body[_FAMILY.size :])
        if kind & 0xFF == NFT_MSG_NEWGEN:
            if pending:
                process = _process(found)
            pending = False
        elif body[0] == NFPROTO_INET and bytes(found.get(_NFTA_TABLE, b"")).rstrip(b"\0") == table.encode():
            ours = pending = True
    return Change(ours, process)


def _process(found: dict[int, memoryview]) -> str:
    name = bytes(found.get(_NFTA_GEN_PROC_NAME, b"")).rstrip(b"\0").decode(errors="replace")
    return f"{name}[{_number(found, _NFTA_GEN_PROC_PID, 4)}]" if name else ""


def _number(found: dict[int, memoryview], kind: int, size: int) -> int:
    """Return a number in network order; 0 where the attribute is missing or has another size."""
    raw = found.get(kind, b"")
    return int.from_bytes(raw, "big") if len(raw) == size else 0


def _comment(userdata: bytes) -> str:
    while len(userdata) >= 2:
        kind, length = userdata[0], userdata[1]
        if kind == _UDATA_TABLE_COMMENT:
            return userdata[2 : 2 + length].rstrip(b"\0").decode(errors="replace")
        userdata = userdata[2 + length :]
    return ""


class FilterEvents:
    """A netlink socket that hears of every change to the packet filter of the network namespace."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)

    def fileno(self) -> int:
        """File descriptor for a selector."""
        return self._socket.fileno()

    def read(self) -> Change:
        """Take some of what waits. When the kernel had to drop some, any table may have changed."""
        found: list[Message] = []
        overflow = False
        for _ in range(MAX_READS):
            try:
                found.extend(messages(self._socket.recv(_BUFFER_BYTES)))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overflow = True
        change = parse_change(found)
        return Change(ours=True, process="") if overflow else change

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Filter:
    """Our table: whether it is loaded, what is in it, and loading it."""

    def __init__(self, nft: str = "nft", alive: Callable[[], object] = lambda: None) -> None:
        """`alive` is called before each run of nft, which may take long."""
        self._nft = nft
        self._alive = alive
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def table(self) -> Table | None:
        """Return our table, None where it isn't loaded; OSError when netlink fails."""
        self._sequence += 1
        name = TABLE.encode() + b"\0"
        attribute = struct.pack("=HH", 4 + len(name), _NFTA_TABLE) + name
        attribute += bytes(-len(attribute) % 4)
        body = _FAMILY.pack(NFPROTO_INET, 0, 0) + attribute
        kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            data = self._socket.recv(_BUFFER_BYTES)
            if len(data) < _HEADER.size or _HEADER.unpack_from(data)[3] != self._sequence:
                continue
            for answer, _flags, content in messages(data):
                if answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code == errno.ENOENT:
                        return None
                    raise OSError(code, "netfilter netlink")
                return parse_table(content)

    def digest(self) -> str:
        """Return a sum over our table without its counters; empty where it isn't loaded.

        Raises:
            FilterError: nft can't say.
        """
        try:
            listing = self._run("--stateless", "list", "table", "inet", TABLE)
        except FilterError:
            if self.table() is None:
                return ""
            raise
        return hashlib.sha256(listing).hexdigest()

    def load(self, file: Path) -> None:
        """Replace our table by that of `file`, in one transaction; FilterError, FilterTimeoutError."""
        self._run("--file", str(file))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _run(self, *words: str) -> bytes:
        self._alive()
        try:
            done = subprocess.run(
                [self._nft, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=_NFT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise FilterTimeoutError(f"nft {words[0]}: no end after {_NFT_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise FilterError(f"nft can't be started: {error.strerror}") from error
        if done.returncode:
            first = next(iter(done.stderr.decode(errors="replace").splitlines()), "")
            raise FilterError(first or f"nft ended with {done.returncode}")
        return done.stdout
