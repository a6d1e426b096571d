"""Longest prefix match over IPv4 and IPv6, with a fast path for whole addresses."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = TypeVar("Value")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_prefix(text: str) -> Network:
    """Parse an address or prefix. An address becomes /32 or /128.

    Raises:
        ValueError: it is none, or host bits are set.
    """
    return ipaddress.ip_network(text, strict=True)


class PrefixTable(Generic[Value]):
    """Maps prefixes to values. Addresses are given as 4 or 16 bytes, as they lie in a packet.

    A prefix belongs to one value at a time. Lookup costs one dictionary access for an address entered as /32 or /128,
    and one for each prefix length in use otherwise.
    """

    def __init__(self) -> None:
        self._exact: dict[bytes, Value] = {}
        self._by_length: dict[tuple[int, int], dict[int, Value]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 16: []}
        self._starts: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        """All entries of a family in order: first address and length."""

    def __len__(self) -> int:
        return len(self._exact) + sum(map(len, self._by_length.values()))

    def insert(self, prefix: Network, value: Value) -> None:
        """Enter a prefix; one that is present gets the new value."""
        size = prefix.max_prefixlen // 8
        if self.get(prefix) is None:
            insort(self._starts[size], (int(prefix.network_address), prefix.prefixlen))
        if prefix.prefixlen == prefix.max_prefixlen:
            self._exact[prefix.network_address.packed] = value
            return
        bucket = self._by_length.setdefault((size, prefix.prefixlen), {})
        bucket[int(prefix.network_address) >> (prefix.max_prefixlen - prefix.prefixlen)] = value
        self._refresh_lengths(size)

    def remove(self, prefix: Network) -> Value | None:
        """Take a prefix out and return its value, None when it was not there."""
        size = prefix.max_prefixlen // 8
        if self.get(prefix) is not None:
            starts = self._starts[size]
            del starts[bisect_left(starts, (int(prefix.network_address), prefix.prefixlen))]
        if prefix.prefixlen == prefix.max_prefixlen:
            return self._exact.pop(prefix.network_address.packed, None)
        bucket = self._by_length.get((size, prefix.prefixlen))
        if bucket is None:
            return None
        value = bucket.pop(int(prefix.network_address) >> (prefix.max_prefixlen - prefix.prefixlen), None)
        if not bucket:
            del self._by_length[size, prefix.prefixlen]
            self._refresh_lengths(size)
        return value

    def get(self, prefix: Network) -> Value | None:
        """Return the value of exactly this prefix."""
        if prefix.prefixlen == prefix.max_prefixlen:
            return self._exact.get(prefix.network_address.packed)
        bucket = self._by_length.get((prefix.max_prefixlen // 8, prefix.prefixlen), {})
        return bucket.get(int(prefix.network_address) >> (prefix.max_prefixlen - prefix.prefixlen))

    def lookup(self, address: bytes) -> Value | None:
        """Return the value of the longest prefix that holds the address (4 or 16 bytes), None when there is none."""
        value = self._exact.get(address)
        if value is not None:
            return value
        size = len(address)
        lengths = self._lengths.get(size)
        if not lengths:
            return None
        number = int.from_bytes(address, "big")
        bits = size * 8
        for length in lengths:
            value = self._by_length[size, length].get(number >> (bits - length))
            if value is not None:
                return value
        return None

    def overlapping(self, prefix: Network) -> Iterator[tuple[Network, Value]]:
        """Yield every entry that shares an address with `prefix`: those around it, then those inside it."""
        size, bits = prefix.max_prefixlen // 8, prefix.max_prefixlen
        first = int(prefix.network_address)
        for length in self._lengths[size]:
            if length < prefix.prefixlen:
                number = first >> (bits - length)
                bucket = self._by_length[size, length]
                if number in bucket:
                    yield _network(number << (bits - length), size, length), bucket[number]
        starts = self._starts[size]
        last = first + (1 << (bits - prefix.prefixlen)) - 1
        for start, length in starts[bisect_left(starts, (first, 0)) : bisect_right(starts, (last, bits))]:
            if length >= prefix.prefixlen:
                network = _network(start, size, length)
                value = self.get(network)
                assert value is not None  # what is in the one is in the other
                yield network, value

    def items(self) -> Iterator[tuple[Network, Value]]:
        """Yield every prefix and its value."""
        for packed, value in self._exact.items():
            yield ipaddress.ip_network(packed), value
        for (size, length), bucket in self._by_length.items():
            for number, value in bucket.items():
                yield _network(number << (size * 8 - length), size, length), value

    def _refresh_lengths(self, size: int) -> None:
        self._lengths[size] = sorted((length for held, length in self._by_length if held == size), reverse=True)


def _network(first: int, size: int, length: int) -> Network:
    return ipaddress.ip_network((first.to_bytes(size, "big"), length))
