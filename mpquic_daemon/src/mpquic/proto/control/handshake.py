"""Registration: HELLO -> CHALLENGE -> REGISTER -> WELCOME or REFUSE, as two state machines with a deadline.

Each takes messages and time, and returns outputs: messages to send, and once, its result. After the result it is done
and ignores whatever comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cryptography import x509

from mpquic.proto.control import messages as control
from mpquic.proto.control.groups import RegistrationRefusedError
from mpquic.proto.control.identity import (
    ChainVerifier,
    Credentials,
    Identity,
    IdentityError,
    Transcript,
    certificate_sha256,
    claimed_uri,
    sign,
    verify_proof,
)
from mpquic.proto.control.messages import (
    Challenge,
    Feature,
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
    import datetime as dt
    from collections.abc import Callable

FEATURES = frozenset({str(Feature.SUPERFRAME), str(Feature.FRAGMENT)})
"""What this version can do, and always does, so nobody asks yet which of them were agreed. REPORT has a message that
nobody sends: it isn't offered."""
CLIENT_TIMEOUT = 10.0
SERVER_TIMEOUT = 5.0
WAIT_INTERVAL = 1.0
"""Seconds between two WAIT, so that a client doesn't give up meanwhile."""

_HELLO_ID = 1
_REGISTER_ID = 2


class HandshakeState(Enum):
    """Where a registration stands."""

    START = "start"
    AWAIT_CHALLENGE = "await-challenge"
    AWAIT_REGISTER = "await-register"
    AWAIT_WELCOME = "await-welcome"
    AWAIT_DECISION = "await-decision"
    DONE = "done"
    FAILED = "failed"


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
    software: str = ""
    """What the server says that it runs."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Result at the server: registered; `register` is what the client said, `identity` what it proved."""

    identity: Identity
    register: Register
    version: int
    features: tuple[str, ...]
    software: str = ""
    """What the client says that it runs."""


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


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """What a client asks for with one path. See `control.Register` for the fields."""

    tunnel: str
    path: str
    boot_id: bytes
    epoch: int
    inner: tuple[str, ...]
    site: str = ""
    wan: str = ""
    traffic_class: int = 0
    weight: float = 1.0
    priority: int = 100
    transport_mode: str = "datagram"
    stripe: StripeRequest | None = None


class ClientRegistration:
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
        software: str = "",
        features: frozenset[str] = FEATURES,
        required: frozenset[str] = frozenset(),
    ) -> None:
        self.state = HandshakeState.START
        self.deadline = now + timeout
        self._request = request
        self._credentials = credentials
        self._server_sha256 = certificate_sha256(server_certificate)
        self._nonce = entropy(control.NONCE_SIZE)
        self._software = software
        self._features = features
        self._required = required
        self._version = 0
        self._agreed: tuple[str, ...] = ()
        self._peer_software = ""

    def start(self) -> list[Output]:
        """Return the HELLO."""
        self.state = HandshakeState.AWAIT_CHALLENGE
        hello = Hello(
            min_version=control.MIN_PROTOCOL_VERSION,
            max_version=control.PROTOCOL_VERSION,
            nonce=self._nonce,
            features=sorted(self._features),
            required=sorted(self._required),
            software=self._software,
        )
        return [Send(hello, _HELLO_ID)]

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
            return [Welcomed(message, self._version, self._agreed, self._peer_software)]
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
                Send(Refuse(code=error.code, reason=error.reason), _HELLO_ID),
                *self._fail(error.code, error.reason),
            ]
        lacking = sorted(self._required - set(agreed))
        if lacking:
            return self._fail(RefuseCode.FEATURE, f"the server lacks required features: {', '.join(lacking)}")
        self._version, self._agreed = challenge.version, tuple(agreed)
        self._peer_software = challenge.software
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
            site=request.site,
            wan=request.wan,
            traffic_class=request.traffic_class,
            weight=request.weight,
            priority=request.priority,
            transport_mode=request.transport_mode,
            stripe=request.stripe,
        )
        self.state = HandshakeState.AWAIT_WELCOME
        return [Send(register, _REGISTER_ID)]

    def _fail(self, code: str, reason: str, retry_after: float | None = None, peer: str = "") -> list[Output]:
        self.state = HandshakeState.FAILED
        return [Rejected(str(code), reason, retry_after, peer=peer)]


class ServerRegistration:
    """The server's side. Nothing that the client says has an effect before its chain and its proof are verified.

    `admit(identity, register)` is called then: it authorises and enters the registration and returns the WELCOME, or
    raises `RegistrationRefusedError`, or returns None where that can't be decided yet: `decide` calls it again.
    `wall_clock()` gives the time for certificates (aware, UTC).
    """

    def __init__(
        self,
        verifier: ChainVerifier,
        server_certificate: bytes,
        admit: Callable[[Identity, Register], Welcome | None],
        wall_clock: Callable[[], dt.datetime],
        entropy: Callable[[int], bytes],
        now: float,
        *,
        timeout: float = SERVER_TIMEOUT,
        software: str = "",
        features: frozenset[str] = FEATURES,
        required: frozenset[str] = frozenset(),
    ) -> None:
        self.state = HandshakeState.START
        self.deadline = now + timeout
        self._verifier = verifier
        self._server_sha256 = certificate_sha256(server_certificate)
        self._admit = admit
        self._wall_clock = wall_clock
        self._nonce = entropy(control.NONCE_SIZE)
        self._client_nonce = b""
        self._candidate: tuple[Identity, Register] | None = None
        """Who has proven to be whom, and waits for the decision."""
        self._wait_at = 0.0
        self._software = software
        self._features = features
        self._required = required
        self._version = 0
        self._agreed: tuple[str, ...] = ()
        self._peer_software = ""

    def poll(self, now: float) -> list[Output]:
        """Give up once the deadline has passed: an unregistered peer holds a connection no longer than that."""
        if self.state in (HandshakeState.DONE, HandshakeState.FAILED):
            return []
        if now >= self.deadline:
            self.state = HandshakeState.FAILED
            return [Rejected("timeout", "the client did not register in time")]
        if self.state is HandshakeState.AWAIT_DECISION and now >= self._wait_at:
            self._wait_at = now + WAIT_INTERVAL
            return [Send(Wait(), _REGISTER_ID)]
        return []

    def decide(self, now: float) -> list[Output]:
        """Ask `admit` again for the registration that waits."""
        if self.state is not HandshakeState.AWAIT_DECISION or self._candidate is None:
            return []
        return self._enter(*self._candidate, now)

    def receive(self, message: Message, now: float) -> list[Output]:
        """Take a message of the client."""
        if self.state in (HandshakeState.DONE, HandshakeState.FAILED) or isinstance(message, Unknown):
            return []
        if now >= self.deadline:
            return self.poll(now)
        if isinstance(message, Hello) and self.state is HandshakeState.START:
            return self._challenge(message)
        if isinstance(message, Register) and self.state is HandshakeState.AWAIT_REGISTER:
            return self._verify(message, now)
        if isinstance(message, Refuse):
            self.state = HandshakeState.FAILED
            return [Rejected(message.code, f"the client refused: {message.reason}")]
        return self._refuse(RefuseCode.PROTOCOL, f"unexpected {message.TYPE} in state {self.state.value}")

    def _challenge(self, hello: Hello) -> list[Output]:
        try:
            self._version = control.negotiate_version(hello)
            agreed = control.negotiate_features(hello.features, hello.required, self._features)
        except NegotiationError as error:
            return self._refuse(error.code, error.reason)
        self._agreed = tuple(agreed)
        self._client_nonce = hello.nonce
        self._peer_software = hello.software
        self.state = HandshakeState.AWAIT_REGISTER
        challenge = Challenge(
            version=self._version,
            nonce=self._nonce,
            features=agreed,
            required=sorted(self._required),
            software=self._software,
        )
        return [Send(challenge, _HELLO_ID)]

    def _verify(self, register: Register, now: float) -> list[Output]:
        transcript = Transcript(
            self._client_nonce,
            self._nonce,
            self._server_sha256,
            certificate_sha256(register.certificates[0]),
            register.tunnel,
            register.path,
            register.boot_id,
            register.epoch,
            tuple(register.inner),
        )
        try:
            identity = self._verifier.verify(register.certificates, self._wall_clock())
            verify_proof(identity.leaf, register.algorithm, register.signature, transcript)
        except IdentityError as error:
            # The peer learns that it failed, not what we checked or whom we know.
            return self._refuse(
                RefuseCode.AUTHENTICATION,
                "client not authenticated",
                str(error),
                identity=self._proven(register, transcript),
                register=register,
            )
        self._wait_at = now + WAIT_INTERVAL
        return self._enter(identity, register, now)

    def _enter(self, identity: Identity, register: Register, now: float) -> list[Output]:
        if now >= self.deadline:
            return self.poll(now)
        try:
            welcome = self._admit(identity, register)
        except RegistrationRefusedError as error:
            log = f"{identity.uri}: {error.reason}"
            return self._refuse(error.code, error.reason, log, identity=identity.uri, register=register, error=error)
        if welcome is None:
            self.state, self._candidate = HandshakeState.AWAIT_DECISION, (identity, register)
            return []
        self.state = HandshakeState.DONE
        admitted = Admitted(identity, register, self._version, self._agreed, self._peer_software)
        return [Send(welcome, _REGISTER_ID), admitted]

    def _proven(self, register: Register, transcript: Transcript) -> str | None:
        """Return whose key has signed, although the certificate doesn't count: it has ended, or is revoked."""
        owner = self._verifier.owner(register.certificates)
        if owner is None:
            return None
        try:
            leaf = x509.load_der_x509_certificate(register.certificates[0])
            verify_proof(leaf, register.algorithm, register.signature, transcript)
        except IdentityError:
            return None
        return owner

    def _refuse(
        self,
        code: RefuseCode,
        reason: str,
        log: str | None = None,
        *,
        identity: str | None = None,
        register: Register | None = None,
        error: RegistrationRefusedError | None = None,
    ) -> list[Output]:
        message_id = _HELLO_ID if self.state is HandshakeState.START else _REGISTER_ID
        self.state = HandshakeState.FAILED
        claims = claimed_uri(register.certificates[0]) if register is not None and identity is None else None
        tunnel = register.tunnel if register is not None else ""
        retry_after, peer = (error.retry_after, error.peer) if error is not None else (None, "")
        rejected = Rejected(str(code), log or reason, retry_after, identity, claims, tunnel, peer)
        refuse = Refuse(code=code, reason=reason[:1024], retry_after=retry_after, peer=peer[:128])
        return [Send(refuse, message_id), rejected]
