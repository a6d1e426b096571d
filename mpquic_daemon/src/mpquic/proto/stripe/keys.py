"""Traffic keys of a stripe session: derivation, nonces, rekeying.

Both ends derive everything from one secret that the server hands out over the control connection: a secret for each
direction, from it the key and IV, and the secret of the next epoch (the ratchet of RFC 9001 section 6.1, HKDF of
RFC 5869 with the labels of RFC 8446 section 7.1). A secret is dropped once that is derived: nothing refers to it any
more, and its memory is freed. Python has no way to overwrite it before.

A packet's nonce is the IV XOR its packet number (RFC 8446 section 5.3), with the number space above the number. Numbers
go on through epochs and no number is ever sealed twice: what is sent again is a new packet, so nonces cannot repeat.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import repeat
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mpquic.proto.stripe.wire import (
    EPOCH_SHIFT,
    EPOCHS,
    MAGIC,
    QUICK_HEADER,
    TAG_SIZE,
    VERSION,
    pack_header,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET_SIZE = 32
REKEY_INTERVAL = 120.0
"""Seconds after which a sender moves to the next epoch."""
REKEY_PACKETS = 1 << 26
"""Packets after which it does so earlier."""
PACKET_LIMIT = 1 << 28
"""Packets of one epoch after which nothing more is sealed: the peer never confirmed the epoch."""
OLD_KEY_LIFETIME = 10.0
"""Seconds for which a receiver still opens packets of the previous epoch."""
CONTROL_SPACE = 1 << 64
"""Set in the nonce for the number space of the control types."""


class Suite(IntEnum):
    """AEAD of a session, chosen by the server: AES where both CPUs have instructions for it."""

    AES_128_GCM = 1
    CHACHA20_POLY1305 = 2


Aead = AESGCM | ChaCha20Poly1305


class KeyLimitError(Exception):
    """An epoch is used up. The session needs a new secret from the control connection."""


def expand_label(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1 with the prefix `mpquic ` and no context."""
    name = b"mpquic " + label.encode()
    info = length.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)


def direction_secret(secret: bytes, *, from_client: bool) -> bytes:
    """Return the secret of epoch 0 of one direction.

    Raises:
        ValueError: the secret is not 32 bytes.
    """
    if len(secret) != SECRET_SIZE:
        raise ValueError(f"a session secret has {SECRET_SIZE} bytes")
    return expand_label(secret, "stripe client" if from_client else "stripe server", SECRET_SIZE)


class EpochKey:
    """Key and IV of one epoch of one direction."""

    __slots__ = ("_next_secret", "_suite", "aead", "epoch", "iv")

    def __init__(self, suite: Suite, secret: bytes, epoch: int = 0) -> None:
        self._suite = suite
        # The secret of this epoch isn't kept: from it the key of what was recorded could be found again.
        self._next_secret = expand_label(secret, "next", SECRET_SIZE)
        self.epoch = epoch
        self.aead: Aead = (
            AESGCM(expand_label(secret, "key", 16))
            if suite is Suite.AES_128_GCM
            else ChaCha20Poly1305(expand_label(secret, "key", 32))
        )
        self.iv = int.from_bytes(expand_label(secret, "iv", 12), "big")

    def next(self) -> EpochKey:
        """Return the key of the following epoch."""
        return EpochKey(self._suite, self._next_secret, self.epoch + 1)


class Sealer:
    """Numbers and seals the packets of one direction.

    The epoch moves on by itself, by time and by volume, once the peer has opened a packet of the one in use: a
    receiver can follow one step, not two (RFC 9001 section 6.1).
    """

    def __init__(self, suite: Suite, secret: bytes, session: int, now: float) -> None:
        self._session = session
        self._key = EpochKey(suite, secret)
        self._epoch_started = now
        self._epoch_packets = 0
        self._confirmed = False
        self.next_shard = 0
        self.next_control = 0

    @property
    def epoch(self) -> int:
        """Number of the epoch in use, from 0."""
        return self._key.epoch

    def confirm(self, epoch_low8: int) -> None:
        """The peer has opened a packet of this epoch (low 8 bits)."""
        if epoch_low8 == self._key.epoch & 0xFF:
            self._confirmed = True

    def rekey_if_due(self, now: float) -> bool:
        """Move to the next epoch when it is time and the peer can follow."""
        due = now - self._epoch_started >= REKEY_INTERVAL or self._epoch_packets >= REKEY_PACKETS
        if not due or not self._confirmed:
            return False
        self._key = self._key.next()
        self._epoch_started = now
        self._epoch_packets = 0
        self._confirmed = False
        return True

    def seal_shards(self, kind: int, pipe: int, index: int, data_shards: int, bodies: Sequence[bytes]) -> list[bytes]:
        """Seal shards with consecutive numbers and indices; with `data_shards` 0 all have index 0.

        Raises:
            KeyLimitError: the epoch is used up.
        """
        count = len(bodies)
        self._spend(count)
        number = self.next_shard
        self.next_shard = number + count
        key = self._key
        encrypt, iv, pack = key.aead.encrypt, key.iv, QUICK_HEADER.pack
        first = VERSION << 4 | pipe
        second = (key.epoch % EPOCHS) << EPOCH_SHIFT | kind
        common = MAGIC << 48 | first << 40 | second << 32 | self._session
        place = index << 24 | data_shards << 16 | TAG_SIZE
        places = range(place, place + (count << 24), 1 << 24) if data_shards else repeat(place, count)
        numbers = range(number, number + count)
        headers = [
            pack(common, number & 0xFFFFFFFF, place + len(body))
            for number, place, body in zip(numbers, places, bodies, strict=True)
        ]
        return [
            header + encrypt((iv ^ number).to_bytes(12, "big"), body, header)
            for header, number, body in zip(headers, numbers, bodies, strict=True)
        ]

    def seal_control(self, kind: int, pipe: int, body: bytes) -> bytes:
        """Seal one packet of a control type.

        Raises:
            KeyLimitError: the epoch is used up.
        """
        self._spend(1)
        number = self.next_control
        self.next_control = number + 1
        key = self._key
        second = (key.epoch % EPOCHS) << EPOCH_SHIFT | kind
        header = pack_header(
            MAGIC, VERSION << 4 | pipe, second, self._session, number & 0xFFFFFFFF, 0, 0, len(body) + TAG_SIZE
        )
        return header + key.aead.encrypt((key.iv ^ (CONTROL_SPACE | number)).to_bytes(12, "big"), body, header)

    def _spend(self, count: int) -> None:
        if self._epoch_packets + count > PACKET_LIMIT:
            raise KeyLimitError("the epoch is used up and the peer has confirmed none of it")
        self._epoch_packets += count


class Opener:
    """Opens the packets of one direction; follows the sender's epochs."""

    def __init__(self, suite: Suite, secret: bytes) -> None:
        self._current = EpochKey(suite, secret)
        self._previous: EpochKey | None = None
        self._previous_until = 0.0
        # Made ahead: that a packet names the next epoch costs nothing that an attacker could make us repeat.
        self._next = self._current.next()

    @property
    def epoch(self) -> int:
        """The newest epoch of which a packet has been opened."""
        return self._current.epoch

    @property
    def current(self) -> EpochKey:
        """Key of the newest epoch of which a packet has been opened."""
        return self._current

    def key_for(self, epoch_bits: int, now: float) -> EpochKey | None:
        """Return the key that a packet with these epoch bits may be sealed with, None when it is gone or unknown."""
        current = self._current
        if current.epoch % EPOCHS == epoch_bits:
            return current
        if self._next.epoch % EPOCHS == epoch_bits:
            return self._next
        previous = self._previous
        if previous is not None and previous.epoch % EPOCHS == epoch_bits:
            if now < self._previous_until:
                return previous
            self._previous = None
        return None

    def expire(self, now: float) -> None:
        """Drop the key of the previous epoch when its time is over."""
        if self._previous is not None and now >= self._previous_until:
            self._previous = None

    def opened(self, key: EpochKey, now: float) -> EpochKey:
        """A packet was opened with `key`: move on when it is the next one. Returns the current key."""
        if key is self._next:
            self._previous, self._previous_until = self._current, now + OLD_KEY_LIFETIME
            self._current, self._next = key, key.next()
        return self._current
