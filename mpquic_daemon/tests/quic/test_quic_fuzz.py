"""Whatever the network sends to a QUIC socket, and whatever frames a peer with the keys seals: an end refuses it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from aioquic.tls import Epoch
from mpquic.proto.path.probe import PathProbe
from mpquic.quic.connection_view import LinkState
from proto.mutations import INPUTS, mutate

from .conftest import SERVER_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Pair

    Make = Callable[..., Pair]

FRAMES = [
    bytes.fromhex("310c") + PathProbe(7, heard_ago=0.2, rtt=0.03).encode(),
    bytes.fromhex("314014") + bytes(20),
    bytes.fromhex("30") + bytes(20),
    bytes.fromhex("0a0005") + b"hello",
    bytes.fromhex("0e000005") + b"hello",
    bytes.fromhex("0b4005") + b"hello",
    bytes.fromhex("02050000020001"),
    bytes.fromhex("0341800000020103050102"),
    bytes.fromhex("01000000"),
    bytes.fromhex("040000000000"),
    bytes.fromhex("050000"),
    bytes.fromhex("0600056372797074"),
    bytes.fromhex("10800100001100800100001240801380800100"),
    bytes.fromhex("1405150005164005"),
    bytes.fromhex("180200081122334455667788") + bytes(16),
    bytes.fromhex("1901"),
    bytes.fromhex("1a1122334455667788"),
    bytes.fromhex("1b1122334455667788"),
    bytes.fromhex("1c010002") + b"no",
    bytes.fromhex("1d0002") + b"no",
    bytes.fromhex("1e"),
]
"""Those of RFC 9000 section 19, and DATAGRAM (RFC 9221)."""


def recorded(pair: Pair) -> list[bytes]:
    """Datagrams of both directions, from the first one on."""
    seen: list[bytes] = []
    put = pair._put

    def record(where: str, model: object, datagram: bytes, address: tuple[str, int]) -> None:
        seen.append(datagram)
        put(where, model, datagram, address)  # type: ignore[arg-type]

    pair._put = record  # type: ignore[method-assign]
    assert pair.run(lambda: pair.server.link is not None and pair.link.state is LinkState.ESTABLISHED)
    assert pair.run(lambda: pair.peer.state is LinkState.ESTABLISHED)
    pair.listener.admit(pair.peer, pair.now)
    pair.link.send_datagrams([bytes(900)] * 3)
    pair.peer.send_datagrams([bytes(900)] * 3)
    pair.run(lambda: False, seconds=0.5)
    return seen


def test_datagrams_of_anybody_change_nothing_for_a_connection(make_pair: Make) -> None:
    pair = make_pair(established=False)
    corpus = recorded(pair)
    rng = random.Random("datagrams")
    for count in range(INPUTS):
        datagram = mutate(rng, corpus)
        if datagram in corpus:
            continue
        pair.listener.receive([datagram], ("198.51.100.7", rng.randrange(1, 1 << 16)), pair.now)
        pair.link.receive([datagram], SERVER_ADDRESS, pair.now)
        if count % 50 == 0:
            pair.link.send_datagrams([b"alive"])
            pair.run(lambda: False, seconds=0.2)
    assert pair.link.state is pair.peer.state is LinkState.ESTABLISHED
    before = len(pair.server.datagrams)
    pair.link.send_datagrams([b"still here"])
    assert pair.run(lambda: len(pair.server.datagrams) > before, seconds=1.0)
    assert pair.peer.peer_address == pair.client_address
    assert pair.run(lambda: pair.listener.unregistered == 0, seconds=60.0)


def seal(pair: Pair, payload: bytes, *, from_client: bool) -> None:
    """Have one end receive a packet of these frames, sealed with the keys of the other."""
    connection = (pair.link if from_client else pair.peer)._connection
    number = connection._packet_number
    connection._packet_number += 1
    header = bytes([0x41]) + connection._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
    sealed = connection._cryptos[Epoch.ONE_RTT].encrypt_packet(header, payload, number)
    if from_client:
        pair.listener.receive([sealed], pair.client_address, pair.now)
    else:
        pair.link.receive([sealed], SERVER_ADDRESS, pair.now)


@pytest.mark.parametrize("from_client", [True, False], ids=["to_server", "to_client"])
def test_a_peer_may_seal_any_frames(make_pair: Make, from_client: bool) -> None:
    rng = random.Random("frames")
    pair = make_pair()
    ended = 0
    for _ in range(INPUTS // 20):
        payload = mutate(rng, FRAMES) if rng.random() < 0.5 else b"".join(rng.choices(FRAMES[:7], k=3))
        seal(pair, payload.ljust(4, b"\0")[:1100], from_client=from_client)
        pair.run(lambda: False, seconds=0.005)
        victim = pair.peer if from_client else pair.link
        assert victim.dropped == 0
        if victim.state is not LinkState.ESTABLISHED:
            ended += 1
            pair = make_pair()
    assert ended > INPUTS // 500
