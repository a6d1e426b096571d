"""The server's table of who is connected: (identity, tunnel) -> group -> paths, and inner prefix -> group.

It holds nothing but live registrations: a connection that ends is removed at once, and a group without a member is gone
with its prefixes and its session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from mpquic.proto.control.messages import SESSION_SIZE, RefuseCode
from mpquic.proto.control.prefix import Network, PrefixTable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Handle = TypeVar("Handle", bound="Hashable")

MAX_PATHS_PER_GROUP = 16
REORDERING = 10.0
"""Seconds after a registration in which an older epoch of the same boot is one that the network has overtaken."""


class RegistrationRefusedError(Exception):
    """A registration that is not taken; `code`, `reason`, `retry_after` in seconds and `peer` go into REFUSE."""

    def __init__(self, code: RefuseCode, reason: str, retry_after: float | None = None, peer: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after
        self.peer = peer


@dataclass(frozen=True, slots=True)
class Registration:
    """An authenticated and authorised wish to join."""

    identity: str
    tunnel: str
    path: str
    boot_id: bytes
    epoch: int
    prefixes: tuple[Network, ...]
    traffic_class: int = 0
    weight: float = 1.0
    priority: int = 100


class Member(NamedTuple, Generic[Handle]):
    """One path of a group."""

    registration: Registration
    connection: Handle
    registered_at: float


class Group(Generic[Handle]):
    """The paths of one tunnel of one client. Sequence numbers and windows live as long as `session`."""

    __slots__ = ("boot_id", "identity", "members", "prefixes", "session", "tunnel")

    def __init__(self, identity: str, tunnel: str, session: bytes, boot_id: bytes) -> None:
        self.identity = identity
        self.tunnel = tunnel
        self.session = session
        self.boot_id = boot_id
        self.prefixes: tuple[Network, ...] = ()
        self.members: dict[str, Member[Handle]] = {}

    @property
    def connections(self) -> list[Handle]:
        """Connection handles of all paths."""
        return [member.connection for member in self.members.values()]


class Joined(NamedTuple, Generic[Handle]):
    """Result of a registration: the group, whether its session is new, and the connections to be closed."""

    group: Group[Handle]
    new_session: bool
    replaced: tuple[Handle, ...]


class GroupTable(Generic[Handle]):
    """Registrations by identity, tunnel and path. `entropy(n)` gives n random bytes for session names."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._groups: dict[tuple[str, str], Group[Handle]] = {}
        self._by_connection: dict[Handle, tuple[Group[Handle], str]] = {}
        self._prefixes: PrefixTable[Group[Handle]] = PrefixTable()

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group[Handle]]:
        return iter(list(self._groups.values()))

    @property
    def connection_count(self) -> int:
        """Number of registered connections."""
        return len(self._by_connection)

    def contested(self, registration: Registration, now: float) -> Group[Handle] | None:
        """Return the group whose place a registration can only take once that one's client is gone, None without one.

        That is a client with another boot id, or with this one and an epoch that isn't older: a machine that was set
        back to an earlier state goes on with the boot id that it had, and numbers from there.

        Raises:
            RegistrationRefusedError: it can't be taken in any case. Nothing has changed.
        """
        group = self._groups.get((registration.identity, registration.tunnel))
        for prefix in registration.prefixes:
            for held, owner in self._prefixes.overlapping(prefix):
                if owner is not group:
                    raise RegistrationRefusedError(
                        RefuseCode.CONFLICT, f"{prefix} overlaps {held}, which another tunnel has registered"
                    )
        if group is None or group.boot_id != registration.boot_id:
            return group
        present = group.members.get(registration.path)
        if present is None:
            if len(group.members) >= MAX_PATHS_PER_GROUP:
                raise RegistrationRefusedError(RefuseCode.CONFLICT, f"more than {MAX_PATHS_PER_GROUP} paths")
            return None
        if registration.epoch > present.registration.epoch:
            return None
        if now - present.registered_at < REORDERING:
            raise RegistrationRefusedError(
                RefuseCode.STALE,
                f"epoch {registration.epoch} of path {registration.path} is not newer than "
                f"{present.registration.epoch}",
            )
        return group

    def register(
        self, registration: Registration, connection: Handle, now: float, *, takeover: bool = False
    ) -> Joined[Handle]:
        """Enter a connection.

        In the same boot a path is replaced by a newer epoch of itself, and another path joins. Where the place is
        `contested`, `takeover` replaces all that is there, with a new session. Boot ids have no order, since a site
        without a clock could not keep one; that the registration is fresh was shown by signing our nonce.

        Raises:
            RegistrationRefusedError: the place is contested and this is no takeover, a prefix belongs to another group,
                the group is full, or this connection has registered before. Nothing has changed then.
        """
        if connection in self._by_connection:
            raise RegistrationRefusedError(RefuseCode.PROTOCOL, "this connection is registered already")
        key = (registration.identity, registration.tunnel)
        contested = self.contested(registration, now)
        group = self._groups.get(key)
        replaced: list[Handle] = []
        if contested is not None:
            if not takeover:
                raise RegistrationRefusedError(RefuseCode.IN_USE, "another client has this identity and tunnel")
            replaced.extend(self._dissolve(contested))
            group = None
        elif group is not None and registration.path in group.members:
            present = group.members[registration.path]
            replaced.append(present.connection)
            del self._by_connection[present.connection]
        new_session = group is None
        if group is None:
            session = self._entropy(SESSION_SIZE)
            group = Group(registration.identity, registration.tunnel, session, registration.boot_id)
            self._groups[key] = group
        self._set_prefixes(group, registration.prefixes)
        group.members[registration.path] = Member(registration, connection, now)
        self._by_connection[connection] = (group, registration.path)
        return Joined(group, new_session, tuple(replaced))

    def remove(self, connection: Handle) -> Group[Handle] | None:
        """Forget a connection; return the group that it left, None when it had none. Check `members` for emptiness."""
        entry = self._by_connection.pop(connection, None)
        if entry is None:
            return None
        group, path = entry
        del group.members[path]
        if not group.members:
            self._dissolve(group)
        return group

    def group_of(self, connection: Handle) -> Group[Handle] | None:
        """Return the group that a connection belongs to."""
        entry = self._by_connection.get(connection)
        return entry[0] if entry is not None else None

    def get(self, identity: str, tunnel: str) -> Group[Handle] | None:
        """Return a group by name."""
        return self._groups.get((identity, tunnel))

    def owner_of(self, address: bytes) -> Group[Handle] | None:
        """Return the group to which an inner address (4 or 16 bytes) belongs, for routing and for source checks."""
        return self._prefixes.lookup(address)

    def revoke(self, is_revoked: Callable[[Registration], bool]) -> list[Handle]:
        """Remove every connection whose registration is revoked, and return their handles (close them)."""
        handles = [
            member.connection
            for group in self._groups.values()
            for member in group.members.values()
            if is_revoked(member.registration)
        ]
        for handle in handles:
            self.remove(handle)
        return handles

    def _set_prefixes(self, group: Group[Handle], prefixes: tuple[Network, ...]) -> None:
        for prefix in group.prefixes:
            self._prefixes.remove(prefix)
        for prefix in prefixes:
            self._prefixes.insert(prefix, group)
        group.prefixes = prefixes

    def _dissolve(self, group: Group[Handle]) -> list[Handle]:
        handles = group.connections
        for handle in handles:
            self._by_connection.pop(handle, None)
        group.members.clear()
        self._set_prefixes(group, ())
        self._groups.pop((group.identity, group.tunnel), None)
        return handles
