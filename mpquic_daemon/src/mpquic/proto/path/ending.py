"""Why an attempt to reach the server, or a connection to it, is over, as far as it matters for trying again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Failure(Enum):
    """Why it is over, as far as it matters for trying again."""

    SILENT = "no answer"
    LOCAL = "local error"
    REFUSED = "refused"
    REPLACED = "replaced"
    IN_USE = "another machine has the identity"
    HANDED_OVER = "an operator has given the identity to another machine"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an attempt or connection."""

    failure: Failure
    reason: str
    retry_after: float | None = None
    unheard: bool = False
    """Whether the server gave up the handshake: it hears this end, and isn't heard well enough."""
