"""What a ruleset of nftables does with a packet, as far as it can be told from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic_plan.preflight.ruleset import Chain, Packet, Ruleset

UDP = Packet("eth0", "", "198.51.100.7", "203.0.113.10", "udp", 45001)
SSH = Packet("eth0", "", "198.51.100.7", "203.0.113.10", "tcp", 22)
SSH6 = Packet("eth0", "", "2001:db8:9::7", "2001:db8:113::10", "tcp", 22)
REPLY = Packet("eth0", "mpq1", "198.51.100.7", "10.200.1.1", "tcp", 50000, "established")

ACCEPT, DROP, RETURN, XT = {"accept": None}, {"drop": None}, {"return": None}, {"xt": None}
Rule = list[dict[str, Any]]


def port(*ports: int, protocol: str = "udp") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": "dport"}}
    return {"match": {"op": "==", "left": left, "right": {"set": list(ports)}}}


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def to(name: str, how: str = "jump") -> dict[str, Any]:
    return {how: {"target": name}}


SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
DEVICE = {"meta": {"key": "iifname"}}
STATE = {"ct": {"key": "state"}}


def verdict(
    base: list[Rule],
    packet: Packet = UDP,
    policy: str = "drop",
    family: str = "inet",
    others: dict[str, list[Rule]] | None = None,
    sets: dict[str, list[Any]] | None = None,
) -> str:
    entries: list[dict[str, Any]] = [
        {"metainfo": {"json_schema_version": 1}},
        {"table": {"family": family, "name": "t"}},
        {"chain": {"family": family, "table": "t", "name": "in", "hook": "input", "policy": policy}},
    ]
    for name, elements in (sets or {}).items():
        entries.append({"set": {"family": family, "table": "t", "name": name, "elem": elements}})
    entries += [{"chain": {"family": family, "table": "t", "name": name}} for name in others or {}]
    entries += [
        {"rule": {"family": family, "table": "t", "chain": name, "expr": rule}}
        for name, rules in {"in": base, **(others or {})}.items()
        for rule in rules
    ]
    rules_of_host = Ruleset.of(entries)
    (chain,) = rules_of_host.base_chains()
    return rules_of_host.verdict(chain, packet)


@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_without_a_rule_the_policy_decides(policy: str) -> None:
    assert verdict([], policy=policy) == policy


def test_a_chain_of_the_other_family_lets_a_packet_pass() -> None:
    assert verdict([], UDP, family="ip6") == "accept"
    assert verdict([], SSH6, family="ip") == "accept"
    assert verdict([], SSH6, family="ip6") == verdict([], UDP, family="ip") == "drop"


@pytest.mark.parametrize(
    "condition",
    [
        port(45001),
        port(1, 45001),
        match({"payload": {"protocol": "th", "field": "dport"}}, 45001),
        match({"payload": {"protocol": "udp", "field": "dport"}}, {"range": [45001, 45006]}),
        match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}),
        match({"payload": {"protocol": "ip", "field": "protocol"}}, 17),
        match(DEVICE, "eth*"),
        match(DEVICE, "eth1", "!="),
        match(SOURCE, {"prefix": {"addr": "198.51.100.0", "len": 24}}),
        match(SOURCE, {"range": ["198.51.100.1", "198.51.100.9"]}),
        match(SOURCE, {"set": [{"prefix": {"addr": "192.0.2.0", "len": 24}}]}, "!="),
        match(STATE, ["established", "new"], "in"),
        match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
        match({"concat": [DEVICE, {"payload": {"protocol": "udp", "field": "dport"}}]}, {"concat": ["eth0", 45001]}),
    ],
)
def test_a_condition_that_holds_opens_the_way(condition: dict[str, Any]) -> None:
    assert verdict([[condition, {"counter": {}}, ACCEPT]]) == "accept"
    assert verdict([[condition, {"log": {}}, {"reject": None}]], policy="accept") == "drop"


@pytest.mark.parametrize(
    "condition",
    [
        port(45002),
        port(45001, protocol="tcp"),
        match({"payload": {"protocol": "icmp", "field": "type"}}, "echo-request"),
        match({"payload": {"protocol": "ip6", "field": "nexthdr"}}, "udp"),
        match({"payload": {"protocol": "udp", "field": "sport"}}, 67),
        match(DEVICE, "lo"),
        match(SOURCE, {"prefix": {"addr": "192.0.2.0", "len": 24}}),
        match(SOURCE, {"range": ["198.51.100.8", "198.51.100.9"]}),
        match(STATE, ["established", "related"], "in"),
    ],
)
def test_a_condition_that_does_not_hold_changes_nothing(condition: dict[str, Any]) -> None:
    assert verdict([[condition, XT, ACCEPT]]) == "drop"
    assert verdict([[condition, DROP]], policy="accept") == "accept"


@pytest.mark.parametrize(
    "part",
    [
        XT,
        {"xt": {"type": "match", "name": "recent"}},
        {"limit": {"rate": 15, "per": "minute", "inv": True}},
        {"ct count": {"val": 10, "inv": True}},
        {"set": {"op": "add", "elem": SOURCE, "set": "@meter", "stmt": [{"limit": {"rate": 10, "inv": True}}]}},
        match({"meta": {"key": "mark"}}, 1),
        match({"&": [{"payload": {"protocol": "udp", "field": "length"}}, 255]}, 1),
        match(SOURCE, "@unknown"),
    ],
)
def test_what_can_not_be_read_does_not_close_the_way(part: dict[str, Any]) -> None:
    assert verdict([[part, DROP]], policy="accept") == "accept"


def test_a_limit_that_is_kept_lets_the_rule_apply() -> None:
    assert verdict([[{"limit": {"rate": 3, "per": "minute"}}, ACCEPT]]) == "accept"


def test_an_accepting_rule_with_several_ports_of_iptables_opens_the_way_of_its_protocol() -> None:
    multiport = [match({"meta": {"key": "l4proto"}}, "udp"), XT, ACCEPT]
    assert verdict([multiport], UDP) == "accept"
    assert verdict([multiport], SSH) == "drop"


def test_an_accepting_rule_of_which_nothing_can_be_read_is_for_replies() -> None:
    assert verdict([[XT, ACCEPT]], UDP) == "drop"
    assert verdict([[XT, ACCEPT]], REPLY) == "accept"


def test_what_a_chain_drops_after_it_may_have_returned_does_not_close_the_way() -> None:
    not_local = {"not-local": [[XT, RETURN], [DROP]]}
    assert verdict([[to("not-local")], [port(45001), ACCEPT]], others=not_local) == "accept"
    assert verdict([[to("not-local")]], policy="accept", others=not_local) == "accept"


def test_a_chain_that_returns_goes_on_where_it_was_jumped_to_from() -> None:
    others = {"a": [[port(45001), RETURN], [DROP]]}
    assert verdict([[to("a")], [ACCEPT]], others=others) == "accept"


def test_a_chain_that_was_gone_to_does_not_come_back() -> None:
    assert verdict([[to("a", "goto")], [ACCEPT]], others={"a": []}) == "drop"
    nested = {"a": [[to("b", "goto")], [DROP]], "b": []}
    assert verdict([[to("a")], [ACCEPT]], others=nested) == "accept"


def test_a_named_set_is_looked_up_in_its_table() -> None:
    rule = [match({"payload": {"protocol": "udp", "field": "dport"}}, "@open"), ACCEPT]
    assert verdict([rule], sets={"open": [45001]}) == "accept"
    assert verdict([rule], sets={"open": [45002]}) == "drop"
    timed = [{"elem": {"val": "198.51.100.7", "expires": 3599}}]
    assert verdict([[match(SOURCE, "@bad"), DROP]], policy="accept", sets={"bad": timed}) == "drop"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (["eth0", ACCEPT], "accept"),
        (["eth0", to("a")], "accept"),
        (["*", ACCEPT], "accept"),
        (["eth1", ACCEPT], "drop"),
        (["eth0", DROP], "drop"),
    ],
)
def test_a_verdict_map_is_followed(entry: list[Any], expected: str) -> None:
    rule = [{"vmap": {"key": DEVICE, "data": {"set": [["lo", DROP], entry]}}}]
    assert verdict([rule], others={"a": [[ACCEPT]]}) == expected
    named = [{"vmap": {"key": DEVICE, "data": "@who"}}]
    assert verdict([named], others={"a": [[ACCEPT]]}, sets={"who": [["lo", DROP], entry]}) == expected


def test_a_map_of_states_drops_what_is_invalid_and_nothing_else() -> None:
    states = {"set": [["invalid", DROP], ["established", ACCEPT]]}
    rule = [{"vmap": {"key": STATE, "data": states}}]
    assert verdict([rule], UDP) == "drop"
    assert verdict([rule], UDP, policy="accept") == "accept"
    assert verdict([rule], REPLY) == "accept"


def test_chains_that_jump_to_each_other_end() -> None:
    loop = {"a": [[to("b")], [to("b", "goto")]], "b": [[to("a")], [to("a")]]}
    assert verdict([[to("a")], [ACCEPT]], others=loop) == "accept"
    assert verdict([[to("in")]]) == "drop"


def test_many_ways_through_the_chains_do_not_take_long() -> None:
    deep = {f"c{number}": [[to(f"c{number + 1}")], [to(f"c{number + 1}")]] for number in range(64)}
    assert verdict([[to("c0")], [ACCEPT]], others=deep) == "accept"


def test_the_chains_of_the_suite_are_known() -> None:
    assert Chain("inet", "mpquic", "input").is_ours
    assert not Chain("ip", "mpquic", "input").is_ours


NAMES = st.sampled_from(["in", "a", "b", "c"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 70000),
    st.sampled_from(["eth0", "udp", "new", "@open", "198.51.100.7", "*", "lo*", "", "local"]),
)
OPTIONS = st.one_of(
    SCALARS,
    st.builds(lambda address, length: {"prefix": {"addr": address, "len": length}}, SCALARS, st.integers(0, 200)),
    st.builds(lambda first, last: {"range": [first, last]}, SCALARS, SCALARS),
    st.lists(SCALARS, max_size=2).map(lambda parts: {"concat": parts}),
    SCALARS.map(lambda value: {"elem": {"val": value}}),
    SCALARS.map(lambda value: {"elem": value}),
)
LEFT = st.one_of(
    st.sampled_from([SOURCE, DEVICE, STATE, {}, {"concat": [SOURCE, DEVICE]}, {"&": [STATE, 1]}, "x", None]),
    st.builds(
        lambda protocol, name: {"payload": {"protocol": protocol, "field": name}},
        st.sampled_from(["udp", "tcp", "ip", "ip6", "th", "icmp", "ether"]),
        st.sampled_from(["dport", "sport", "saddr", "type", "protocol"]),
    ),
)
VERDICTS = st.one_of(
    st.sampled_from([ACCEPT, DROP, RETURN, {"reject": None}, {"queue": {"num": 1}}, {"continue": None}]),
    NAMES.map(to),
    NAMES.map(lambda name: to(name, "goto")),
)
STATEMENTS = st.one_of(
    VERDICTS,
    st.builds(match, LEFT, st.one_of(OPTIONS, st.lists(OPTIONS).map(lambda found: {"set": found}), st.lists(SCALARS))),
    st.builds(match, LEFT, OPTIONS, st.sampled_from(["!=", "in", "<", ">="])),
    st.builds(
        lambda key, data: {"vmap": {"key": key, "data": {"set": data}}},
        LEFT,
        st.lists(st.one_of(SCALARS, st.tuples(OPTIONS, VERDICTS).map(list))),
    ),
    st.sampled_from(
        [XT, {"vmap": {"key": DEVICE, "data": "@open"}}, {"limit": {"rate": 1, "inv": True}}, {"counter": None}]
    ),
)


@settings(max_examples=300)
@given(
    st.dictionaries(NAMES, st.lists(st.lists(STATEMENTS, max_size=4), max_size=4)),
    st.sampled_from([UDP, SSH, SSH6, REPLY]),
    st.sampled_from(["accept", "drop"]),
    st.lists(OPTIONS),
)
def test_any_ruleset_accepts_or_drops(
    chains: dict[str, list[Rule]], packet: Packet, policy: str, elements: list[Any]
) -> None:
    base = chains.pop("in", [])
    plain: dict[str, list[Rule]] = json.loads(json.dumps(chains))
    assert verdict(base, packet, policy, others=plain, sets={"open": elements}) in ("accept", "drop")
