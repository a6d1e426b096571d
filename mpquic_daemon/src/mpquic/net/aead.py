"""Which AEADs this machine prefers, found by a trial: a hardened unit can't read /proc/cpuinfo (ProcSubset=pid)."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from mpquic.proto.stripe.keys import Suite

if TYPE_CHECKING:
    from mpquic.proto.stripe.keys import Aead

_ROUNDS, _SEALS = 5, 16
_SIZE = 1400
_CLEAR = 1.5
"""Without instructions for AES, ChaCha20 is faster by far more than this; with them it is slower."""


def _seconds(aead: Aead) -> float:
    """Return the shortest time of some rounds: what disturbs a round makes it longer."""
    best = float("inf")
    data, number = bytes(_SIZE), 0
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_SEALS):
            number += 1
            aead.encrypt(number.to_bytes(12, "big"), data, b"")
        best = min(best, time.perf_counter() - began)
    return best


@cache
def preferred_suites() -> tuple[Suite, ...]:
    """Return the AEADs, the preferred one first: AES-128-GCM, unless this processor computes it without help."""
    aes = _seconds(AESGCM(bytes(16)))
    chacha = _seconds(ChaCha20Poly1305(bytes(32)))
    if aes > _CLEAR * chacha:
        return (Suite.CHACHA20_POLY1305, Suite.AES_128_GCM)
    return (Suite.AES_128_GCM, Suite.CHACHA20_POLY1305)
