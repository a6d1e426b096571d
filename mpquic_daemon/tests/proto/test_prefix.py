from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.control.prefix import Network, PrefixTable, parse_prefix


@st.composite
def networks(draw: st.DrawFn) -> Network:
    if draw(st.booleans()):
        return ipaddress.ip_network((draw(st.integers(0, 2**12 - 1)) << 20, draw(st.integers(0, 32))), strict=False)
    return ipaddress.ip_network((draw(st.integers(0, 2**12 - 1)) << 116, draw(st.integers(0, 128))), strict=False)


@given(
    st.lists(st.tuples(networks(), st.integers(1, 9), st.booleans()), max_size=30),
    st.lists(networks(), min_size=1, max_size=10),
)
def test_lookup_finds_the_longest_prefix_like_a_search_of_all(
    changes: list[tuple[Network, int, bool]], wanted: list[Network]
) -> None:
    table: PrefixTable[int] = PrefixTable()
    model: dict[Network, int] = {}
    for network, value, keep in changes:
        table.insert(network, value)
        model[network] = value
        if not keep:
            assert table.remove(network) == model.pop(network)
    assert dict(table.items()) == model
    assert len(table) == len(model)
    for network in wanted:
        address = network.network_address
        holding = [held for held in model if held.version == address.version and address in held]
        best = max(holding, key=lambda held: held.prefixlen, default=None)
        assert table.lookup(address.packed) == (None if best is None else model[best])
        assert dict(table.overlapping(network)) == {
            held: value for held, value in model.items() if held.version == network.version and held.overlaps(network)
        }
        assert table.get(network) == model.get(network)


def test_removing_what_is_not_there_does_nothing() -> None:
    table: PrefixTable[int] = PrefixTable()
    assert table.remove(parse_prefix("10.0.0.0/8")) is None
    assert table.remove(parse_prefix("10.0.0.1")) is None
    assert table.lookup(b"\x0a\0\0\x01") is None
    assert table.lookup(b"odd") is None


def test_a_prefix_with_host_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits"):
        parse_prefix("10.0.0.1/24")


def test_what_overlaps_is_found_without_a_look_at_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    table: PrefixTable[int] = PrefixTable()
    for number in range(2000):
        table.insert(ipaddress.ip_network((0x0A000000 + 256 * number, 24)), number)

    def everything(_table: PrefixTable[int]) -> None:
        raise AssertionError("looked at every entry")

    monkeypatch.setattr(PrefixTable, "items", everything)
    assert dict(table.overlapping(parse_prefix("10.0.2.7"))) == {parse_prefix("10.0.2.0/24"): 2}
    assert len(dict(table.overlapping(parse_prefix("10.0.0.0/20")))) == 16
