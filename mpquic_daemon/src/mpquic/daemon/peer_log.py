"""What an instance remembers of its peers beyond their connections: since when each is up, silent, down or held.

Pure: `now` is seconds since the boot of the machine (`Period.now`), `wall` seconds of the wall clock. Between two
processes a record has times of the wall clock; within one a step of that clock changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from mpquic.hold import Hold
from mpquic.proto.control.handover import MAX_FORMER, Handover
from mpquic.proto.control.messages import BOOT_ID_SIZE
from mpquic.proto.control.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mpquic.proto.control.messages import Held

Key = tuple[str, str]
"""Identity and tunnel."""
PeerState = Literal["up", "silent", "down", "held", "never"]
LONGEST = 20 * 365 * 86400.0
"""Seconds that a state lasts at most, when a file names a time that can't be."""
LEAVES_WITHIN = 60.0
"""Seconds within which a peer that says that it is held leaves: the hold of one that stays up for longer is dropped."""
MAX_ERROR = 300
"""Characters of a reason that is kept."""
SECOND_MACHINE_SHOWN = 600.0
"""Seconds for which a second machine is shown after it has tried last."""
BootId = Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * BOOT_ID_SIZE}}}$")]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one peer on disk. Times are seconds of the wall clock."""

    identity: Annotated[str, msgspec.Meta(max_length=300)]
    tunnel: Annotated[str, msgspec.Meta(max_length=64)]
    state: Literal["up", "silent", "down"]
    since: float
    heard: float | None = None
    hold: Hold | None = None
    error: Annotated[str, msgspec.Meta(max_length=MAX_ERROR)] | None = None
    boot_id: BootId | None = None
    former: Annotated[tuple[BootId, ...], msgspec.Meta(max_length=MAX_FORMER)] = ()


@dataclass(frozen=True, slots=True)
class SecondMachine:
    """A second machine that was refused since the peer replies. `at` is seconds since the boot."""

    peer: str
    """Its outer address."""
    at: float
    attempts: int


@dataclass(slots=True)
class Peer:
    """One peer. Times are seconds since the boot; `since` may lie before it."""

    since: float
    state: Literal["up", "silent", "down", "never"] = "never"
    heard: float | None = None
    hold: Hold | None = None
    """What it said when it was put out of service; it counts while the peer isn't up."""
    told_at: float = float("-inf")
    """When it said so."""
    error: str | None = None
    """Why it isn't up, or why it was refused last."""
    flaps: int = 0
    """How often it went from up to not-up since the process started."""
    handover: Handover = field(default_factory=Handover)
    """Which machine has the identity, and from which it was taken."""
    second_machine: SecondMachine | None = None

    def shown_state(self, wall: float) -> PeerState:
        """Return its state, `held` in place of those that a hold explains."""
        return "held" if self.hold_in_force(wall) is not None else self.state

    def second_machine_shown(self, now: float) -> SecondMachine | None:
        """Return the second machine that has tried to register of late."""
        second = self.second_machine
        return second if second is not None and now - second.at < SECOND_MACHINE_SHOWN else None

    def hold_in_force(self, wall: float) -> Hold | None:
        """Return the hold that explains why it isn't up, None when there is none or its time is over."""
        if self.state == "up" or self.hold is None or self.hold.is_over(wall):
            return None
        return self.hold


class PeerLog:
    """The peers that the configuration names, and no others: nobody makes it grow."""

    def __init__(self, keys: Iterable[Key], records: Iterable[Record], *, now: float, wall: float) -> None:
        self._peers: dict[Key, Peer] = {}
        self._began = now
        self.keep(keys, now)
        for record in records:
            peer = self._peers.get((record.identity, record.tunnel))
            if peer is not None:
                peer.since = now - _age(record.since, wall)
                peer.heard = now - _age(record.heard, wall) if record.heard is not None else None
                # It was up when the former process ended: this one has not heard from it.
                peer.state = "silent" if record.state == "up" else record.state
                if record.state == "up" and peer.heard is not None:
                    peer.since = peer.heard
                peer.hold, peer.error = record.hold, record.error
                boot_id = bytes.fromhex(record.boot_id) if record.boot_id is not None else None
                peer.handover = Handover(boot_id, tuple(map(bytes.fromhex, record.former)))

    def __getitem__(self, key: Key) -> Peer:
        """Return a peer; KeyError."""
        return self._peers[key]

    @property
    def flaps(self) -> int:
        """The flaps of all peers."""
        return sum(peer.flaps for peer in self._peers.values())

    def keep(self, keys: Iterable[Key], now: float) -> None:
        """Know these peers from now on and no others."""
        self._peers = {key: self._peers.get(key) or Peer(since=now) for key in keys}

    def registered(self, key: Key, now: float) -> bool:
        """It has connected: what it said before is over. Return whether that changes what is shown."""
        peer = self._peers.get(key)
        if peer is None:
            return False
        changed = peer.state != "up" or peer.hold is not None or peer.error is not None
        if peer.state != "up":
            peer.state, peer.since = "up", now
        peer.heard, peer.hold, peer.error = now, None, None
        return changed

    def carries(self, key: Key, now: float) -> bool:
        """It is heard again on the connection that it has; return whether it wasn't."""
        peer = self._peers.get(key)
        if peer is None or peer.state == "up":
            return False
        peer.state, peer.since, peer.heard, peer.error = "up", now, now, None
        return True

    def lost(self, key: Key, now: float, *, heard: float, reason: str | None = None) -> bool:
        """It isn't up any more: silent, or for a reason; return whether that is another state."""
        peer = self._peers.get(key)
        state: Literal["silent", "down"] = "silent" if reason is None else "down"
        if peer is None or peer.state == state or (peer.state == "down" and state == "silent"):
            return False
        if peer.state == "up":
            peer.flaps += 1
            if now - peer.told_at > LEAVES_WITHIN:
                peer.hold = None
        peer.state, peer.since, peer.heard = state, now, heard
        peer.error = printable(reason)[:MAX_ERROR] if reason is not None else None
        return True

    def refused(self, key: Key, reason: str) -> bool:
        """Somebody who has proven to be this peer was refused; return whether the configuration names it."""
        peer = self._peers.get(key)
        if peer is not None and peer.state != "up":
            peer.error = printable(reason)[:MAX_ERROR]
        return peer is not None

    def get(self, key: Key) -> Peer | None:
        """Return a peer, None when the configuration doesn't name it."""
        return self._peers.get(key)

    def second_machine_refused(self, key: Key, address: str, now: float) -> bool:
        """A second machine was refused; return whether none was shown so far."""
        peer = self._peers.get(key)
        if peer is None:
            return False
        before = peer.second_machine_shown(now)
        peer.second_machine = SecondMachine(printable(address), now, 1 if before is None else before.attempts + 1)
        return before is None

    def held(self, key: Key, hold: Hold, now: float) -> bool:
        """It says that it is put out of service; return whether that is another hold."""
        peer = self._peers.get(key)
        if peer is None:
            return False
        changed, peer.hold, peer.told_at = peer.hold != hold, hold, now
        return changed

    def next_end(self, wall: float) -> float | None:
        """Return when the next hold ends by itself, by the wall clock."""
        holds = (peer.hold_in_force(wall) for peer in self._peers.values())
        return min((hold.until for hold in holds if hold is not None and hold.until is not None), default=None)

    def records(self, now: float, wall: float) -> list[Record]:
        """Return what is to be kept of those that ever came."""
        return [
            Record(
                identity=key[0],
                tunnel=key[1],
                state=peer.state,
                since=wall - (now - peer.since),
                heard=wall - (now - peer.heard) if peer.heard is not None else None,
                hold=peer.hold,
                error=peer.error,
                boot_id=peer.handover.boot_id.hex() if peer.handover.boot_id is not None else None,
                former=tuple(each.hex() for each in peer.handover.former),
            )
            for key, peer in self._peers.items()
            if peer.state != "never"
        ]


def told_hold(message: Held, wall: float) -> Hold:
    """Return the hold that a peer tells of, with nothing in it that a terminal could take for a command."""
    return Hold(
        by=printable(message.by)[:64],
        reason=printable(message.reason)[:200],
        since=min(message.since, wall),
        until=message.until,
        origin=message.origin if message.origin in ("mask", "variables") else "operator",  # type: ignore[arg-type]
    )


def _age(moment: float, wall: float) -> float:
    """Seconds since a time of the wall clock; 0 for one in the future, as after a step back."""
    return min(max(0.0, wall - moment), LONGEST)
