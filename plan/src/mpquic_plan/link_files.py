"""Names of the files of systemd-networkd, which takes the first `.network` file that matches a link.

Ours sort before what distributions, cloud images and netplan write (10-... and later). The number tells kinds apart and
leaves room between them, and before all of them, for files of an operator.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "05-mpquic"
NUMBERS: Final = {"management": 10, "wan": 20, "lan": 30, "vlan": 40, "tun": 50}


def link_file(kind: str, device: str) -> str:
    """Return the name of the files of a link, without `.network`, `.netdev` or `.link`."""
    return f"{PREFIX}-{NUMBERS[kind]}-{device}"
