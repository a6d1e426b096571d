"""The server's end of one UDP port: which connection a datagram belongs to, and which strangers get one.

To those who haven't proved anything the server says nothing beyond what QUIC must, and keeps nothing beyond small
quotas: connections count as strangers until `admit`. Above a threshold of strangers, new ones must first show by a
Retry that their address is theirs (RFC 9000 section 8.1.2).
"""

import heapq
import ipaddress
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from mpquic.net.aioquic_bounds import BoundedConnection
from mpquic.net.aioquic_receive import CONNECTION_ID_BYTES
from mpquic.net.quic import MIN_DATAGRAM_SIZE, LinkOptions, LinkState, QuicLink, quic_configuration
from mpquic.net.udp import Address, plain_host

_MAX_REPLIES = 256


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """What strangers may take. Times in seconds."""

    max_connections: int = 4096
    max_strangers: int = 256
    max_strangers_per_source: int = 32
    """For each IPv4 address or IPv6 /64: a site's tunnels may share one, and all come at once after a restart."""
    retry_threshold: int = 32
    admission_timeout: float = 10.0
    """From the first packet to `admit`."""


class QuicListener:
    """Connections of one server socket. `cert_file` and `key_file` are PEM; the chain may follow the certificate.

    Feed `receive`, then handle `pop_ready`, then send what `flush` gives. Raises OSError or ValueError for files that
    can't be read.
    """

    def __init__(
        self,
        *,
        cert_file: str,
        key_file: str,
        options: LinkOptions,
        limits: ListenerLimits | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.limits = limits or ListenerLimits()
        self.counters: Counter[str] = Counter()
        """What was refused or dropped, by reason."""
        self.accepting = True
        """Whether an Initial may begin a connection: those that waited while this process slept were given up."""
        self._options = options
        self._entropy = entropy
        self._configuration = self._configure(cert_file, key_file)
        self._tokens = QuicRetryTokenHandler()
        self._links: dict[bytes, _Entry] = {}
        self._entries: dict[QuicLink, _Entry] = {}
        self._strangers: Counter[str] = Counter()
        self._ready: dict[QuicLink, None] = {}
        self._output: dict[QuicLink, None] = {}
        self._flushed: dict[QuicLink, None] = {}
        """Connections that have sent, and may want to be called at another time since."""
        self._replies: list[tuple[bytes, Address]] = []
        self._timers: list[tuple[float, int, _Entry]] = []
        self._order = count()

    def reload_certificate(self, cert_file: str, key_file: str) -> None:
        """Use another certificate for connections from now on."""
        self._configuration = self._configure(cert_file, key_file)

    @property
    def links(self) -> tuple[QuicLink, ...]:
        """All connections."""
        return tuple(self._entries)

    @property
    def strangers(self) -> int:
        """Connections that haven't been admitted."""
        return self._strangers.total()

    @property
    def retrying(self) -> bool:
        """Whether strangers must prove their address first."""
        return self.strangers >= self.limits.retry_threshold

    def receive(self, datagrams: Iterable[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender. Never raises: what can't be used is dropped and counted."""
        run: list[bytes] = []
        owner: _Entry | None = None
        for datagram in datagrams:
            # A short header begins with a connection ID of ours (RFC 8999 section 5.2): the case of all but handshakes.
            known = datagram and datagram[0] < 0x80
            entry = self._links.get(datagram[1 : 1 + CONNECTION_ID_BYTES]) if known else None
            if entry is None:
                entry = self._find(datagram, address, now)
            if entry is not owner:
                if owner is not None:
                    self._deliver(owner.link, run, address, now)
                run, owner = [], entry
            if entry is not None:
                run.append(datagram)
        if owner is not None:
            self._deliver(owner.link, run, address, now)

    def _deliver(self, link: QuicLink, datagrams: list[bytes], address: Address, now: float) -> None:
        link.receive(datagrams, address, now)
        self._touched(link)

    def _touched(self, link: QuicLink) -> None:
        if link.has_events:
            self._ready[link] = None
        if link.state is LinkState.CLOSED:
            self._after(link)
        else:
            self._output[link] = None

    def pop_ready(self) -> list[QuicLink]:
        """Connections with events since the last call. A closed one is forgotten by then; its last events remain."""
        while self._flushed:
            self._after(self._flushed.popitem()[0])
        ready = [link for link in self._ready if link.has_events]
        self._ready.clear()
        return ready

    def admit(self, link: QuicLink) -> None:
        """The peer of the connection proved who it is: it is no stranger any more."""
        entry = self._entries.get(link)
        if entry is not None and entry.source is not None:
            self._forget_stranger(entry)
            link.admit()

    def flush(self, now: float) -> list[tuple[list[bytes], Address]]:
        """Everything that may leave now, grouped by destination."""
        groups: list[tuple[list[bytes], Address]] = [([reply], address) for reply, address in self._replies]
        self._replies.clear()
        while self._output:
            link, _ = self._output.popitem()
            last: Address | None = None
            for datagram, address in link.flush(now):
                if address != last:
                    groups.append(([], address))
                    last = address
                groups[-1][0].append(datagram)
            # What else follows can wait until the packets have left.
            if link.state is LinkState.CLOSED:
                self._after(link)
            else:
                self._flushed[link] = None
        return groups

    def timer(self) -> float | None:
        """When `handle_timer` wants to be called; None without connections."""
        while self._flushed:
            self._after(self._flushed.popitem()[0])
        timers = self._timers
        while timers:
            at, _, entry = timers[0]
            if entry.due == at and entry.link in self._entries:
                return at
            heapq.heappop(timers)
        return None

    def handle_timer(self, now: float) -> None:
        """Let the connections whose time has come act. Call `pop_ready` and `flush` afterwards."""
        while (at := self.timer()) is not None and at <= now:
            entry = heapq.heappop(self._timers)[2]
            entry.due = None
            link = entry.link
            if entry.source is not None and now >= entry.admission_deadline:
                self.counters["not admitted in time"] += 1
                link.close(0, "not registered in time")
            link.handle_timer(now)
            self._touched(link)

    def close(self, now: float, reason: str = "") -> list[tuple[list[bytes], Address]]:
        """End all connections; gives what is left to send."""
        for link in self.links:
            link.close(0, reason)
            self._output[link] = None
        return self.flush(now)

    def _configure(self, cert_file: str, key_file: str) -> QuicConfiguration:
        configuration = quic_configuration(self._options, is_client=False)
        configuration.load_cert_chain(cert_file, key_file)
        return configuration

    def _find(self, datagram: bytes, address: Address, now: float) -> "_Entry | None":
        """Connection for a datagram that isn't of a known short-header connection ID; maybe a new one."""
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_BYTES)
        except ValueError:
            self.counters["malformed"] += 1
            return None
        entry = self._links.get(header.destination_cid)
        if entry is not None:
            return entry
        if len(datagram) < MIN_DATAGRAM_SIZE:
            # RFC 9000 section 14.1: an Initial is padded. A short-header packet is of a connection that has gone.
            known = "unknown connection" if header.version is None else "too small"
            self.counters[known] += 1
            return None
        if header.version is None:
            self.counters["unknown connection"] += 1
            return None
        if header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            # An answer to it would let two servers keep each other busy.
            self.counters["unexpected packet"] += 1
            return None
        if header.version not in self._configuration.supported_versions:
            self.counters["unsupported version"] += 1
            self._reply(
                encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=self._configuration.supported_versions,
                ),
                address,
            )
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            self.counters["unknown connection"] += 1
            return None
        if not self.accepting:
            self.counters["too old"] += 1
            return None
        return self._accept(header, len(datagram), address, now)

    def _accept(self, header: QuicHeader, size: int, address: Address, now: float) -> "_Entry | None":
        """Make a connection for an Initial, if quotas and address validation allow."""
        if len(header.destination_cid) < CONNECTION_ID_BYTES:  # RFC 9000 section 7.2
            self.counters["malformed"] += 1
            return None
        original, retry_source = header.destination_cid, None
        if header.token:
            try:
                original = self._tokens.validate_token(
                    address=address, destination_cid=header.destination_cid, token=header.token, now=now
                )
                retry_source = header.destination_cid
            except ValueError:
                # Of another process, or too old: as if there were none. The client gives up when it sees the answer.
                self.counters["invalid token"] += 1
                if self.retrying:
                    return None
        elif self.retrying:
            self._retry(header, address, now)
            return None
        source = _source_key(address)
        if len(self._entries) >= self.limits.max_connections:
            self.counters["too many connections"] += 1
            return None
        if self.strangers >= self.limits.max_strangers:
            self.counters["too many strangers"] += 1
            return None
        if self._strangers[source] >= self.limits.max_strangers_per_source:
            self.counters["too many strangers of one source"] += 1
            return None
        # Path MTU discovery for the way back: what came through is what the client believes in.
        size = max(MIN_DATAGRAM_SIZE, min(self._options.max_datagram_size, size))
        configuration = replace(self._configuration, max_datagram_size=size)
        link = QuicLink(
            lambda: BoundedConnection(
                configuration=configuration,
                original_destination_connection_id=original,
                retry_source_connection_id=retry_source,
            ),
            replace(self._options, max_datagram_size=size),
            now=now,
            server_certificate=self._configuration.certificate,
        )
        entry = _Entry(link, source, now + self.limits.admission_timeout, [header.destination_cid, link.connection_id])
        self._strangers[source] += 1
        self._entries[link] = entry
        for connection_id in entry.connection_ids:
            self._links[connection_id] = entry
        link.on_output = partial(self._output.__setitem__, link, None)
        link.on_connection_ids = partial(self._on_connection_ids, entry)
        self.counters["accepted"] += 1
        return entry

    def _retry(self, header: QuicHeader, address: Address, now: float) -> None:
        assert header.version is not None  # a long header
        self.counters["retry sent"] += 1
        source_cid = self._entropy(CONNECTION_ID_BYTES)
        token = self._tokens.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        self._reply(
            encode_quic_retry(
                version=header.version,
                source_cid=source_cid,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            ),
            address,
        )

    def _reply(self, datagram: bytes, address: Address) -> None:
        if len(self._replies) < _MAX_REPLIES:
            self._replies.append((datagram, address))

    def _on_connection_ids(self, entry: "_Entry", issued: list[bytes], retired: list[bytes]) -> None:
        for connection_id in issued:
            self._links[connection_id] = entry
            entry.connection_ids.append(connection_id)
        for connection_id in retired:
            self._links.pop(connection_id, None)
            if connection_id in entry.connection_ids:
                entry.connection_ids.remove(connection_id)

    def _after(self, link: QuicLink) -> None:
        """Forget a closed connection at once, or note when the living one wants to be called."""
        entry = self._entries.get(link)
        if entry is None:
            return
        if link.has_events:
            self._ready[link] = None
        if link.state is LinkState.CLOSED:
            for connection_id in entry.connection_ids:
                self._links.pop(connection_id, None)
            self._forget_stranger(entry)
            del self._entries[link]
            link.on_output = _nothing
            self.counters["closed"] += 1
            return
        due = link.timer()
        if entry.source is not None and (due is None or entry.admission_deadline < due):
            due = entry.admission_deadline
        if due is not None and due != entry.due:
            entry.due = due
            heapq.heappush(self._timers, (due, next(self._order), entry))

    def _forget_stranger(self, entry: "_Entry") -> None:
        if entry.source is not None:
            self._strangers[entry.source] -= 1
            if not self._strangers[entry.source]:
                del self._strangers[entry.source]
            entry.source = None


class _Entry:
    """A connection with what the listener keeps of it. `source` is set while it is a stranger."""

    __slots__ = ("admission_deadline", "connection_ids", "due", "link", "source")

    def __init__(self, link: QuicLink, source: str, admission_deadline: float, connection_ids: list[bytes]) -> None:
        self.link = link
        self.source: str | None = source
        self.admission_deadline = admission_deadline
        self.connection_ids = connection_ids
        self.due: float | None = None


def _source_key(address: Address) -> str:
    """What counts as one source: an IPv4 address, an IPv6 /64."""
    host = plain_host(address)
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host, 64), strict=False))


def _nothing() -> None:
    """Callback of a connection that the listener has forgotten."""
