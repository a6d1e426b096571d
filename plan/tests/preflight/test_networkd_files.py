"""Which links a file of systemd-networkd or udev is for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpquic_plan.preflight.networkd_files import makes, matches, names_link, sections

CARD: dict[str, Any] = {
    "kind": "",
    "mac": "52:54:00:aa:bb:cc",
    "permanent_mac": "52:54:00:11:22:33",
    "altnames": ["ens18"],
}
TUN: dict[str, Any] = {"kind": "tun", "mac": "", "permanent_mac": "", "altnames": []}


@pytest.mark.parametrize(
    "match",
    [
        "Name=enp6s18",
        "Name=en*",
        "Name=eth0 enp6s18",
        "Name=eth0\nName=enp6s18",
        "Name=!eth* wl*",
        "Name=ens18",
        "OriginalName=*",
        "MACAddress=52:54:00:AA:BB:CC",
        "MACAddress=52-54-00-aa-bb-cc",
        "MACAddress=5254.00aa.bbcc",
        "PermanentMACAddress=52:54:00:11:22:33",
        "Type=ether",
        "Type=!wlan loopback",
        "Type=ether\nKind=!*",
        "Driver=virtio_net",
        "Name=eth0\nName=\nName=en*",
    ],
)
def test_a_file_that_is_for_a_card_is_seen(match: str) -> None:
    assert matches(f"[Match]\n{match}\n[Network]\nDHCP=yes\n", "enp6s18", CARD)


@pytest.mark.parametrize(
    "match",
    [
        "Name=enp6s1",
        "Name=eth*",
        "Name=!en*",
        "Name=!enp6s18 ens18",
        "Name=en*\nName=",
        "Name=en*\nMACAddress=52:54:00:00:00:01",
        "MACAddress=52:54:00:00:00:01",
        "Type=wlan",
        "Kind=veth",
        "Kind=*",
        "Type=!ether",
        "",
        "# Name=en*",
    ],
)
def test_a_file_that_is_for_others_is_left_alone(match: str) -> None:
    assert not matches(f"[Match]\n{match}\n[Network]\nDHCP=yes\n", "enp6s18", CARD)


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ("Name=*", True),
        ("Name=mp*", True),
        ("Kind=tun", True),
        ("Type=none", True),
        ("Type=ether", False),
        ("Name=!lo\nType=ether", False),
        ("Name=*\nKind=!*", False),
    ],
)
def test_a_tun_device_is_no_ethernet(match: str, met: bool) -> None:
    assert matches(f"[Match]\n{match}\n", "mpq1", TUN) is met


def test_a_file_for_a_card_that_is_absent_is_seen_by_the_name_alone() -> None:
    assert matches("[Match]\nName=enp7s*\nType=ether\n", "enp7s7", None)
    assert not matches("[Match]\nMACAddress=52:54:00:aa:bb:cc\n", "enp7s7", None)


def test_a_device_of_a_netdev_is_the_last_name_in_it() -> None:
    assert makes("[NetDev]\nName=a\nName=mpq1\nKind=tun\n") == "mpq1"
    assert makes("[Match]\nName=mpq1\n") == ""


def test_a_link_file_gives_a_name_by_itself_by_a_policy_or_not_at_all() -> None:
    assert names_link("[Match]\nOriginalName=*\n[Link]\nName=wan1\n") == "wan1"
    assert names_link("[Match]\nOriginalName=*\n[Link]\nNamePolicy=mac\n") == ""
    assert names_link("[Match]\nOriginalName=*\n[Link]\nMTUBytes=9000\n") is None


LINES = st.sampled_from(
    ["[Match]", "[Link]", "Name=", "Name=!", "Name=!a b", "Kind=!*", "MACAddress=x", "=", "#", "\\"]
)


@given(st.one_of(st.text(), st.lists(LINES).map("\n".join)), st.text(max_size=15), st.sampled_from([CARD, TUN, None]))
@example("[Match]\nName=!\n", "enp6s18", CARD)
@example("[Match]\nName=[\n", "enp6s18", CARD)
@example("[]\n=\n[Match]\n=x\n", "", None)
def test_any_text_can_be_judged(text: str, name: str, link: dict[str, Any] | None) -> None:
    assert all(isinstance(key, str) for key in sections(text))
    assert matches(text, name, link) in (True, False)
    assert isinstance(makes(text), str)
    assert names_link(text) is None or isinstance(names_link(text), str)
