"""An identity that an operator hands over to another machine on purpose.

Pure: times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_FORMER = 8
"""Boot ids of former machines that are remembered for each client."""


class Claim(Enum):
    """What a handover says of a registration."""

    NOTHING = "nothing"
    TAKES_OVER = "takes over"
    """It is the machine that the identity is handed over to."""
    FORMER = "former"
    """It is the machine that the identity was taken from."""


@dataclass(slots=True)
class Handover:
    """What is kept of one client, that is of one identity and tunnel."""

    boot_id: bytes | None = None
    """The boot id that was registered last."""
    former: tuple[bytes, ...] = ()
    """Boot ids that are refused, since the identity was taken from them."""
    until: float | None = None
    """Until when the next registration with another boot id takes over."""

    def is_open(self, now: float) -> bool:
        """Whether a machine may take over now."""
        return self.until is not None and now < self.until

    def judge(self, boot_id: bytes, now: float) -> Claim:
        """Return what a registration is to be taken for; it changes nothing."""
        if self.is_open(now) and boot_id != self.boot_id:
            return Claim.TAKES_OVER
        return Claim.FORMER if boot_id in self.former else Claim.NOTHING

    def open(self, until: float) -> None:
        """Let the next registration with another boot id take over, until then."""
        self.until = until

    def registered(self, boot_id: bytes, *, takes_over: bool) -> bool:
        """A registration was admitted; return whether that changes what is kept."""
        before = self.boot_id, self.former
        if takes_over:
            self.until = None
            former = [each for each in self.former if each != boot_id]
            if self.boot_id is not None:
                former.append(self.boot_id)
            self.former = tuple(former[-MAX_FORMER:])
        self.boot_id = boot_id
        return (self.boot_id, self.former) != before
