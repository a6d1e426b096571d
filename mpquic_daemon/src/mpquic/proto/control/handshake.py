"""What both ends of a registration share: its states, its outputs and the features that this version has.

Registration is HELLO -> CHALLENGE -> REGISTER -> WELCOME or REFUSE, as two state machines with a deadline. Each takes
messages and time, and returns outputs: messages to send, and once, its result. After the result it is done and ignores
whatever comes. The client's is in `client_registration`, the server's in `server_registration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mpquic.proto.control import messages as control
from mpquic.proto.control.identity import Identity, certificate_sha256
from mpquic.proto.control.messages import Feature, Message, Register, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = frozenset({str(Feature.SUPERFRAME), str(Feature.FRAGMENT)})
"""What this version can do, and always does, so nobody asks yet which of them were agreed."""
HELLO_ID = 1
REGISTER_ID = 2
"""Ids of the two requests; a reply has the id of its request."""


class HandshakeState(Enum):
    """Where a registration stands."""

    START = "start"
    AWAIT_CHALLENGE = "await-challenge"
    AWAIT_REGISTER = "await-register"
    AWAIT_WELCOME = "await-welcome"
    AWAIT_DECISION = "await-decision"
    DONE = "done"
    FAILED = "failed"


class RegistrationEnd:
    """What both ends know of a registration. `entropy(n)` gives n random bytes; `deadline` is when it is given up."""

    def __init__(
        self,
        server_certificate: bytes,
        entropy: Callable[[int], bytes],
        deadline: float,
        release: str,
        features: frozenset[str],
        required: frozenset[str],
    ) -> None:
        self.state = HandshakeState.START
        self.deadline = deadline
        self._server_sha256 = certificate_sha256(server_certificate)
        self._nonce = entropy(control.NONCE_SIZE)
        self._release = release
        self._features = features
        self._required = required
        self._version = 0
        """The version that the server has chosen."""
        self._agreed: tuple[str, ...] = ()
        """The features that both ends have."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message on the control stream."""

    message: Message
    message_id: int

    def encode(self) -> bytes:
        """Return the bytes for the control stream."""
        return control.encode(self.message, self.message_id)


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Result at the client: registered."""

    welcome: Welcome
    version: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """Result at the server: registered; `register` is what the client said, `identity` what it proved."""

    identity: Identity
    register: Register
    version: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Result at either end: it came to nothing; close the connection. `reason` is for the log.

    At the server `identity` is whom the client has proven to be, apart from dates and revocation, and `claims` whom an
    unproven certificate names; `tunnel` is what it has asked for.
    """

    code: str
    reason: str
    retry_after: float | None = None
    identity: str | None = None
    claims: str | None = None
    tunnel: str = ""
    peer: str = ""
    """The outer address of another machine that uses the identity."""


Output = Send | Welcomed | Admitted | Rejected
