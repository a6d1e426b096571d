"""To whom the work on a datagram is charged that names a connection or a session, which anybody can write into it.

It is its owner's when it comes from an address from which authentic data of the owner has come. What comes from
elsewhere may be the owner, after a NAT has forgotten its binding, or anybody: it is worked on too, but all of it
together has the share of one client, and none of it takes the place of what the owner has sent.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Owner = TypeVar("Owner")

UNREGISTERED = "unregistered"
"""The connections that aren't registered yet: together they have the share of a client."""
UNPROVEN = "unproven"
"""Everything that names a registered client, and comes from an address that isn't known to be its own."""


class Unproven(Generic[Owner]):
    """Key of the queue of what names `owner` and may be anybody's: a flood that names one delays no other's."""

    __slots__ = ("owner",)

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
