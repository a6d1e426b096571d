"""docs/stripe.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mpquic.proto.path import pmtu
from mpquic.proto.stripe import adaptive, keys, pipe, pipes, replay, reports, wire
from mpquic.proto.stripe.config import MIN_DATAGRAM, StripeConfig
from mpquic.proto.stripe.fec import parity
from mpquic.proto.stripe.keys import EpochKey, Opener, Sealer, Suite, direction_secret, expand_label
from mpquic.proto.stripe.reports import Report, decode_report, encode_report
from mpquic.proto.stripe.wire import PacketType, decode_header

DOCUMENT = (Path(__file__).parents[4] / "docs" / "stripe.md").read_text()
SECRET = bytes(range(32))
SESSION = 0x5EC0DE01

KEYS = re.findall(r"^\| (\w+) (client|server) \| `(\w+)` \| `(\w+)` \| `(\w+)` \| `(\w+)` \|$", DOCUMENT, re.MULTILINE)
PACKETS = re.findall(
    r"^\| (\w+) \| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| `(\w+)` \| `(\w+)` \|$", DOCUMENT, re.MULTILINE
)
REPORTS = re.findall(r"^\| `(\{.+\})` \| `(\w+)` \|$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("suite", "sender", "secret", "key", "iv", "following"), KEYS)
def test_keys_are_derived_as_written(suite: str, sender: str, secret: str, key: str, iv: str, following: str) -> None:
    derived = direction_secret(SECRET, from_client=sender == "client")
    assert derived.hex() == secret
    assert expand_label(derived, "key", len(key) // 2).hex() == key
    assert expand_label(derived, "iv", 12).hex() == iv
    epoch = EpochKey(Suite[suite], derived)
    assert epoch.iv == int(iv, 16)
    assert epoch.next().iv == EpochKey(Suite[suite], bytes.fromhex(following)).iv


@pytest.mark.parametrize(
    ("kind", "suite", "number", "pipe", "epoch", "index", "data_shards", "body", "datagram"), PACKETS
)
def test_packets_are_sealed_and_opened_as_written(
    kind: str, suite: str, number: str, pipe: str, epoch: str, index: str, data_shards: str, body: str, datagram: str
) -> None:
    secret = direction_secret(SECRET, from_client=True)
    sealer, opener = Sealer(Suite[suite], secret, SESSION, 0.0), Opener(Suite[suite], secret)
    now = 0.0
    for step in range(int(epoch)):
        sealer.confirm(step)
        now += keys.REKEY_INTERVAL
        assert sealer.rekey_if_due(now)
    sealer.next_shard = sealer.next_control = int(number)
    packet, plain = bytes.fromhex(datagram), bytes.fromhex(body)
    if PacketType[kind] in wire.CONTROL_TYPES:
        sealed = sealer.seal_control(PacketType[kind], int(pipe), plain)
        as_number = keys.CONTROL_SPACE | int(number)
    else:
        [sealed] = sealer.seal_shards(PacketType[kind], int(pipe), int(index), int(data_shards), [plain])
        as_number = int(number)
    assert sealed == packet
    header = decode_header(packet)
    assert (header.kind, header.session, header.pipe) == (PacketType[kind], SESSION, int(pipe))
    assert (header.index, header.data_shards, header.epoch) == (int(index), int(data_shards), int(epoch))
    key = opener.key_for(header.epoch, 0.0)
    assert key is not None
    assert key.aead.decrypt((key.iv ^ as_number).to_bytes(12, "big"), packet[16:], packet[:16]) == plain


@pytest.mark.parametrize(("fields", "encoded"), REPORTS)
def test_reports_are_encoded_as_written(fields: str, encoded: str) -> None:
    values = json.loads(fields)
    for name in ("received", "repaired"):
        values[name] = [tuple(one) for one in values[name]]
    assert encode_report(Report(**values)).hex() == encoded
    assert decode_report(bytes.fromhex(encoded)) == Report(**values)


def test_parity_is_computed_as_written() -> None:
    [(first, second, expected)] = re.findall(r"^\| `(\w+)` `(\w+)` \| `(\w+)` \|$", DOCUMENT, re.MULTILINE)
    [parity_shard] = parity([bytes.fromhex(first), bytes.fromhex(second)], 1)
    assert parity_shard.hex() == expected


def test_every_type_is_described_and_has_an_example() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \| .+ \|$", DOCUMENT, re.MULTILINE))
    assert rows == {str(kind.value): kind.name for kind in PacketType}
    assert {row[0] for row in PACKETS} == {kind.name for kind in PacketType}
    assert {row[1] for row in PACKETS} == {suite.name for suite in Suite}
    assert len(KEYS) == 2 * len(Suite)
    assert len(REPORTS) == 2


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    text = " ".join(DOCUMENT.split())
    assert keys.REKEY_PACKETS == 1 << 26
    assert keys.PACKET_LIMIT == 1 << 28
    for phrase in (
        f"after {keys.REKEY_INTERVAL:.0f} seconds or 2^26 packets",
        f"for {keys.OLD_KEY_LIFETIME:.0f} seconds more",
        f"window of {replay.SHARD_WINDOW} (control: {replay.CONTROL_WINDOW})",
        f"at most {wire.MAX_GROUP} of them",
        f"up to {wire.MAX_PIPES} sockets",
        f"{StripeConfig().group_timeout * 1000:.0f} ms after its last shard",
        (
            f"{reports.MIN_INTERVAL * 1000:.0f} ms after the first shard that it tells of, or "
            f"{reports.EAGER_INTERVAL * 1000:.0f} ms after the last report when {reports.EAGER_SHARDS} shards wait"
        ),
        f"at once, but {reports.GAP_INTERVAL * 1000:.0f} ms after the last report at the earliest",
        f"until the {reports.GAP_SHARDS}rd number behind the gap",
        f"received ranges (at most {reports.MAX_RANGES})",
        f"REGISTER every {pipes.REGISTER_INTERVAL} s",
        f"came within {pipe.DEAD_AFTER} s",
        f"no shard has come or gone for {pipes.BUSY_TIME} s it probes one pipe in turn",
        f"and the next {pipes.RETRY_INTERVAL} s later",
        f"every {pipes.IDLE_INTERVAL} s for {pipes.LIVELY_TIME:.0f} s after a shard",
        f"else every {pipes.SELDOM_INTERVAL} s",
        f"as costs {adaptive.ParityPolicy.WASTE} of goodput",
        f"at most {pmtu.MAX_REPLIES} are sent in a second",
        f"between {MIN_DATAGRAM} octets and",
        f"until less than {pmtu.STEP} octets are in doubt",
        f"when {pmtu.MAX_PROBES} of the small ones, {pmtu.PROBE_INTERVAL} s apart at least",
        f"{pmtu.LARGE_LOSSES} large shards lost in a row",
        f"tried after {pmtu.FIRST_RAISE:.0f} s, then after twice that, up to {pmtu.RAISE_INTERVAL:.0f} s",
    ):
        assert phrase in text, phrase
