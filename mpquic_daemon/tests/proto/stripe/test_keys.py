from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.stripe import keys
from mpquic.proto.stripe.keys import EpochKey, KeyLimitError, Opener, Sealer, Suite, direction_secret
from mpquic.proto.stripe.wire import decode_header

SECRET = bytes(range(32))
UP = direction_secret(SECRET, from_client=True)


def opened(opener: Opener, packet: bytes, number: int, now: float) -> bytes | None:
    key = opener.key_for(decode_header(packet).epoch, now)
    return None if key is None else unsealed(opener, key, packet, number, now)


def unsealed(opener: Opener, key: EpochKey, packet: bytes, number: int, now: float) -> bytes | None:
    try:
        body = key.aead.decrypt((key.iv ^ number).to_bytes(12, "big"), packet[16:], packet[:16])
    except InvalidTag:
        return None
    opener.opened(key, now)
    return body


def force_rekey(sealer: Sealer, now: float) -> None:
    sealer.confirm(sealer.epoch)
    assert sealer.rekey_if_due(now)


@pytest.mark.parametrize("suite", list(Suite))
def test_what_is_sealed_opens_at_the_other_end_only(suite: Suite) -> None:
    sealer, opener = Sealer(suite, UP, 1, 0.0), Opener(suite, UP)
    [packet] = sealer.seal_shards(0, 0, 0, 0, [b"frame"])
    control = sealer.seal_control(9, 0, b"alive")
    assert opened(opener, packet, 0, 0.0) == b"frame"
    assert opened(opener, packet, 1, 0.0) is None
    assert opened(opener, control, 0, 0.0) is None
    assert opened(opener, control, keys.CONTROL_SPACE, 0.0) == b"alive"
    mirror = Opener(suite, direction_secret(SECRET, from_client=False))
    assert opened(mirror, packet, 0, 0.0) is None


@given(st.integers(0, 16 + 5 + 16 - 1), st.integers(1, 255))
def test_no_octet_can_be_changed(place: int, flip: int) -> None:
    sealer, opener = Sealer(Suite.AES_128_GCM, UP, 1, 0.0), Opener(Suite.AES_128_GCM, UP)
    [packet] = sealer.seal_shards(0, 0, 0, 0, [b"frame"])
    forged = bytearray(packet)
    forged[place] ^= flip
    key = opener.key_for(0, 0.0)
    assert key is not None
    assert unsealed(opener, key, bytes(forged), 0, 0.0) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["shards", "control", "rekey"]), st.integers(1, 40)), max_size=30))
def test_no_nonce_is_used_twice(steps: list[tuple[str, int]]) -> None:
    used: set[tuple[int, bytes]] = set()

    class Recorder:
        def __init__(self, secret_iv: int) -> None:
            self.key = secret_iv

        def encrypt(self, nonce: bytes, body: bytes, _header: bytes) -> bytes:
            assert (self.key, nonce) not in used
            used.add((self.key, nonce))
            return body + bytes(16)

    sealer = Sealer(Suite.AES_128_GCM, UP, 1, 0.0)
    now, count = 0.0, 0

    def record() -> None:
        sealer._key.aead = Recorder(sealer._key.iv)  # type: ignore[assignment]

    record()
    for step, size in steps:
        if step == "shards":
            sealer.seal_shards(0, 0, 0, size, [b"x"] * size)
            count += size
        elif step == "control":
            for _ in range(size):
                sealer.seal_control(9, 0, b"x")
            count += size
        else:
            now += 200.0
            sealer.confirm(sealer.epoch)
            if sealer.rekey_if_due(now):
                record()
    assert len(used) == count


def test_keys_follow_the_sender_and_the_old_one_goes_after_ten_seconds() -> None:
    sealer, opener = Sealer(Suite.AES_128_GCM, UP, 1, 0.0), Opener(Suite.AES_128_GCM, UP)
    old = sealer.seal_shards(0, 0, 0, 0, [b"a", b"b", b"c"])
    assert opened(opener, old[0], 0, 0.0) == b"a"
    force_rekey(sealer, 121.0)
    [new] = sealer.seal_shards(0, 0, 0, 0, [b"d"])
    assert opener.epoch == 0
    assert opened(opener, new, 3, 121.0) == b"d"
    assert opener.epoch == 1
    assert opened(opener, old[1], 1, 130.9) == b"b"
    assert opened(opener, old[2], 2, 131.1) is None
    assert opened(opener, new, 3, 131.1) == b"d"


def test_a_forged_packet_of_the_next_epoch_moves_nothing() -> None:
    opener = Opener(Suite.AES_128_GCM, UP)
    key = opener.key_for(1, 0.0)
    assert key is not None
    assert unsealed(opener, key, bytes(46), 5, 0.0) is None
    assert opener.epoch == 0
    assert opener.key_for(2, 0.0) is None
    assert opener.key_for(7, 0.0) is None


def test_rekeying_waits_until_the_peer_has_confirmed_the_epoch() -> None:
    sealer = Sealer(Suite.AES_128_GCM, UP, 1, 0.0)
    sealer.seal_shards(0, 0, 0, 0, [b"a"])
    assert not sealer.rekey_if_due(1000.0)
    sealer.confirm(0)
    assert not sealer.rekey_if_due(119.9)
    assert sealer.rekey_if_due(120.0)
    sealer.confirm(0)
    assert not sealer.rekey_if_due(1000.0)
    sealer.confirm(1)
    assert sealer.rekey_if_due(1000.0)


def test_volume_rekeys_and_an_unconfirmed_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REKEY_PACKETS", 10)
    monkeypatch.setattr(keys, "PACKET_LIMIT", 20)
    sealer = Sealer(Suite.AES_128_GCM, UP, 1, 0.0)
    sealer.seal_shards(0, 0, 0, 0, [b"a"] * 10)
    sealer.confirm(0)
    assert sealer.rekey_if_due(1.0)
    sealer.seal_shards(0, 0, 0, 0, [b"a"] * 20)
    with pytest.raises(KeyLimitError):
        sealer.seal_control(9, 0, b"x")
    with pytest.raises(KeyLimitError):
        sealer.seal_shards(0, 0, 0, 0, [b"x"])
    assert sealer.next_shard == 30


def test_limits_hold_the_promise() -> None:
    assert keys.REKEY_INTERVAL == 120.0
    assert keys.REKEY_PACKETS * 4 <= keys.PACKET_LIMIT <= 1 << 28
    assert keys.OLD_KEY_LIFETIME == 10.0


def test_each_epoch_and_direction_has_its_own_key() -> None:
    chain = [EpochKey(Suite.CHACHA20_POLY1305, UP)]
    for _ in range(5):
        chain.append(chain[-1].next())
    down = EpochKey(Suite.CHACHA20_POLY1305, direction_secret(SECRET, from_client=False))
    assert len({key.iv for key in [*chain, down]}) == 7
    assert [key.epoch for key in chain] == list(range(6))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        direction_secret(b"short", from_client=True)
