"""docs/protocol.md says what the code does."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from mpquic.proto.control import messages as control
from mpquic.proto.control.identity import CONTEXT, Transcript
from mpquic.proto.control.messages import Feature, RefuseCode, StreamType, StripeGrant, StripeRequest
from mpquic.proto.packet.frame import LOW_LATENCY, Frame, FrameFlag, decode_frames
from mpquic.proto.packet.run import SegmentRun
from mpquic.proto.packet.segment import layout
from mpquic.proto.path.probe import PathProbe, decode

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
FRAMES = re.findall(r"^\| ([^|]+) \| `(\{.+\})` \| `([0-9a-f]+)` \|$", DOCUMENT, re.MULTILINE)
SEGMENTS = re.findall(r"^\| ([^|]+) \| `([0-9a-f]+)` \| `([0-9a-f]+)` \|$", DOCUMENT, re.MULTILINE)
MESSAGES = re.findall(r"^\| (\w+) \| (\d+) \| `([0-9a-f]+)` \|$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("name", "fields", "wire"), FRAMES, ids=[name for name, _, _ in FRAMES])
def test_frame_examples_encode_and_decode_as_written(name: str, fields: str, wire: str) -> None:
    values = json.loads(fields)
    values["payload"] = bytes.fromhex(values["payload"])
    assert Frame(**values).encode().hex() == wire, name
    values["sequence"] &= 0xFFFFFFFF
    assert decode_frames(bytes.fromhex(wire)) == [Frame(**values)]


@pytest.mark.parametrize(("name", "wire", "packet"), SEGMENTS, ids=[name for name, _, _ in SEGMENTS])
def test_segment_examples_encode_and_decode_as_written(name: str, wire: str, packet: str) -> None:
    frame = bytes.fromhex(wire)
    [decoded] = decode_frames(frame)
    assert bytes(decoded.payload).hex() == packet, name
    assert decoded.flags == FrameFlag.CHECKSUM
    offset, gso_size = int.from_bytes(frame[8:10], "big"), int.from_bytes(frame[10:12], "big")
    plan = layout(frame[12:])
    head, part = frame[12 : 12 + plan.header], frame[12 + plan.header :]
    run = SegmentRun(head, plan, [part], 0, gso_size, offset, decoded.sequence, 1, decoded.traffic_class)
    assert run.encode() == [frame]


@pytest.mark.parametrize(("kind", "number", "wire"), MESSAGES, ids=[kind for kind, _, _ in MESSAGES])
def test_message_examples_decode_and_encode_as_written(kind: str, number: str, wire: str) -> None:
    [(message_id, message)] = control.ControlDecoder().feed(bytes.fromhex(wire))
    assert (message.TYPE, message_id) == (kind, int(number))
    assert control.encode(message, message_id).hex() == wire


def test_there_are_examples() -> None:
    assert len(FRAMES) == 5
    assert len(SEGMENTS) == 2
    assert {kind for kind, _, _ in MESSAGES} >= {"hello", "register", "welcome", "refuse", "probe"}


def test_every_message_is_described_with_all_its_fields() -> None:
    for kind in control._TYPES:
        [row] = re.findall(rf"^\| `{kind.TYPE}` \| (?:client|server|both) \| (.+) \|$", DOCUMENT, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == list(kind.__struct_fields__)


def test_the_maps_of_striping_are_described_with_all_their_fields() -> None:
    for name, kind in (("wish", StripeRequest), ("grant", StripeGrant)):
        [row] = re.findall(rf"^\| {name} \| `\w+` \| (.+) \|$", DOCUMENT, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == list(kind.__struct_fields__)


def test_every_code_feature_flag_class_and_stream_is_described() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", DOCUMENT, re.MULTILINE)) == set(RefuseCode)
    assert all(f"`{feature}`" in DOCUMENT for feature in Feature)
    assert all(f"`{flag.name}` {flag.value}" in DOCUMENT for flag in FrameFlag)
    assert f"with bit {LOW_LATENCY:#x}" in DOCUMENT
    assert all(f"| {kind.value} | {kind.name.lower()} |" in DOCUMENT for kind in StreamType)


def test_the_transcript_is_the_one_described() -> None:
    transcript = Transcript(
        b"\1" * 32, b"\2" * 32, b"\3" * 32, b"\4" * 32, "mpq5", "wan5", b"\5" * 16, 6, ("10.200.5.1/32", "fd00::1/128")
    )
    assert CONTEXT == b"mpquic registration proof v1\0"
    assert hashlib.sha256(transcript.encode()).hexdigest() in DOCUMENT


def test_the_tests_of_the_bounds_are_there() -> None:
    tests = Path(__file__).parents[1]
    named = set(re.findall(r"`((?:daemon|net|proto|quic)/[\w/]+\.py)`", DOCUMENT))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (tests / name).is_file()] == []


def test_path_probes_are_encoded_as_written() -> None:
    probe, reply = re.findall(r"^\| (?:probe|reply to probe) 7[^|]* \| `(\w+)` \|$", DOCUMENT, re.MULTILINE)
    assert PathProbe(7, heard_ago=0.03, rtt=0.0333).encode().hex() == probe
    assert PathProbe(7, is_reply=True).encode().hex() == reply
    assert decode(bytes.fromhex(probe)) == PathProbe(7, heard_ago=0.03, rtt=0.0333)
