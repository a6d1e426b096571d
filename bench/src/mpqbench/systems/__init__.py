"""The systems under test, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqbench.systems.aioquic_stock import AioquicStock
from mpqbench.systems.fastd import Fastd
from mpqbench.systems.mpquic import Quic, Stripe
from mpqbench.systems.openvpn import OpenVpn
from mpqbench.systems.tinc import Tinc
from mpqbench.systems.veth import Veth
from mpqbench.systems.wireguard import WireGuardGo

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqbench.systems.base import System

SYSTEMS: dict[str, Callable[[], System]] = {
    "veth": Veth,
    "openvpn": OpenVpn,
    "wireguard-go-deb12": lambda: WireGuardGo("wireguard-go-deb12", "bookworm"),
    "wireguard-go-deb13": lambda: WireGuardGo("wireguard-go-deb13", "trixie"),
    "fastd": Fastd,
    "tinc": Tinc,
    "aioquic-stock": AioquicStock,
    "quic-datagram": lambda: Quic("datagram"),
    "quic-reliable": lambda: Quic("reliable"),
    "stripe": lambda: Stripe(),
    "stripe-fec-off": lambda: Stripe("off"),
    "stripe-fec-always": lambda: Stripe("always"),
}
