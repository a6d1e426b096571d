"""Text of UCI: what is written is read back, what isn't of its form is refused, and differences become commands."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic_plan.openwrt import uci
from mpquic_plan.openwrt.uci import Section, UciError, changes, obstacles, parse, quote, text

NAMES = st.from_regex(r"[a-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f"), min_size=1)
VALUES = st.one_of(PRINTABLE, st.lists(PRINTABLE, min_size=1, max_size=3).map(tuple))


def _sections(names: st.SearchStrategy[str]) -> st.SearchStrategy[list[Section]]:
    one = st.builds(
        Section,
        st.sampled_from(["rule", "zone", "interface"]),
        names,
        st.dictionaries(NAMES, VALUES, max_size=4).map(lambda options: tuple(options.items())),
    )
    return st.lists(one, max_size=6, unique_by=lambda section: section.name)


OURS = _sections(NAMES.map(lambda name: f"mpq_{name}"))
THEIRS = _sections(NAMES.filter(lambda name: not name.startswith(uci.PREFIXES)))


@given(_sections(NAMES))
def test_what_is_written_is_read_back(sections: list[Section]) -> None:
    assert parse(text("firewall", sections)) == {"firewall": sections}


@given(PRINTABLE)
def test_a_shell_reads_a_quoted_value_as_it_was(value: str) -> None:
    """The rules of a POSIX shell, which libuci's quoting follows, as somebody else has written them."""
    assert shlex.split(quote(value)) == [value]


@pytest.mark.parametrize("value", ["", "two\nlines", "bell\x07", "\x7f"])
def test_what_uci_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(UciError, match="can't be a value"):
        quote(value)


def test_what_people_write_is_read() -> None:
    source = """
package firewall
# a comment
config rule # another
	option name "double \\"quotes\\" and \\\\"
	option src lan
	list proto 'tcp'
	list proto udp
config 'zone' 'guest'
	option name 'two
lines'
	option masq '1'
"""
    assert parse(source) == {
        "firewall": [
            Section("rule", None, (("name", 'double "quotes" and \\'), ("src", "lan"), ("proto", ("tcp", "udp")))),
            Section("zone", "guest", (("name", "two\nlines"), ("masq", "1"))),
        ]
    }


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("config rule 'a", "line 2: ' isn't closed"),
        ("option name 'a'", "line 2: 'option name a' is neither"),
        ("config rule 'a b'", "line 2: 'rule a b' can't be"),
        ("config rule 'a'\nconfig rule 'a'", "line 3: the section a is there twice"),
        ("config rule 'a'\n\toption x '1'\n\toption x '2'", "line 4: the option x is there twice"),
        ("config rule 'a'\n\toption x '1'\n\tlist x '2'", "line 4: x is an option and a list"),
        ("config rule 'a'\n\toption x-y '1'", "line 3: 'x-y' can't be the name of an option"),
        ("config rule 'a'\n\toption x '1' '2'", "line 3: 'option x 1 2' is neither"),
        ("config rule 'a'; option x '1'", "line 2: several commands in one line"),
        ("sections rule", "line 2: 'sections rule' is neither"),
        ("package firewall", "line 2: the package firewall is there twice"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_line(lines: str, says: str) -> None:
    with pytest.raises(UciError, match=says):
        parse(f"package firewall\n{lines}\n")


def applied(package: str, present: list[Section], commands: list[str]) -> list[Section]:
    """What uci makes of commands (libuci: uci_set, uci_delete, uci_add_list): a new section comes last."""
    sections = {section.name: (section.type, dict(section.options)) for section in present}
    for command in commands:
        verb, argument = shlex.split(command)
        path, _, value = argument.partition("=")
        name, _, option = path.removeprefix(f"{package}.").partition(".")
        if verb == "delete" and option:
            del sections[name][1][option]
        elif verb == "delete":
            del sections[name]
        elif not option:
            sections[name] = (value, sections[name][1] if name in sections else {})
        elif verb == "set":
            sections[name][1][option] = value
        else:
            old = sections[name][1].get(option, ())
            assert isinstance(old, tuple)
            sections[name][1][option] = (*old, value)
    return [Section(kind, name, tuple(options.items())) for name, (kind, options) in sections.items()]


def _unordered(sections: list[Section]) -> dict[str | None, tuple[str, dict[str, uci.Value]]]:
    return {section.name: (section.type, dict(section.options)) for section in sections}


@given(THEIRS, OURS, OURS, st.sampled_from(["mwan3", "firewall"]))
def test_commands_lead_from_what_is_there_to_what_is_wanted(
    theirs: list[Section], ours: list[Section], wanted: list[Section], package: str
) -> None:
    present = [*theirs, *ours]
    after = applied(package, present, changes(package, present, wanted))
    assert [section for section in after if not section.ours] == theirs
    assert _unordered([section for section in after if section.ours]) == _unordered(wanted)
    if package == "mwan3":
        rules = [section.name for section in after if section.ours and section.type == "rule"]
        assert rules == [section.name for section in wanted if section.type == "rule"]
    assert changes(package, after, wanted) == []


def test_a_section_keeps_its_place_and_other_options_when_one_changes() -> None:
    present = [Section("zone", "mpq_c1", (("masq", "1"), ("network", ("a", "b")))), Section("zone", "mpq_c2", ())]
    wanted = [Section("zone", "mpq_c1", (("masq", "0"), ("network", ("a", "b")))), Section("zone", "mpq_c2", ())]
    assert changes("firewall", present, wanted) == ["set firewall.mpq_c1.masq='0'"]


def test_rules_of_others_stand_in_the_way_only_where_they_take_everything() -> None:
    rules = [
        Section("rule", "https", (("dest_port", "443"), ("proto", "tcp"), ("use_policy", "balanced"))),
        Section("rule", None, (("dest_ip", "0.0.0.0/0"), ("use_policy", "balanced"))),
        Section("rule", "default_rule_v6", (("dest_ip", "::/0"), ("family", "ipv6"), ("use_policy", "balanced"))),
        Section("rule", "mpq_rest", (("proto", "all"), ("use_policy", "mpq_c2"))),
    ]
    assert [name for name, _ in obstacles("mwan3", rules, rules[-1:])] == ["mwan3.@rule[1]", "mwan3.default_rule_v6"]


def test_devices_and_addresses_that_others_have_stand_in_the_way() -> None:
    ours = [
        Section("device", "mpq_dev_l1v11", (("name", "eth1.11"),)),
        Section("interface", "mpq_l1v11", (("ipaddr", "172.16.11.2"),)),
        Section("interface", "mpq6_l1", (("ip6addr", "fd00:1::2/64"),)),
    ]
    theirs = [
        Section("device", None, (("name", "eth1.11"),)),
        Section("interface", "voice", (("ipaddr", ("192.168.9.1/24", "172.16.11.2/30")),)),
        Section("interface", "six", (("ip6addr", "FD00:1::2/64"),)),
        Section("interface", "lan", (("ipaddr", "192.168.1.1"),)),
    ]
    assert [name for name, _ in obstacles("network", [*theirs, *ours], ours)] == [
        "network.@device[0]",
        "network.voice",
        "network.six",
    ]
