"""Whatever the network or the peer sends: every decoder refuses it by its own error, and nothing grows.

Inputs are valid ones, mutated by a seeded generator: bits flipped, octets overwritten, cut off, repeated, two spliced.
MPQUIC_FUZZ_INPUTS says how many each decoder gets; `make fuzz` gives 1.2 million to all of them together.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from mpquic.proto.control import messages as control
from mpquic.proto.control.messages import (
    Bye,
    Challenge,
    ControlDecoder,
    ControlError,
    Held,
    Hello,
    Probe,
    ProbeAck,
    Refuse,
    Register,
    RenewStripe,
    StripeGrant,
    StripeRenewed,
    StripeRequest,
    Wait,
    Welcome,
)
from mpquic.proto.packet import segment, vnet
from mpquic.proto.packet.ack_filter import filter_acks
from mpquic.proto.packet.assembler import FrameAssembler
from mpquic.proto.packet.frame import Frame, FrameError, FrameStreamDecoder, decode_frames
from mpquic.proto.packet.ip import MalformedPacketError
from mpquic.proto.packet.run import FIRST_OCTET, SEGMENT_HEADER
from mpquic.proto.packet.superframe import Packet, SuperframeError, cut, parse_vnet
from mpquic.proto.path import probe as path_probe
from mpquic.proto.path.liveness import Liveness
from mpquic.proto.path.memory import MAX_STORED, STEP
from mpquic.proto.path.pmtu import decode_probe, decode_probe_ack
from mpquic.proto.path.probe import PathProbe
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.fec import GroupDecoder, parity
from mpquic.proto.stripe.keepalive import Keepalive, PipeRtt, decode_keepalive, encode_keepalive
from mpquic.proto.stripe.keys import Sealer, Suite, direction_secret
from mpquic.proto.stripe.reports import Report, ReportError, decode_report, encode_report
from mpquic.proto.stripe.return_path import TOKEN_SIZE
from mpquic.proto.stripe.session import StripeSession
from mpquic.proto.stripe.shard import trim
from mpquic.proto.stripe.wire import PacketType, WireError, decode_header, session_of
from mpquic.proto.tunnel.fragments import Reassembler
from mpquic.proto.tunnel.receiver import TunnelReceiver

from .mutations import INPUTS, inputs, mutate
from .packets import ACK, PSH, ipv4, ipv6, tcp, udp_superframe

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = bytes(range(32))
GROWTH = 4 << 20
"""Bytes that a decoder may keep after any number of inputs: what its bounds allow, and what Python itself keeps."""


SEGMENTS = [tcp(version, 1000, bytes(100), ACK) for version in (4, 6)]
PACKETS = [*SEGMENTS, ipv4(17, bytes(40)), ipv6(17, bytes(40)), ipv4(1, bytes(30))]
SUPERFRAMES = [
    vnet.tcp_superframe_header(4, 52, 500, 20) + tcp(4, 1000, bytes(1800), ACK | PSH),
    vnet.tcp_superframe_header(6, 72, 500, 40) + tcp(6, 1000, bytes(1800), ACK),
    udp_superframe(4, bytes(1800), 500),
    vnet.PLAIN + PACKETS[0],
    vnet.checksum_header(20, 16) + PACKETS[0],
]


def segments(version: int) -> list[bytes]:
    whole = SUPERFRAMES[0 if version == 4 else 1][10:]
    head, payload = whole[: 52 if version == 4 else 72], whole[52 if version == 4 else 72 :]
    return [
        SEGMENT_HEADER.pack(FIRST_OCTET, 1, len(head) + len(payload[at : at + 500]), place, at, 500)
        + head
        + payload[at : at + 500]
        for place, at in enumerate(range(0, len(payload), 500))
    ]


FRAMES = [
    *segments(4),
    *segments(6),
    *(Frame(packet, 1, 7).encode() for packet in PACKETS),
    Frame(PACKETS[0], 0, 8, 4).encode(),
    Frame(PACKETS[0], 2, 9, 6, 48).encode(),
    Frame(PACKETS[0], 1, 10, 1, 0, 1, 3).encode() + Frame(PACKETS[1], 1, 11).encode(),
]
STRIPE = StripeRequest(pipes=4, datagram_size=1452, suites=[1, 2])
GRANT = StripeGrant(session=7, secret=SECRET, port=46005, suite=1)
MESSAGES = [
    control.encode(message, 5)
    for message in (
        Hello(min_version=2, max_version=2, nonce=bytes(32), features=["fragment"]),
        Register(
            tunnel="mpq5",
            path="wan5",
            boot_id=bytes(16),
            epoch=3,
            inner=["10.200.5.1/32"],
            certificates=[bytes(300)],
            algorithm="ed25519",
            signature=bytes(64),
            stripe=STRIPE,
            priority=200,
            release="0.2.0-1a2b3c",
        ),
        Challenge(version=2, nonce=bytes(32), features=["fragment"]),
        Welcome(session=bytes(8), inner=["10.200.5.1/32"]),
        Welcome(session=bytes(8), inner=["10.200.5.1/32"], policy={"x": 1}, stripe=GRANT, release="0.2.0-1a2b3c"),
        RenewStripe(stripe=STRIPE),
        StripeRenewed(stripe=GRANT),
        Held(by="root", reason="works", since=1.0, until=2.0),
        Bye(reason="stopped"),
        Probe(sequence=9),
        ProbeAck(sequence=9),
        Wait(),
        Refuse(code="in_use", reason="another machine", retry_after=4.0, peer="192.0.2.9:1"),
    )
]
PROBE_FIELDS: list[tuple[bool, float, float | None]] = [(False, 0.2, 0.03), (False, 70.0, None), (True, 0.0, None)]
REPORTS = [
    encode_report(Report(1000, 0.004, 900, [(995, 1000), (990, 993), (980, 980)], [(994, 994)])),
    encode_report(Report(70000, 0.0, 70001, [(0, 70000)], [])),
]
BODIES = {
    PacketType.DATA: FRAMES,
    PacketType.PARITY: parity([FRAMES[0], FRAMES[1]], 1),
    PacketType.REPAIR: [bytes((0, 0, 0, 5)) + frame for frame in FRAMES],
    PacketType.REGISTER: [
        encode_keepalive(Keepalive.REQUEST, 0, 0.1),
        encode_keepalive(Keepalive.REQUEST_HEARING, 0, 0.1),
    ],
    PacketType.KEEPALIVE: [
        encode_keepalive(kind, 0, 0.1, rtt) for kind in Keepalive for rtt in (None, PipeRtt(1, 0.03, 0.2))
    ],
    PacketType.REPORT: REPORTS,
    PacketType.PROBE: [bytes((0, 0, 0, 0, 1)) + bytes(1200)],
    PacketType.PROBE_ACK: [bytes((1, 0, 0, 0, 1, 4, 176))],
    PacketType.PATH_CHALLENGE: [bytes(range(TOKEN_SIZE))],
    PacketType.PATH_RESPONSE: [bytes(range(TOKEN_SIZE))],
}
PROBES = [PathProbe(7, is_reply, heard_ago, rtt).encode() for is_reply, heard_ago, rtt in PROBE_FIELDS]


def _restore(data: bytes) -> None:
    segment.restore(data[4:], int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big"))


def _read(data: bytes) -> None:
    packet = parse_vnet(data)
    if packet.gso_size >= 48:
        cut(packet)


DECODERS: dict[str, tuple[Callable[[bytes], object], list[bytes], tuple[type[Exception], ...]]] = {
    "frames": (decode_frames, FRAMES, (FrameError,)),
    "stream": (lambda data: FrameStreamDecoder().feed(data), FRAMES, (FrameError,)),
    "control": (lambda data: ControlDecoder().feed(data), MESSAGES, (ControlError,)),
    "stripe header": (decode_header, [bytes.fromhex("6d7110005ec0de010000000500000019") + bytes(25)], (WireError,)),
    "session": (session_of, [bytes.fromhex("6d7110005ec0de010000000500000019") + bytes(25)], ()),
    "report": (decode_report, REPORTS, (ReportError,)),
    "keepalive": (decode_keepalive, BODIES[PacketType.KEEPALIVE], ()),
    "path probe": (path_probe.decode, PROBES, ()),
    "probe": (decode_probe, BODIES[PacketType.PROBE], ()),
    "probe answer": (decode_probe_ack, BODIES[PacketType.PROBE_ACK], ()),
    "repaired shard": (trim, [frame + bytes(40) for frame in FRAMES], (FrameError,)),
    "segment": (_restore, [frame[8:] for frame in segments(4) + segments(6)], (MalformedPacketError,)),
    "virtio header": (_read, SUPERFRAMES, (SuperframeError,)),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_takes_an_input_or_refuses_it_by_its_own_error(name: str) -> None:
    decode, corpus, refusals = DECODERS[name]
    taken = refused = 0
    for data in inputs(name, corpus):
        try:
            decode(data)
        except refusals:
            refused += 1
        else:
            taken += 1
    assert taken > INPUTS // 100, "the inputs are too wild to test more than the first check"
    assert taken + refused == INPUTS


def test_acknowledgements_are_thinned_whatever_the_packets() -> None:
    rng = random.Random("acks")
    corpus = [tcp(4, 1000, b"", ACK), tcp(6, 1000, b"", ACK, options=b""), *PACKETS]
    for _ in range(INPUTS // 4):
        packets = [Packet(data) for data in (mutate(rng, corpus) for _ in range(4)) if len(data) >= 20]
        kept = filter_acks(packets)
        assert len(kept) <= len(packets)
        assert all(any(one is packet for packet in packets) for one in kept)


def test_the_way_from_datagrams_to_the_device_holds_nothing_back_for_good() -> None:
    refused: list[str] = []
    assembler = FrameAssembler(refused.append)
    receiver = TunnelReceiver(permits=lambda source: source[0] & 1 == 0)
    reassembler = Reassembler()
    tracemalloc.start()
    try:
        for count, data in enumerate(inputs("way", FRAMES)):
            assembler.add(data)
            if count % 8 == 7:
                for write in receiver.receive(assembler.take(), count / 100):
                    assert sum(map(len, write)) <= 10 + 65535
            if count == INPUTS // 4:
                refused.clear()
                before, _ = tracemalloc.get_traced_memory()
            if count % 1000 == 999:
                refused.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH
    assert len(receiver.counters.refused) < 60
    assert reassembler.memory == 0


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
def test_a_peer_with_the_keys_may_seal_anything(client: bool) -> None:
    config = StripeConfig(pipes=2, datagram_size=1452)
    end = StripeSession(config, 7, SECRET, 0.0, client=client, entropy=os.urandom)
    sealer = Sealer(Suite.AES_128_GCM, direction_secret(SECRET, from_client=not client), 7, 0.0)
    receiver = TunnelReceiver(window=1 << 16, memory=end.memory)
    rng = random.Random("peer")
    now = 0.0
    tracemalloc.start()
    try:
        for count in range(INPUTS):
            now += 0.001
            kind = rng.choice(list(BODIES))
            body = mutate(rng, BODIES[kind])[:1400]
            if kind >= PacketType.REGISTER:
                datagrams = [sealer.seal_control(kind, rng.randrange(2), body)]
            else:
                sealer.next_shard += rng.choice((0, 0, 0, 1, 5))
                shards = rng.choice((0, 0, 2, 10, 200))
                index = shards + rng.randrange(3) if kind == PacketType.PARITY else rng.randrange(shards or 1)
                datagrams = sealer.seal_shards(kind, rng.randrange(2), min(index, 250), min(shards, 250), [body])
            data = b"".join(datagrams)
            address = None if client else ("192.0.2.1", 40000 + rng.randrange(3))
            receiver.receive(end.receive([(data, len(data), address)], now), now, end)
            if count % 16 == 0:
                receiver.expire(now)
                end.poll(now)
                end.take_outgoing()
                due = end.next_time(now)
                assert due is None or due >= now
                assert end.rtt is None or 0 < end.rtt < 5000
                assert 0.0 <= end.estimators.loss <= 1.0
            if count == INPUTS // 4:
                before, _ = tracemalloc.get_traced_memory()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What FEC and the reorder buffers may keep by their own bounds is most of it.
    assert end.receiver.decoder.bytes <= 8 << 20
    assert end.memory.stored <= MAX_STORED + STEP
    assert after - before < MAX_STORED + GROWTH
    assert len(end.receiver.refused) < 60
    assert end.receiver.shards > INPUTS // 6


@pytest.mark.parametrize("probes", [False, True])
def test_liveness_is_told_anything_by_the_probes_of_its_peer(*, probes: bool) -> None:
    liveness = Liveness(0.0, probes=probes)
    liveness.on_round_trip(0.0)
    rng = random.Random("liveness")
    now, replies = 0.0, 0
    for data in inputs("liveness", PROBES):
        now += rng.choice((0.001, 0.1, 0.6))
        probe = path_probe.decode(data)
        if probe is not None:
            reply = liveness.on_probe(probe, now)
            assert reply is None or (reply.is_reply and reply.sequence == probe.sequence)
            replies += reply is not None
            assert liveness.silence(now) == 0.0
        for due in liveness.poll(now):
            assert path_probe.decode(due.encode()) is not None
        assert liveness.next_timer(now) >= now
        assert liveness.unproved(now) >= 0.0
        assert liveness.rtt.smoothed is None or 0 <= liveness.rtt.smoothed < 5000
        assert 0.0 <= liveness.loss <= 1.0
        assert len(liveness._outstanding) < 300
    assert replies > INPUTS // 10


def test_groups_take_any_shards_and_stay_within_their_bounds() -> None:
    decoder = GroupDecoder(max_groups=64, max_bytes=1 << 20)
    rng = random.Random("groups")
    for count in range(INPUTS):
        base, index = rng.randrange(200) * 12, rng.randrange(128)
        body = mutate(rng, FRAMES)[:1400] or b"x"
        if rng.random() < 0.4:
            shards = rng.randrange(1, 64)
            decoder.add_parity(base, max(index, shards), shards, body, count / 1000)
        elif rng.random() < 0.5 or not decoder.follow(base, index % 4, 4, body):
            decoder.add_data(base, index, body, count / 1000)
        assert len(decoder) <= 64
        assert decoder.bytes <= (1 << 20) + 1500
