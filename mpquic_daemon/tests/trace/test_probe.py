"""A packet that was sent is known again, and nothing else is taken for it."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.trace.probe import Probe, whole
from mpquic.trace.send import Sent, judge

OWN = {4: "10.200.5.1", 6: "fd00::1"}
THERE = {4: "192.0.2.80", 6: "2001:db8:80::80"}
ROUTER = {4: "198.51.100.1", 6: "2001:db8:1::1"}
TOKEN = bytes(range(24))
NUMBERS = {("icmp", 4): 1, ("icmp", 6): 58, ("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def packet(version: int, source: str, destination: str, protocol: int, body: bytes) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if version == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + ends + body
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body


def probe(protocol: str, version: int = 4) -> Probe:
    port = None if protocol == "icmp" else 443
    return Probe(ipaddress.ip_address(THERE[version]), protocol, port, TOKEN, 4000)


def leaving(one: Probe, own: int = 4000, flags: int = 0x02) -> bytes:
    version = one.destination.version
    if one.protocol == "icmp":
        body = one.echo_request()[:4] + struct.pack("!HH", own, 1) + TOKEN
    elif one.protocol == "udp":
        body = struct.pack("!HHHH", own, 443, 8 + len(TOKEN), 0) + TOKEN
    else:
        body = struct.pack("!HHIIBBHHH", own, 443, 0, 0, 0x50, flags, 0, 0, 0)
    return packet(version, OWN[version], THERE[version], NUMBERS[one.protocol, version], body)


def coming(one: Probe, own: int = 4000, flags: int = 0x12, payload: bytes = TOKEN) -> bytes:
    version = one.destination.version
    if one.protocol == "icmp":
        body = struct.pack("!BBHHH", 0 if version == 4 else 129, 0, 0, own, 1) + payload
    elif one.protocol == "udp":
        body = struct.pack("!HHHH", 443, own, 8 + len(payload), 0) + payload
    else:
        body = struct.pack("!HHIIBBHHH", 443, own, 0, 0, 0x50, flags, 0, 0, 0)
    return packet(version, THERE[version], OWN[version], NUMBERS[one.protocol, version], body)


def error(one: Probe, quoted: bytes, kind: int, code: int) -> bytes:
    version = one.destination.version
    body = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    return packet(version, ROUTER[version], OWN[version], NUMBERS["icmp", version], body)


@VERSIONS
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
def test_the_packet_and_its_reply_are_known_in_the_padding_of_a_frame(protocol: str, version: int) -> None:
    one = probe(protocol, version)
    request = one.recognise(leaving(one) + b"\0" * 9, outgoing=True)
    reply = one.recognise(coming(one) + b"\0" * 9, outgoing=False)
    assert request is not None
    assert reply is not None
    assert (request.kind, reply.kind) == ("request", "reply")


@VERSIONS
@pytest.mark.parametrize("protocol", ["icmp", "udp"])
def test_a_port_or_identifier_that_nat_has_changed_is_followed(protocol: str, version: int) -> None:
    one = probe(protocol, version)
    assert one.recognise(leaving(one, 61000), outgoing=True) is not None
    assert one.recognise(coming(one, 61000), outgoing=False) is not None


@pytest.mark.parametrize(("flags", "words"), [(0x12, "SYN-ACK"), (0x14, "RST")])
def test_a_connection_that_is_refused_is_a_reply_too(flags: int, words: str) -> None:
    one = probe("tcp")
    one.recognise(leaving(one), outgoing=True)
    reply = one.recognise(coming(one, flags=flags), outgoing=False)
    assert reply is not None
    assert reply.words.startswith(words)


@pytest.mark.parametrize(
    ("protocol", "version", "kind", "code", "name"),
    [
        ("udp", 4, 3, 3, "port unreachable"),
        ("icmp", 4, 3, 1, "host unreachable"),
        ("tcp", 4, 11, 0, "time exceeded"),
        ("udp", 6, 1, 4, "port unreachable"),
        ("icmp", 6, 1, 0, "no route"),
        ("tcp", 4, 3, 9, "type 3 code 9"),
    ],
)
def test_an_icmp_error_about_the_packet_is_named(protocol: str, version: int, kind: int, code: int, name: str) -> None:
    one = probe(protocol, version)
    sent = leaving(one)
    one.recognise(sent, outgoing=True)
    header = 20 if version == 4 else 40
    sighting = one.recognise(error(one, sent[: header + 8], kind, code), outgoing=False)
    assert sighting is not None
    assert sighting == ("error", f"ICMP error ({name}) from {ROUTER[version]}")


@VERSIONS
def test_what_belongs_to_others_is_not_ours(version: int) -> None:
    udp, icmp, tcp = probe("udp", version), probe("icmp", version), probe("tcp", version)
    for one in (udp, icmp, tcp):
        assert one.recognise(leaving(one), outgoing=True) is not None
    assert udp.recognise(coming(udp, 4001), outgoing=False) is None
    assert tcp.recognise(coming(tcp, 4001), outgoing=False) is None
    assert icmp.recognise(coming(icmp, payload=TOKEN[::-1]), outgoing=False) is None
    assert icmp.recognise(coming(icmp), outgoing=True) is None
    assert tcp.recognise(leaving(tcp, 4001), outgoing=True) is None
    other = leaving(probe("udp", version), 4002)
    assert udp.recognise(error(udp, other, 3, 3), outgoing=False) is None


@given(data=st.binary(max_size=120), protocol=st.sampled_from(("icmp", "tcp", "udp")), outgoing=st.booleans())
def test_any_bytes_are_no_sighting_and_no_error(data: bytes, protocol: str, *, outgoing: bool) -> None:
    assert probe(protocol).recognise(data, outgoing=outgoing) is None


@given(cut=st.integers(0, 60), protocol=st.sampled_from(("icmp", "tcp", "udp")), version=st.sampled_from((4, 6)))
def test_a_packet_that_is_cut_short_is_no_sighting(cut: int, protocol: str, version: int) -> None:
    one = probe(protocol, version)
    sent = leaving(one)
    quoted = sent[: min(cut, len(sent) - 1)]
    assert whole(quoted) is None
    assert one.recognise(quoted, outgoing=True) is None
    about = one.recognise(error(one, quoted, 3, 3), outgoing=False)
    assert (about is not None) == (len(quoted) >= (28 if version == 4 else 48))


def counted(name: str, sent: int | None, received: int | None) -> dict[str, object]:
    before = None if sent is None else 5
    return {
        "name": name,
        "tx_packets_before": before,
        "tx_packets_after": None if sent is None else 5 + sent,
        "rx_packets_before": None if received is None else 7,
        "rx_packets_after": None if received is None else 7 + received,
    }


GOOD = {"left": ["mpq5"], "returned": ["mpq5"], "reply": "echo reply", "delivered": True}


@pytest.mark.parametrize(
    ("changed", "counters", "problem"),
    [
        ({}, [counted("TUN mpq5", 1, 1)], None),
        ({}, [counted("TUN mpq5", 1, 1), counted("instance mpq5", None, None)], None),
        ({"left": []}, [], "it was not seen leaving by mpq5"),
        ({"left": ["mpq5", "enp7s7"]}, [], "it left by enp7s7"),
        ({"returned": ["enp7s7"]}, [], "its reply came in by enp7s7"),
        ({"returned": [], "delivered": False}, [], "no reply has come back: the way back isn't proven"),
        (
            {"delivered": False},
            [],
            "its reply came in, and the packet filter or the kernel didn't deliver it to the socket",
        ),
        ({}, [counted("instance mpq5", 0, 1)], "instance mpq5 hasn't counted it as sent"),
        ({}, [counted("TUN mpq5", 1, 0)], "TUN mpq5 hasn't counted it as received"),
        ({"error": "it can't be sent: x", "left": [], "returned": []}, [], "it can't be sent: x"),
    ],
)
def test_only_a_packet_that_was_counted_everywhere_is_proof(
    changed: dict[str, object], counters: list[dict[str, object]], problem: str | None
) -> None:
    proven, problems = judge(Sent(**(GOOD | changed)), "mpq5", counters)  # type: ignore[arg-type]
    assert proven is (problem is None)
    assert problems == ([] if problem is None else [problem])
