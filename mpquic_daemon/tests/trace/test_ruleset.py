"""Rules of nftables, as real listings have them, for the first packet of a connection."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.trace.expression import ICMP, ICMPV6, TCP, UDP, Packet
from mpquic.trace.ruleset import Ruleset, rule_texts

LISTINGS = Path(__file__).parent / "listings"


def listing(name: str) -> Ruleset:
    return Ruleset(json.loads((LISTINGS / f"{name}.json").read_text()), (LISTINGS / f"{name}.txt").read_text())


CLIENT, MARKS, CLASSES = listing("nft"), listing("marks"), listing("classes")


def packet(
    destination: str, protocol: int = ICMP, port: int | None = None, source: str = "192.168.105.7", **more: object
) -> Packet:
    facts: dict[str, object] = {"iif": "lan0", "source": ipaddress.ip_address(source)} | more
    return Packet(destination=ipaddress.ip_address(destination), protocol=protocol, port=port, **facts)  # type: ignore[arg-type]


def mark(sent: Packet) -> int | None:
    MARKS.pass_hook("prerouting", sent)
    return sent.mark


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (packet("192.0.2.1"), 0),
        (packet("198.51.100.77"), 0x10),
        (packet("203.0.113.7"), 0x10),
        (packet("198.51.100.77", iif="lan2"), 0),
        (packet("198.51.100.77", UDP, 5050), 0x11),
        (packet("192.0.2.1", UDP, 5101), 0),
        (packet("192.0.2.1", TCP, 443), 0x30),
        (packet("192.0.2.1", UDP, 443), 0x30),
        (packet("192.0.2.1", TCP, 8080), 0x40),
        (packet("192.0.2.1", TCP, 80, source="192.168.105.2"), 0x41),
        (packet("192.0.2.1", TCP, 5060), 0x20),
        (packet("192.0.2.1", UDP, 5060), 0x01),
        (packet("2001:db8::1", ICMPV6, source="2001:db8:f::1"), 0x60),
        (packet("2001:dead::1", ICMPV6, source="2001:db8:f::1"), 0),
    ],
)
def test_marks_are_those_that_the_rules_give(sent: Packet, expected: int) -> None:
    assert mark(sent) == expected


def test_the_rules_that_set_a_mark_are_named_and_a_limit_is_not_guessed() -> None:
    passage = MARKS.pass_hook("prerouting", packet("192.0.2.1", TCP, 5060))
    assert [place.text for place in passage.marks] == ["meta mark set tcp dport map @by_port"]
    assert [place.text for place in passage.unknown] == ["limit rate 5/second meta mark set 0x00000099"]


def test_a_client_without_a_classifier_has_no_rule_that_sets_a_mark() -> None:
    assert CLIENT.sets_marks() == []
    assert len(MARKS.sets_marks()) == 9


@pytest.mark.parametrize(
    ("sent", "accepted", "by"),
    [
        (packet("192.0.2.1", oif="tun0"), True, "accept"),
        (packet("192.0.2.1", iif="lan1", oif="tun1"), True, 'iifname . oifname vmap { "lan0" . "tun0"'),
        (packet("192.0.2.1", oif="tun1"), False, "policy drop"),
        (packet("198.51.100.9", oif="tun0"), False, "ip daddr 198.51.100.9 reject"),
        (packet("192.0.2.1", oif="tun0", mark=0x21), False, "meta mark & 0x0000000f == 0x00000001 drop"),
        (packet("192.0.2.66", oif="tun0"), False, "ip daddr 192.0.2.66 drop"),
    ],
)
def test_the_verdict_names_the_rule_or_policy(sent: Packet, accepted: bool, by: str) -> None:
    passage = MARKS.pass_hook("forward", sent)
    assert passage.accepted is accepted
    assert passage.by is not None
    assert passage.by.text.startswith(by)


def test_a_translation_for_ipv4_is_none_for_ipv6() -> None:
    translated = MARKS.pass_hook("postrouting", packet("192.0.2.1", oif="tun0")).translation
    assert translated is not None
    assert (translated[0], translated[2]["addr"]) == ("snat", "10.200.0.9")
    assert MARKS.pass_hook("postrouting", packet("2001:db8::1", ICMPV6, oif="tun0")).translation is None


def test_the_clients_own_rules_forward_pairs_of_devices() -> None:
    through = CLIENT.pass_hook("forward", packet("192.0.2.1", TCP, 443, iif="enp7s1", oif="mpq5"))
    assert through.accepted
    assert through.segment_size == 1360
    assert not through.unknown
    leak = CLIENT.pass_hook("forward", packet("192.0.2.1", TCP, 443, iif="enp7s1", oif="enp7s7"))
    assert not leak.accepted
    assert leak.by is not None
    assert str(leak.by) == "table inet mpquic chain forward: policy drop"


def test_a_ping_has_no_segment_size_and_nothing_of_it_is_unknown() -> None:
    passage = CLIENT.pass_hook("forward", packet("192.0.2.1", iif="enp7s1", oif="mpq5"))
    assert (passage.segment_size, passage.unknown) == (None, [])


def test_every_rule_of_the_listing_has_its_text() -> None:
    texts = rule_texts((LISTINGS / "nft.txt").read_text())
    rules = [entry["rule"] for entry in json.loads((LISTINGS / "nft.json").read_text())["nftables"] if "rule" in entry]
    assert {(rule["family"], rule["table"], rule["chain"], rule["handle"]) for rule in rules} <= set(texts)


def chain(*rules: list[object]) -> Ruleset:
    base = {
        "family": "inet",
        "table": "t",
        "name": "c",
        "hook": "forward",
        "type": "filter",
        "prio": 0,
        "policy": "drop",
    }
    listed = [{"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": rule}} for rule in rules]
    return Ruleset({"nftables": [{"chain": base}, *listed]})


@given(mask=st.integers(0, 2**32 - 1), value=st.integers(0, 2**32 - 1), before=st.integers(0, 2**32 - 1))
def test_a_mark_is_combined_bit_by_bit(mask: int, value: int, before: int) -> None:
    combined = {"|": [{"&": [{"meta": {"key": "mark"}}, mask]}, value]}
    sent = packet("192.0.2.1", mark=before)
    passage = chain([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": combined}}, {"accept": None}]).pass_hook(
        "forward", sent
    )
    assert passage.accepted
    assert sent.mark == (before & mask) | value


@pytest.mark.parametrize(
    "statement", [{"xt": {"type": "match", "name": "owner"}}, {"limit": {"rate": 1, "per": "second"}}]
)
def test_what_only_the_kernel_knows_is_no_match_and_is_said(statement: dict[str, object]) -> None:
    passage = chain([statement, {"accept": None}]).pass_hook("forward", packet("192.0.2.1"))
    assert not passage.accepted
    assert len(passage.unknown) == 1


def test_a_chain_that_jumps_to_itself_ends() -> None:
    assert not chain([{"jump": {"target": "c"}}]).pass_hook("forward", packet("192.0.2.1")).accepted


def barrier(translates: dict[str, object]) -> Ruleset:
    """One chain that translates sources, and one behind it that drops packets with an inner source."""
    match = {"payload": {"protocol": "ip", "field": "saddr"}}
    inner = {"prefix": {"addr": "192.168.105.0", "len": 24}}
    drop = [{"match": {"op": "==", "left": match, "right": inner}}, {"drop": None}]
    chains = [("nat", "srcnat", 100, [translates]), ("filter", "behind", 110, drop)]
    entries: list[dict[str, object]] = []
    for handle, (kind, name, priority, expressions) in enumerate(chains):
        place = {"family": "inet", "table": "t"}
        hook = {"type": kind, "hook": "postrouting", "prio": priority, "policy": "accept"}
        entries.append({"chain": {**place, "name": name, **hook}})
        entries.append({"rule": {**place, "chain": name, "handle": handle, "expr": expressions}})
    return Ruleset({"nftables": entries})


@pytest.mark.parametrize(
    ("translates", "accepted"),
    [
        ({"masquerade": None}, True),
        ({"snat": {"addr": "10.200.5.1"}}, True),
        ({"snat": {"addr": "192.168.105.9"}}, False),
        ({"counter": None}, False),
    ],
)
def test_a_chain_behind_translation_sees_the_packet_as_it_will_leave(
    translates: dict[str, object], accepted: bool
) -> None:
    own = ipaddress.ip_address("10.200.5.1")
    assert barrier(translates).pass_hook("postrouting", packet("192.0.2.1", oif="tun0"), own).accepted is accepted


VOICE, WEB, REST, REMOTE = 0x30000, 0x10000, 0x20000, 0x40000


@pytest.mark.parametrize("others", [0, 0xFF00FFFF])
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (packet("192.0.2.1", UDP, 5060, iif="enp6s21"), VOICE),
        (packet("192.0.2.1", UDP, 20000, iif="enp6s22"), VOICE),
        (packet("2001:db8::1", UDP, 10000, iif="enp6s22", source="fd00:16:3::2"), VOICE),
        (packet("192.0.2.1", UDP, 20001, iif="enp6s22"), REST),
        (packet("192.0.2.1", UDP, 9, iif="enp6s22", dscp=46), VOICE),
        (packet("2001:db8::1", UDP, 9, iif="enp6s22", source="fd00:16:3::2", dscp=40), VOICE),
        (packet("192.0.2.1", UDP, 9, iif="enp6s21", dscp=46), REST),  # trust_dscp: false
        (packet("192.0.2.1", UDP, 9, iif="enp6s22", dscp=18), WEB),
        (packet("198.51.100.7", TCP, 5061, iif="enp6s22"), VOICE),
        (packet("192.0.2.1", TCP, 5061, iif="enp6s22"), REST),
        (packet("192.0.2.1", TCP, 443, iif="enp6s22"), WEB),
        (packet("192.0.2.1", UDP, 443, iif="enp6s23.43"), WEB),
        (packet("192.0.2.1", 47, iif="enp6s22", source="172.16.3.2"), REMOTE),
        (packet("192.0.2.1", 47, iif="enp6s21", source="172.16.2.2"), REST),
        (packet("192.0.2.1", 112, iif="enp6s21"), REMOTE),
        (packet("192.0.2.1", iif="enp6s22"), REST),
        (packet("192.0.2.1", UDP, 5060, iif="enp6s23.41"), 0),  # the VLAN itself says the class
        (packet("192.0.2.1", UDP, 5060, iif="lan0"), 0),
    ],
)
def test_classes_are_those_that_their_rules_give_and_other_bits_stay(sent: Packet, expected: int, others: int) -> None:
    sent = replace(sent, mark=others, connection_mark=others)
    CLASSES.pass_hook("prerouting", sent)
    assert (sent.mark, sent.connection_mark) == (others | expected, others | expected)


def test_a_connection_keeps_the_class_of_its_mark() -> None:
    sent = packet("192.0.2.1", TCP, 443, iif="enp6s22", connection_mark=REMOTE)
    CLASSES.pass_hook("prerouting", sent)
    assert (sent.mark, sent.connection_mark) == (REMOTE, REMOTE)


def test_what_comes_in_by_a_class_tunnel_gives_its_connection_the_class() -> None:
    sent = packet("172.16.41.2", TCP, 22, iif="vo7", source="198.51.100.7")
    CLASSES.pass_hook("prerouting", sent)
    assert (sent.mark, sent.connection_mark) == (0, VOICE)
