"""The server's side of a registration: it challenges, verifies certificate and proof, and admits or refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from cryptography import x509

from mpquic.proto.control import messages as control
from mpquic.proto.control.groups import RegistrationRefusedError
from mpquic.proto.control.handshake import (
    FEATURES,
    HELLO_ID,
    REGISTER_ID,
    Admitted,
    HandshakeState,
    Output,
    RegistrationEnd,
    Rejected,
    Send,
)
from mpquic.proto.control.identity import (
    ChainVerifier,
    Identity,
    IdentityError,
    Transcript,
    certificate_sha256,
    claimed_uri,
    verify_proof,
)
from mpquic.proto.control.messages import (
    Challenge,
    Hello,
    Message,
    NegotiationError,
    Refuse,
    RefuseCode,
    Register,
    Unknown,
    Wait,
    Welcome,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

SERVER_TIMEOUT = 5.0
WAIT_INTERVAL = 1.0
"""Seconds between two WAIT, so that a client doesn't give up meanwhile."""


class ServerRegistration(RegistrationEnd):
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
        release: str = "",
        features: frozenset[str] = FEATURES,
        required: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(server_certificate, entropy, now + timeout, release, features, required)
        self._verifier = verifier
        self._admit = admit
        self._wall_clock = wall_clock
        self._client_nonce = b""
        self._candidate: tuple[Identity, Register] | None = None
        """Who has proven to be whom, and waits for the decision."""
        self._wait_at = 0.0

    def poll(self, now: float) -> list[Output]:
        """Give up once the deadline has passed: an unregistered peer holds a connection no longer than that."""
        if self.state in (HandshakeState.DONE, HandshakeState.FAILED):
            return []
        if now >= self.deadline:
            self.state = HandshakeState.FAILED
            return [Rejected("timeout", "the client did not register in time")]
        if self.state is HandshakeState.AWAIT_DECISION and now >= self._wait_at:
            self._wait_at = now + WAIT_INTERVAL
            return [Send(Wait(), REGISTER_ID)]
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
        self.state = HandshakeState.AWAIT_REGISTER
        challenge = Challenge(
            version=self._version,
            nonce=self._nonce,
            features=agreed,
            required=sorted(self._required),
        )
        return [Send(challenge, HELLO_ID)]

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
        admitted = Admitted(identity, register, self._version, self._agreed)
        return [Send(msgspec.structs.replace(welcome, release=self._release), REGISTER_ID), admitted]

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
        message_id = HELLO_ID if self.state is HandshakeState.START else REGISTER_ID
        self.state = HandshakeState.FAILED
        claims = claimed_uri(register.certificates[0]) if register is not None and identity is None else None
        tunnel = register.tunnel if register is not None else ""
        retry_after, peer = (error.retry_after, error.peer) if error is not None else (None, "")
        rejected = Rejected(str(code), log or reason, retry_after, identity, claims, tunnel, peer)
        refuse = Refuse(code=code, reason=reason[:1024], retry_after=retry_after, peer=peer[:128])
        return [Send(refuse, message_id), rejected]
