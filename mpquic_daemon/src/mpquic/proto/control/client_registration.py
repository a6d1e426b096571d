"""The client's side of a registration: HELLO, then REGISTER with the proof that it holds its certificate's key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpquic.proto.control import messages as control
from mpquic.proto.control.handshake import (
    FEATURES,
    HELLO_ID,
    REGISTER_ID,
    HandshakeState,
    Output,
    RegistrationEnd,
    Rejected,
    Send,
    Welcomed,
)
from mpquic.proto.control.identity import Credentials, Transcript, sign
from mpquic.proto.control.messages import (
    Challenge,
    Hello,
    Message,
    NegotiationError,
    Refuse,
    RefuseCode,
    Register,
    StripeRequest,
    Unknown,
    Wait,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """What a client asks for with one path. See `control.Register` for the fields."""

    tunnel: str
    path: str
    boot_id: bytes
    epoch: int
    inner: tuple[str, ...]
    weight: float = 1.0
    priority: int = 100
    transport_mode: str = "datagram"
    stripe: StripeRequest | None = None


class ClientRegistration(RegistrationEnd):
    """The client's side. `server_certificate` is the DER that TLS has authenticated on this connection."""

    def __init__(
        self,
        request: RegistrationRequest,
        credentials: Credentials,
        server_certificate: bytes,
        entropy: Callable[[int], bytes],
        now: float,
        *,
        timeout: float = CLIENT_TIMEOUT,
        release: str = "",
        features: frozenset[str] = FEATURES,
        required: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(server_certificate, entropy, now + timeout, release, features, required)
        self._request = request
        self._credentials = credentials

    def start(self) -> list[Output]:
        """Return the HELLO."""
        self.state = HandshakeState.AWAIT_CHALLENGE
        hello = Hello(
            min_version=control.MIN_PROTOCOL_VERSION,
            max_version=control.PROTOCOL_VERSION,
            nonce=self._nonce,
            features=sorted(self._features),
            required=sorted(self._required),
        )
        return [Send(hello, HELLO_ID)]

    def poll(self, now: float) -> list[Output]:
        """Give up once the deadline has passed."""
        if now < self.deadline or self.state in (HandshakeState.DONE, HandshakeState.FAILED):
            return []
        return self._fail("timeout", "the server did not answer the registration in time")

    def receive(self, message: Message, now: float) -> list[Output]:
        """Take a message of the server."""
        if self.state in (HandshakeState.DONE, HandshakeState.FAILED) or isinstance(message, Unknown):
            return []
        if now >= self.deadline:
            return self.poll(now)
        if isinstance(message, Refuse):
            return self._fail(message.code, message.reason, message.retry_after, message.peer)
        if isinstance(message, Challenge) and self.state is HandshakeState.AWAIT_CHALLENGE:
            return self._register(message)
        if isinstance(message, Welcome) and self.state is HandshakeState.AWAIT_WELCOME:
            self.state = HandshakeState.DONE
            return [Welcomed(message, self._version, self._agreed)]
        if isinstance(message, Wait) and self.state is HandshakeState.AWAIT_WELCOME:
            return []
        return self._fail(RefuseCode.PROTOCOL, f"unexpected {message.TYPE} in state {self.state.value}")

    def _register(self, challenge: Challenge) -> list[Output]:
        if not control.MIN_PROTOCOL_VERSION <= challenge.version <= control.PROTOCOL_VERSION:
            return self._fail(
                RefuseCode.VERSION, f"the server chose version {challenge.version}, which was not offered"
            )
        try:
            agreed = control.negotiate_features(challenge.features, challenge.required, self._features)
        except NegotiationError as error:
            return [
                Send(Refuse(code=error.code, reason=error.reason), HELLO_ID),
                *self._fail(error.code, error.reason),
            ]
        lacking = sorted(self._required - set(agreed))
        if lacking:
            return self._fail(RefuseCode.FEATURE, f"the server lacks required features: {', '.join(lacking)}")
        self._version, self._agreed = challenge.version, tuple(agreed)
        request = self._request
        transcript = Transcript(
            self._nonce,
            challenge.nonce,
            self._server_sha256,
            self._credentials.leaf_sha256,
            request.tunnel,
            request.path,
            request.boot_id,
            request.epoch,
            request.inner,
        )
        algorithm, signature = sign(self._credentials.key, transcript)
        register = Register(
            tunnel=request.tunnel,
            path=request.path,
            boot_id=request.boot_id,
            epoch=request.epoch,
            inner=list(request.inner),
            certificates=list(self._credentials.chain),
            algorithm=algorithm,
            signature=signature,
            weight=request.weight,
            priority=request.priority,
            transport_mode=request.transport_mode,
            stripe=request.stripe,
            release=self._release,
        )
        self.state = HandshakeState.AWAIT_WELCOME
        return [Send(register, REGISTER_ID)]

    def _fail(self, code: str, reason: str, retry_after: float | None = None, peer: str = "") -> list[Output]:
        self.state = HandshakeState.FAILED
        return [Rejected(str(code), reason, retry_after, peer=peer)]
