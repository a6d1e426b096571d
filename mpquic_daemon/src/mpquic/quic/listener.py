"""The server's end of one UDP port: which connection a datagram belongs to, and who gets a connection.

To those who haven't proved anything the server says nothing beyond what QUIC must, and keeps nothing beyond small
quotas: connections count as unregistered until `admit`. Who gets a place among them, and for how long, says
`mpquic.proto.control.unregistered`. Under load a peer must first show by a Retry that its address is its own (RFC 9000
section 8.1.2).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicHeader, QuicPacketType, pull_quic_header

from mpquic.proto.control.unregistered import Unregistered, UnregisteredLimits
from mpquic.proto.path.address import Address, plain_host
from mpquic.quic.aioquic_bounds import BoundedConnection
from mpquic.quic.aioquic_receive import CONNECTION_ID_BYTES
from mpquic.quic.configuration import LinkOptions, quic_configuration
from mpquic.quic.connection_view import LinkState
from mpquic.quic.entry import Entry
from mpquic.quic.link import QuicLink
from mpquic.quic.pmtu import MIN_DATAGRAM_SIZE
from mpquic.quic.stateless import RetryTokens, version_negotiation
from mpquic.quic.timers import Timers

Buffered = bytes | memoryview
Group = tuple[list[bytes], Address]
"""Datagrams for one destination, in order."""

_MAX_REPLIES = 256
MAX_CONNECTIONS = 4096


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
        limits: UnregisteredLimits | None = None,
        entropy: Callable[[int], bytes],
        processor_time: Callable[[], float],
        time_passed: Callable[[], float],
    ) -> None:
        self.counters: Counter[str] = Counter()
        """What was refused or dropped, by reason."""
        self.accepting = True
        """Whether an Initial may begin a connection: those that waited while this process slept were given up."""
        self._options = options
        self._configuration = self._configure(cert_file, key_file)
        self._tokens = RetryTokens(entropy)
        self._links: dict[bytes, Entry] = {}
        self._entries: dict[QuicLink, Entry] = {}
        self._waiting: dict[int, Entry] = {}
        self._unregistered: Unregistered[int] = Unregistered(limits or UnregisteredLimits())
        self._processor_time, self._time_passed = processor_time, time_passed
        self._ready: dict[QuicLink, None] = {}
        self._output: dict[QuicLink, None] = {}
        self._flushed: dict[QuicLink, None] = {}
        """Connections that have sent, and may want to be called at another time since."""
        self._replies: list[tuple[bytes, Address]] = []
        self._timers = Timers()
        self._numbered: dict[int, Entry] = {}
        self._order = count()

    def reload_certificate(self, cert_file: str, key_file: str) -> None:
        """Use another certificate for connections from now on."""
        self._configuration = self._configure(cert_file, key_file)

    @property
    def links(self) -> tuple[QuicLink, ...]:
        """All connections."""
        return tuple(self._entries)

    @property
    def unregistered(self) -> int:
        """Connections that haven't been admitted."""
        return len(self._unregistered)

    def claimant(self, datagram: Buffered) -> QuicLink | None:
        """Return the connection that a datagram claims to be of, by its destination; nothing is authenticated by it."""
        if not len(datagram):
            return None
        if datagram[0] < 0x80:
            connection_id = bytes(datagram[1 : 1 + CONNECTION_ID_BYTES])
        else:
            # RFC 8999 section 5.1: first octet, version, length of the connection ID, connection ID.
            connection_id = bytes(datagram[6 : 6 + datagram[5]]) if len(datagram) > 6 else b""
        entry = self._links.get(connection_id)
        return entry.link if entry is not None else None

    def receive(self, datagrams: Iterable[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender. Never raises: what can't be used is dropped and counted."""
        run: list[bytes] = []
        owner: Entry | None = None
        for datagram in datagrams:
            # A short header begins with a connection ID of ours (RFC 8999 section 5.2): the case of all but handshakes.
            known = datagram and datagram[0] < 0x80
            entry = self._links.get(datagram[1 : 1 + CONNECTION_ID_BYTES]) if known else None
            if entry is None:
                entry = self._find(datagram, address, now)
            if entry is not owner:
                if owner is not None:
                    self._deliver(owner, run, address, now)
                run, owner = [], entry
            if entry is not None:
                run.append(datagram)
        if owner is not None:
            self._deliver(owner, run, address, now)

    def _deliver(self, entry: Entry, datagrams: list[bytes], address: Address, now: float) -> None:
        link = entry.link
        if entry.registered:
            link.receive(datagrams, address, now)
        else:
            with self.counting(link, now, len(datagrams)):
                link.receive(datagrams, address, now)
            self._prove(entry, address, now)
            if not link.has_decrypted:
                # Not even the first packet could be decrypted, which needs no secret (RFC 9001 section 5.2).
                self.counters["undecryptable"] += 1
                self._abandon(link, "nothing could be decrypted")
        self._touched(link)

    def _prove(self, entry: Entry, address: Address, now: float) -> None:
        """Take note of the end of the handshake, which proves the address if no other has sent anything."""
        if address != entry.address:
            entry.address = None
        if entry.link.established_at is not None:
            self._unregistered.established(entry.number, now, is_proven=entry.address is not None)

    @contextmanager
    def counting(self, link: QuicLink, now: float, datagrams: int = 0) -> Iterator[None]:
        """Put the processor time of what is done for a connection to its account, until it is admitted."""
        began, began_work = self._time_passed(), self._processor_time()
        yield
        entry = self._entries.get(link)
        if entry is None or entry.registered:
            return
        work, elapsed = self._processor_time() - began_work, self._time_passed() - began
        reason = self._unregistered.count(entry.number, datagrams, work, elapsed, now)
        if reason is not None:
            self.counters[reason] += 1
            self._abandon(link, reason.replace("_", " "))

    def _abandon(self, link: QuicLink, reason: str) -> None:
        link.abandon(reason)
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
        self._after_flush()
        ready = [link for link in self._ready if link.has_events]
        self._ready.clear()
        return ready

    def admit(self, link: QuicLink, now: float) -> None:
        """The peer of the connection proved who it is: the limits of unregistered connections are not for it."""
        entry = self._entries.get(link)
        if entry is not None and not entry.registered:
            entry.registered = True
            del self._waiting[entry.number]
            self._unregistered.admitted(entry.number, now)
            link.admit()

    def identify(self, link: QuicLink, identity: str, now: float) -> None:
        """The peer of the connection proved who it is, and waits: unknown ones don't take its place."""
        entry = self._entries.get(link)
        if entry is not None and not entry.registered:
            self._unregistered.identified(entry.number, identity, now)

    def flush(self, now: float) -> list[tuple[list[bytes], Address]]:
        """Everything that may leave now, grouped by destination."""
        return [group for _, groups in self.flush_each(now) for group in groups]

    def flush_each(self, now: float) -> Iterator[tuple[QuicLink | None, list[Group]]]:
        """Yield what may leave now of each connection, grouped by destination; of None is what has none.

        Connections are served in the order in which they came to have something.
        """
        if self._replies:
            replies, self._replies = self._replies, []
            yield None, [([reply], address) for reply, address in replies]
        output = self._output
        while output:
            if len(output) == 1:
                link, _ = output.popitem()
                yield link, self._flush_link(link, now)
                continue
            links = deque(output)
            output.clear()
            try:
                while links:
                    link = links.popleft()
                    yield link, self._flush_link(link, now)
            finally:
                output.update(dict.fromkeys(links))

    def _flush_link(self, link: QuicLink, now: float) -> list[Group]:
        groups: list[Group] = []
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
        self._after_flush()
        due, expiry = self._timers.next(), self._unregistered.next_expiry()
        if due is None or expiry is None:
            return expiry if due is None else due
        return min(due, expiry)

    def handle_timer(self, now: float) -> None:
        """Let the connections whose time has come act. Call `pop_ready` and `flush` afterwards."""
        for expired in self._unregistered.pop_expired(now):
            self.counters["not_registered_in_time"] += 1
            self._waiting[expired].link.close(0, "not registered in time")
        while True:
            self._after_flush()
            number = self._timers.pop_due(now)
            if number is None:
                return
            link = self._numbered[number].link
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

    def _find(self, datagram: bytes, address: Address, now: float) -> Entry | None:
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
            known = "unknown_connection" if header.version is None else "too_small"
            self.counters[known] += 1
            return None
        if header.version is None:
            self.counters["unknown_connection"] += 1
            return None
        if header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            # A reply to it would let two servers keep each other busy.
            self.counters["unexpected_packet"] += 1
            return None
        if header.version not in self._configuration.supported_versions:
            self.counters["unsupported_version"] += 1
            self._reply(version_negotiation(header, self._configuration.supported_versions), address)
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            self.counters["unknown_connection"] += 1
            return None
        if not self.accepting:
            self.counters["too_old"] += 1
            return None
        return self._accept(header, address, now)

    def _accept(self, header: QuicHeader, address: Address, now: float) -> Entry | None:
        """Make a connection for an Initial, if quotas and address validation allow."""
        if len(header.destination_cid) < CONNECTION_ID_BYTES:  # RFC 9000 section 7.2
            self.counters["malformed"] += 1
            return None
        original, retry_source = header.destination_cid, None
        if header.token:
            try:
                original = self._tokens.original_destination(header, address, now)
                retry_source = header.destination_cid
            except ValueError:
                # Of another process, or too old: as if there were none. The client gives up when it sees the reply.
                self.counters["invalid_token"] += 1
                if self._unregistered.must_prove_address(now):
                    return None
        elif self._unregistered.must_prove_address(now):
            self.counters["retry_sent"] += 1
            self._reply(self._tokens.retry(header, address, now), address)
            return None
        if len(self._entries) >= MAX_CONNECTIONS:
            self.counters["too_many_connections"] += 1
            return None
        number = next(self._order)
        is_proven = retry_source is not None
        decision = self._unregistered.enter(number, plain_host(address), address[1], now, is_proven=is_proven)
        if decision.refusal is not None:
            self.counters[decision.refusal] += 1
            return None
        if decision.evicted is not None:
            self.counters["evicted_before_registration"] += 1
            self._abandon(self._waiting[decision.evicted].link, "another connection has taken its place")
        began, began_work = self._time_passed(), self._processor_time()
        link = QuicLink(
            lambda: BoundedConnection(
                configuration=self._configuration,
                original_destination_connection_id=original,
                retry_source_connection_id=retry_source,
            ),
            self._options,
            now=now,
            certificate=self._configuration.certificate,
        )
        entry = Entry(number, link, [header.destination_cid, link.connection_id], address)
        self._entries[link] = self._waiting[number] = self._numbered[number] = entry
        for connection_id in entry.connection_ids:
            self._links[connection_id] = entry
        link.on_output = partial(self._output.__setitem__, link, None)
        link.on_connection_ids = partial(self._on_connection_ids, entry)
        self.counters["accepted"] += 1
        work, elapsed = self._processor_time() - began_work, self._time_passed() - began
        self._unregistered.count(number, 0, work, elapsed, now)
        return entry

    def _reply(self, datagram: bytes, address: Address) -> None:
        if len(self._replies) < _MAX_REPLIES:
            self._replies.append((datagram, address))

    def _on_connection_ids(self, entry: Entry, issued: list[bytes], retired: list[bytes]) -> None:
        for connection_id in issued:
            self._links[connection_id] = entry
            entry.connection_ids.append(connection_id)
        for connection_id in retired:
            self._links.pop(connection_id, None)
            if connection_id in entry.connection_ids:
                entry.connection_ids.remove(connection_id)

    def _after_flush(self) -> None:
        while self._flushed:
            self._after(self._flushed.popitem()[0])

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
            del self._entries[link], self._numbered[entry.number]
            self._timers.remove(entry.number)
            if not entry.registered:
                del self._waiting[entry.number]
                self._unregistered.leave(entry.number)
            link.on_output = None
            self.counters["closed"] += 1
            return
        self._timers.set(entry.number, link.timer())
