"""What each client may have: the server's list of identities, tunnels and inner prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpquic.proto.control.groups import RegistrationRefusedError
from mpquic.proto.control.messages import RefuseCode
from mpquic.proto.control.prefix import Network, parse_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class PeerRule:
    """One tunnel of one client: `allowed` holds the addresses and prefixes that it may use inside."""

    identity: str
    tunnel: str
    allowed: tuple[Network, ...]
    traffic_class: int = 0
    weight: float = 1.0
    priority: int = 100
    dscp: int = 0
    low_latency: bool = False
    max_rate: int | None = None
    """Most that goes to the client, in bit/s."""

    def permits(self, prefix: Network) -> bool:
        """True when `prefix` lies in one of the allowed ones."""
        return any(
            prefix.version == allowed.version and prefix.subnet_of(allowed)  # type: ignore[arg-type]
            for allowed in self.allowed
        )


class PeerTable:
    """Rules by identity and tunnel; built anew when the configuration changes."""

    def __init__(self, rules: Iterable[PeerRule]) -> None:
        self._rules: dict[tuple[str, str], PeerRule] = {}
        for rule in rules:
            if (rule.identity, rule.tunnel) in self._rules:
                raise ValueError(f"identity {rule.identity} has two rules for tunnel {rule.tunnel}")
            self._rules[rule.identity, rule.tunnel] = rule

    def __iter__(self) -> Iterator[PeerRule]:
        """All rules in the order of the configuration."""
        return iter(self._rules.values())

    def get(self, identity: str, tunnel: str) -> PeerRule | None:
        """Return the rule of a tunnel."""
        return self._rules.get((identity, tunnel))

    def authorize(self, identity: str, tunnel: str, inner: Sequence[str]) -> tuple[PeerRule, tuple[Network, ...]]:
        """Return the rule and the claimed prefixes.

        Raises:
            RegistrationRefusedError: the client has no such tunnel, or claims what is not its own.
        """
        rule = self._rules.get((identity, tunnel))
        if rule is None:
            raise RegistrationRefusedError(RefuseCode.AUTHORIZATION, f"{identity} has no tunnel {tunnel} here")
        prefixes: list[Network] = []
        for text in inner:
            try:
                prefix = parse_prefix(text)
            except ValueError:
                raise RegistrationRefusedError(RefuseCode.PROTOCOL, f"{text!r} is no address or prefix") from None
            if not rule.permits(prefix):
                raise RegistrationRefusedError(
                    RefuseCode.AUTHORIZATION, f"{identity} may not use {prefix} in tunnel {tunnel}"
                )
            if prefix not in prefixes:
                prefixes.append(prefix)
        return rule, tuple(prefixes)

    def still_permits(self, identity: str, tunnel: str, prefixes: Iterable[Network]) -> bool:
        """True when a registration made under older rules would be accepted under these."""
        rule = self._rules.get((identity, tunnel))
        return rule is not None and all(rule.permits(prefix) for prefix in prefixes)
