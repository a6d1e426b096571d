"""What each LAN and VLAN has sent and received by each tunnel, as the packet filter of a client counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic.config import ClientConfig, load
from mpquic.config.schema import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mpquic.ctl.instances import Row

LISTING: Final = ("nft", "--json", "list", "counters", "table", "inet", "mpquic")
FIELDS: Final = ("lan", "carrier", "wan", "class", "tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
_DIRECTIONS: Final = {"up": "tx", "down": "rx"}


def rows(listing: Mapping[str, Any], files: Sequence[Path]) -> list[Row]:
    """Return a row of FIELDS for each LAN and what carries it, given `LISTING`'s output and the instances' files.

    `carrier` is a tunnel, or the device of a WAN that is the fallback. What is sent goes from the LAN.
    """
    found: dict[tuple[str, str], Row] = {}
    for entry in listing.get("nftables", []):
        counter = entry.get("counter", {})
        pair, _, direction = str(counter.get("name", "")).rpartition(".")
        lan, slash, carrier = pair.partition("/")
        if not slash or direction not in _DIRECTIONS:
            continue
        row = found.setdefault((lan, carrier), {**dict.fromkeys(FIELDS), "lan": lan, "carrier": carrier})
        for unit in ("packets", "bytes"):
            row[f"{_DIRECTIONS[direction]}_{unit}"] = counter[unit]
    tunnels = {path.stem: path for path in files}
    for row in found.values():
        if row["carrier"] in tunnels:
            row.update(_of_tunnel(tunnels[row["carrier"]]))
    return list(found.values())


def _of_tunnel(path: Path) -> Row:
    try:
        config = load(path)
    except ConfigError:
        return {}
    if not isinstance(config, ClientConfig):
        return {}
    return {"wan": ",".join(way.name for way in config.paths), "class": config.class_name}
