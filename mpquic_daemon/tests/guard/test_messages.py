"""Messages to and from the kernel: what is written is read as the same, and nothing malformed is fatal."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st
from mpquic.guard.drift import route_key, rule_key
from mpquic.guard.kernel import attribute, encode_route, encode_rule, parse_routes, parse_rule, route_head
from mpquic.guard.nftables import NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_NEWGEN, parse_change, parse_table
from mpquic.guard.wanted import Route, Rule, Wanted, WantedError, parse

families = st.sampled_from([4, 6])
names = st.sampled_from(["lan5", "mpq5", "enp7s2.66", ""])


def prefixes(family: int) -> st.SearchStrategy[str]:
    bits = 32 if family == 4 else 128
    kind = ipaddress.IPv4Network if family == 4 else ipaddress.IPv6Network
    return st.tuples(st.integers(0, 2**bits - 1), st.integers(1, bits)).map(
        lambda drawn: str(kind((drawn[0] >> (bits - drawn[1]) << (bits - drawn[1]), drawn[1])))
    )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    family = draw(families)
    mark, mask = draw(st.one_of(st.just((0, 0)), st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))))
    return Rule(
        family=family,
        priority=draw(st.integers(1, 2**32 - 1)),
        table=draw(st.integers(1, 2**32 - 1)),
        source=draw(st.one_of(st.just(""), prefixes(family))),
        incoming=draw(names),
        outgoing=draw(names),
        mark=mark,
        mask=mask,
        suppress_prefix_length=draw(st.one_of(st.none(), st.integers(0, 128))),
    )


@st.composite
def routes(draw: st.DrawFn) -> Route:
    family = draw(families)
    kind = draw(st.sampled_from(["unicast", "blackhole", "unreachable", "prohibit"]))
    gateway = draw(st.sampled_from(["", "192.0.2.1" if family == 4 else "2001:db8::1"])) if kind == "unicast" else ""
    return Route(
        family=family,
        destination=draw(prefixes(family)),
        table=draw(st.integers(1, 2**32 - 1)),
        type=kind,
        gateway=gateway,
        metric=draw(st.integers(0, 2**32 - 1)),
        device="mpq5",
    )


@given(routes())
def test_a_route_is_told_from_others_by_the_header_of_its_message(route: Route) -> None:
    message = encode_route(route, 7)
    family, length, table = message[0], message[1], message[4]
    # What the kernel writes where a table's number doesn't fit; to the kernel it may be anything.
    assert (family, length, table if route.table < 256 else 252) == route_head(route)


@given(rules())
def test_a_rule_is_read_as_it_was_written(rule: Rule) -> None:
    read = parse_rule(memoryview(encode_rule(rule)))
    assert read is not None
    assert rule_key(read) == rule_key(rule)


@given(routes())
def test_a_route_is_read_as_it_was_written(route: Route) -> None:
    (read,) = parse_routes(memoryview(encode_route(route, 7)), {7: "mpq5"})
    assert route_key(read) == route_key(route)


@given(rules(), st.sampled_from([1, 20, 22, 23]))
def test_a_rule_that_selects_by_more_is_another_one(rule: Rule, kind: int) -> None:
    """By a destination, users, a protocol or a port."""
    assert parse_rule(memoryview(encode_rule(rule) + attribute(kind, b"\1\0\0\0"))) is None


def generation(name: str, number: int) -> bytes:
    return struct.pack(">BBH", 0, 0, 0) + attribute(2, struct.pack(">I", number)) + attribute(3, name.encode() + b"\0")


def change(table: str, family: int = NFPROTO_INET) -> bytes:
    return struct.pack(">BBH", family, 0, 0) + attribute(1, table.encode() + b"\0")


def event(kind: int, body: bytes) -> tuple[int, int, memoryview]:
    return NFNL_SUBSYS_NFTABLES << 8 | kind, 0, memoryview(body)


def test_a_change_of_our_table_is_told_with_the_process_that_made_it() -> None:
    events = [event(6, change("mpquic")), event(NFT_MSG_NEWGEN, generation("nft", 77))]
    found = parse_change(events)
    assert found.ours
    assert found.process == "nft[77]"


def test_changes_of_other_tables_do_not_concern_us() -> None:
    events = [
        event(6, change("docker")),
        event(6, change("mpquic", family=2)),
        event(6, change("mpquic_guard")),
        event(NFT_MSG_NEWGEN, generation("dockerd", 5)),
    ]
    assert not parse_change(events).ours


def test_the_comment_of_a_table_is_in_its_user_data() -> None:
    comment = b"revision aa\0"
    userdata = bytes([9, 2]) + b"xy" + bytes([0, len(comment)]) + comment
    body = change("mpquic") + attribute(4, struct.pack(">Q", 12)) + attribute(6, userdata)
    table = parse_table(memoryview(body))
    assert (table.handle, table.comment) == (12, "revision aa")


attribute_lists = st.lists(
    st.tuples(st.integers(0, 8), st.binary(max_size=24)).map(lambda drawn: attribute(*drawn)), max_size=6
).map(b"".join)
bodies = st.one_of(
    st.binary(max_size=64),
    st.tuples(st.sampled_from([0, NFPROTO_INET]), attribute_lists).map(
        lambda drawn: struct.pack(">BBH", drawn[0], 0, 0) + drawn[1]
    ),
)


@given(bodies)
def test_any_reply_on_a_table_is_read(body: bytes) -> None:
    table = parse_table(memoryview(body))
    assert 0 <= table.handle < 2**64


@given(st.lists(st.tuples(st.sampled_from([0, 6, NFT_MSG_NEWGEN]), bodies), max_size=5))
def test_any_events_are_read(drawn: list[tuple[int, bytes]]) -> None:
    found = parse_change([event(kind, body) for kind, body in drawn])
    assert found.process == "" or found.process.endswith("]")


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    try:
        found = parse(data)
    except WantedError:
        return
    assert isinstance(found, Wanted)


def test_a_file_of_wrong_addresses_or_parameters_is_refused() -> None:
    for text in (
        b'{"addresses": [{"device": "lan5", "address": "172.16.5.300/30"}]}',
        b'{"routes": [{"family": 4, "destination": "10.0.0.1/8", "table": 1, "device": "lan5"}]}',
        b'{"parameters": {"kernel/core_pattern": 1}}',
        b'{"parameters": {"net/../kernel/panic": 1}}',
        b'{"rules": [{"family": 5, "priority": 1, "table": 1}]}',
        b'{"rules": [{"family": 4, "priority": 4294967296, "table": 1}]}',
        b'{"routes": [{"family": 4, "destination": "10.0.0.0/8", "table": 1, "device": "lan5", "type": "local"}]}',
        b'{"tuns": [{"name": "mpq5", "mtu": -1}]}',
        b'{"unknown": []}',
    ):
        try:
            parse(text)
        except WantedError:
            continue
        raise AssertionError(text)
