"""The way of a packet on a client of the lab, from what its tools printed."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mpquic.ctl import trace_send
from mpquic.trace import host, links, listing, text
from mpquic.trace.host import Routing
from mpquic.trace.links import Link
from mpquic.trace.listing import KernelWord
from mpquic.trace.ruleset import Ruleset
from mpquic.trace.way import Question, Way, evaluate, report

if TYPE_CHECKING:
    from mpquic.trace.send import Order

LISTINGS = Path(__file__).parent / "listings"
RULES = Ruleset(json.loads((LISTINGS / "nft.json").read_text()), (LISTINGS / "nft.txt").read_text())
LAN5 = Link(
    "lan", "lan5", "enp7s1", tuple(ipaddress.ip_interface(each) for each in ("172.16.5.1/30", "fd00:16:5::1/64"))
)
LAN2 = Link("lan", "lan2", "enp6s21", (ipaddress.ip_interface("172.16.2.1/30"),))
GOLDEN = Path(__file__).parents[3] / "molecule/render/golden"


def load(name: str) -> list[dict[str, object]]:
    loaded: list[dict[str, object]] = json.loads((LISTINGS / f"{name}.json").read_text())
    return loaded


def routing(version: int) -> Routing:
    return Routing(
        listing.rules(load(f"rule{version}"), version),
        listing.routes(load(f"route{version}"), version),
        listing.devices(load("address")),
    )


def way(lan: Link, destination: str, kernel: KernelWord, *, forwards: bool = True, protocol: str = "icmp") -> Way:
    address = ipaddress.ip_address(destination)
    source = links.router(lan, address.version)
    assert source is not None
    question = Question(lan, source, "its router", address, protocol, None if protocol == "icmp" else 443)
    return evaluate(question, routing(address.version), RULES, kernel, forwards=forwards)


def found(one: Way) -> dict[str, object]:
    return report(one, routing(one.question.destination.version))


def test_a_packet_of_a_lan_leaves_by_its_tunnel() -> None:
    one = way(LAN5, "192.0.2.80", KernelWord("unicast", "mpq5", None, "lan5"))
    facts = found(one)
    assert (one.outcome, one.agrees) == ("leaves", True)
    assert facts["packet"]["source"] == "172.16.5.2"  # type: ignore[index]
    assert facts["route"] == {
        "kind": "unicast",
        "priority": 2005,
        "table": "lan5",
        "route": "default dev mpq5 metric 100",
        "device": "mpq5",
        "gateway": None,
        "skipped": [],
    }
    assert facts["translation"]["address"] == "10.200.5.1"  # type: ignore[index]
    assert (facts["mtu"], facts["mss"]) == (1400, 1360)


def test_ipv6_goes_the_same_way_with_sizes_of_its_own() -> None:
    facts = found(way(LAN5, "2001:db8:80::80", KernelWord("unicast", "mpq5", None, "lan5"), protocol="tcp"))
    assert facts["outcome"] == "leaves"
    assert facts["packet"]["source"] == "fd00:16:5::2"  # type: ignore[index]
    assert facts["mss"] == 1340


def test_a_tunnel_without_carrier_is_skipped_and_said_so() -> None:
    one = way(LAN2, "192.0.2.80", KernelWord("unreachable", error="No route to host"))
    assert (one.outcome, one.agrees, one.device) == ("unreachable", True, None)
    skipped = found(one)["route"]["skipped"]  # type: ignore[index]
    assert skipped == [
        {"table": "lan2", "route": "default dev mpq2 metric 100", "why": "mpq2 has no carrier (linkdown)"}
    ]


def test_the_kernels_word_is_shown_when_it_differs() -> None:
    one = way(LAN5, "192.0.2.80", KernelWord("unicast", "enp7s7", "10.150.19.1", "wan5"))
    assert not one.agrees
    assert "DISAGREES: dev enp7s7 table wan5" in render(one)


def test_without_forwarding_nothing_leaves() -> None:
    one = way(LAN5, "192.0.2.80", KernelWord("unreachable", error="No route to host"), forwards=False)
    assert (one.outcome, one.agrees) == ("not_forwarded", True)
    assert "forwarding is off" in render(one)


def render(one: Way) -> str:
    return text.render(found(one) | {"tunnel": None, "notes": [], "summary": "-", "sent": None})


def test_the_report_for_people_has_what_decides_and_no_rule_that_does_not_match() -> None:
    lines = render(way(LAN5, "192.0.2.80", KernelWord("unicast", "mpq5", None, "lan5")))
    assert "mark        none: no rule gives one" in lines
    assert "2005: from all iif enp7s1 lookup lan5 -> default dev mpq5 metric 100" in lines
    assert "2004:" not in lines
    assert "accepted by table inet mpquic chain forward: iifname . oifname { 6 elements } accept" in lines


@pytest.mark.parametrize(
    ("host", "file", "expected"),
    [
        ("site1-client", "05-mpquic-30-enp7s1", ("lan", "lan5", "enp7s1")),
        ("north-client", "05-mpquic-40-guests", ("lan", "lan1.300", "guests")),
        ("west-client", "05-mpquic-20-modem", ("wan", "wan3", "modem")),
        ("north-client", "05-mpquic-40-noc", None),
        ("north-client", "05-mpquic-10-ens3", None),
        ("north-client", "05-mpquic-50-voice", None),
    ],
)
def test_lans_and_wans_are_told_from_other_links(host: str, file: str, expected: tuple[str, str, str] | None) -> None:
    link = links.parse((GOLDEN / host / "etc/systemd/network" / f"{file}.network").read_text())
    assert (None if link is None else (link.kind, link.name, link.device)) == expected


def test_a_lan_is_found_by_its_name_or_its_device() -> None:
    known = links.read(GOLDEN / "west-client/etc/systemd/network")
    by_name = links.find(known, "lan", "lan5.21")
    assert by_name is not None
    assert links.find(known, "lan", by_name.device) == by_name
    assert links.find(known, "lan", "wan4") is None


@pytest.mark.parametrize(
    ("own", "behind", "version", "expected"),
    [
        ("172.16.5.1/30", (), 4, "172.16.5.2"),
        ("172.16.5.2/30", (), 4, "172.16.5.1"),
        ("192.168.9.1/31", (), 4, "192.168.9.0"),
        ("172.16.5.1/29", ("172.16.5.4",), 4, "172.16.5.4"),
        ("fd00:16:5::1/64", (), 6, "fd00:16:5::2"),
        ("172.16.5.1/30", (), 6, None),
        ("172.16.5.1/32", (), 4, None),
    ],
)
def test_the_host_of_a_lan_is_its_router(own: str, behind: tuple[str, ...], version: int, expected: str | None) -> None:
    link = Link("lan", "lan5", "d0", (ipaddress.ip_interface(own),), tuple(map(ipaddress.ip_address, behind)))
    router = links.router(link, version)
    assert (None if router is None else str(router)) == expected


UP = {"name": "mpq5", "device": "mpq5", "state": "up"}
DROPPING = Ruleset(
    {
        "nftables": [
            {
                "chain": {
                    "family": "inet",
                    "table": "strict",
                    "name": "output",
                    "hook": "output",
                    "type": "filter",
                    "prio": 0,
                    "policy": "drop",
                }
            }
        ]
    }
)


def order(
    owner: dict[str, object] | None, monkeypatch: pytest.MonkeyPatch, rules: Ruleset = RULES, mark: int | None = 0
) -> tuple[Order | None, str | None]:
    monkeypatch.setattr(host, "ruleset", lambda: rules)
    one = way(LAN5, "192.0.2.80", KernelWord("unicast", "mpq5", None, "lan5"))
    one.mark = mark
    return trace_send.order_of({"tunnel": owner}, one, routing(4))


def test_what_is_sent_has_the_lans_own_address_and_the_tunnels_device(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, refusal = order(UP, monkeypatch, mark=7)
    assert refusal is None
    assert sent is not None
    assert (str(sent.source), sent.device, sent.mark, sent.table) == ("172.16.5.1", "mpq5", 7, "lan5")


@pytest.mark.parametrize(
    ("owner", "mark", "rules", "refusal"),
    [
        (None, 0, RULES, "addresses of LANs never leave by a WAN"),
        (UP | {"device": "mpq6"}, 0, RULES, "mpq5 is no tunnel"),
        (UP | {"state": "down"}, 0, RULES, "since mpq5 is down"),
        (UP, None, RULES, "the mark that the rules give can't be told"),
        (UP, 0, DROPPING, "dropped by table inet strict chain output: policy drop"),
    ],
)
def test_nothing_is_sent_that_might_go_elsewhere(
    owner: dict[str, object] | None,
    mark: int | None,
    rules: Ruleset,
    refusal: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, why = order(owner, monkeypatch, rules, mark)
    assert sent is None
    assert why is not None
    assert refusal in why


def test_nothing_is_sent_where_the_kernel_disagrees_or_has_no_way() -> None:
    strange = way(LAN5, "192.0.2.80", KernelWord("unicast", "enp7s7", "10.150.19.1", "wan5"))
    closed = way(LAN2, "192.0.2.80", KernelWord("unreachable", error="No route to host"))
    for one in (strange, closed):
        assert trace_send.order_of({"tunnel": UP}, one, routing(4))[0] is None
