"""Whom a server lets in: the peers of its configuration, the CA, and the certificates that are revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon import credentials
from mpquic.proto.control.groups import Registration, RegistrationRefusedError
from mpquic.proto.control.messages import RefuseCode
from mpquic.proto.control.peers import PeerRule, PeerTable
from mpquic.proto.control.prefix import parse_prefix

if TYPE_CHECKING:
    import datetime as dt

    from mpquic.config import ServerConfig
    from mpquic.daemon.credentials import Dates
    from mpquic.proto.control.identity import ChainVerifier, Identity
    from mpquic.proto.control.messages import Register

TRANSPORT_MODES = ("datagram", "reliable")


class Authorization:
    """What `config` and the files that it names say. Raises CredentialsError."""

    def __init__(self, config: ServerConfig) -> None:
        self._identity = credentials.load_server(config.tls)
        self._peers = _peer_table(config)

    @property
    def dates(self) -> Dates:
        """The dates of the server's certificate and of its CA."""
        return self._identity.dates

    @property
    def verifier(self) -> ChainVerifier:
        """What checks the certificates of clients."""
        return self._identity.verifier

    def authorize(self, identity: Identity, register: Register) -> tuple[PeerRule, Registration]:
        """Return the rule for a client whose identity is proven, and what it may register; RegistrationRefusedError."""
        if self.verifier.is_revoked(identity.serials):  # since it has begun to wait
            raise RegistrationRefusedError(RefuseCode.AUTHENTICATION, "client not authenticated")
        if register.transport_mode not in TRANSPORT_MODES:
            raise RegistrationRefusedError(RefuseCode.FEATURE, f"no transport mode {register.transport_mode} here")
        rule, prefixes = self._peers.authorize(identity.uri, register.tunnel, register.inner)
        return rule, Registration(
            identity=identity.uri,
            tunnel=register.tunnel,
            path=register.path,
            boot_id=register.boot_id,
            epoch=register.epoch,
            prefixes=prefixes,
            traffic_class=rule.traffic_class,
            weight=rule.weight,
            priority=register.priority,
        )

    def permits(self, registration: Registration) -> bool:
        """Whether the configuration still allows what was registered."""
        return self._peers.still_permits(registration.identity, registration.tunnel, registration.prefixes)

    def objection(self, identity: Identity, today: dt.datetime) -> str | None:
        """Return why a certificate that was accepted is accepted no longer, None if it is."""
        if self.verifier.is_revoked(identity.serials):
            return "certificate revoked"
        return "certificate expired" if identity.not_after <= today else None


def _peer_table(config: ServerConfig) -> PeerTable:
    return PeerTable(
        PeerRule(
            identity=peer.identity,
            tunnel=peer.tunnel,
            allowed=tuple(parse_prefix(prefix) for prefix in peer.allowed),
            traffic_class=peer.traffic_class,
            weight=float(peer.weight),
            priority=peer.priority,
            dscp=peer.dscp,
            low_latency=peer.low_latency,
            max_rate=peer.max_rate,
        )
        for peer in config.peers
    )
