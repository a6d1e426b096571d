from __future__ import annotations

import ipaddress
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from mpquic.proto.control.groups import (
    MAX_PATHS_PER_GROUP,
    REORDERING,
    GroupTable,
    Registration,
    RegistrationRefusedError,
)
from mpquic.proto.control.messages import RefuseCode
from mpquic.proto.control.peers import PeerRule, PeerTable
from mpquic.proto.control.prefix import parse_prefix

SITE1 = Registration(
    "urn:mpquic:site:site1", "mpq5", "wan5", b"a" * 16, 1, (parse_prefix("10.200.5.1"), parse_prefix("fd00::/64"))
)
OWN = ipaddress.ip_address("10.200.5.1").packed


def table() -> GroupTable[str]:
    numbers = itertools.count()
    return GroupTable(lambda size: next(numbers).to_bytes(size, "big"))


def test_addresses_of_a_registration_lead_to_its_group_until_it_ends() -> None:
    groups = table()
    joined = groups.register(SITE1, "c1", 0.0)
    assert joined.new_session
    assert groups.owner_of(OWN) is joined.group
    assert groups.owner_of(ipaddress.ip_address("fd00::99").packed) is joined.group
    assert groups.owner_of(ipaddress.ip_address("10.200.5.2").packed) is None
    assert groups.remove("c1") is joined.group
    assert groups.owner_of(OWN) is None
    assert (len(groups), groups.connection_count, len(groups._prefixes)) == (0, 0, 0)


def test_a_newer_epoch_replaces_and_the_session_goes_on() -> None:
    groups = table()
    first = groups.register(SITE1, "c1", 0.0)
    second = groups.register(replace(SITE1, epoch=2), "c2", 1.0)
    assert second.replaced == ("c1",)
    assert not second.new_session
    assert second.group is first.group
    assert groups.remove("c1") is None
    assert groups.owner_of(OWN) is first.group


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_older_or_equal_epoch_is_refused_and_changes_nothing(epoch: int) -> None:
    groups = table()
    group = groups.register(SITE1, "c1", 0.0).group
    with pytest.raises(RegistrationRefusedError) as caught:
        groups.register(replace(SITE1, epoch=epoch), "c2", 1.0)
    assert caught.value.code is RefuseCode.STALE
    assert group.connections == ["c1"]
    assert groups.group_of("c2") is None


def test_another_boot_replaces_all_paths_with_a_new_session_whatever_its_epoch() -> None:
    groups = table()
    first = groups.register(replace(SITE1, epoch=9), "c1", 0.0)
    groups.register(replace(SITE1, path="wan6", epoch=9), "c2", 0.0)
    other = replace(SITE1, boot_id=b"b" * 16, epoch=1)
    assert groups.contested(other, 1.0) is first.group
    with pytest.raises(RegistrationRefusedError) as caught:
        groups.register(other, "c3", 1.0)
    assert caught.value.code is RefuseCode.IN_USE
    assert groups.connection_count == 2
    second = groups.register(other, "c3", 1.0, takeover=True)
    assert set(second.replaced) == {"c1", "c2"}
    assert second.new_session
    assert second.group.session != first.group.session
    assert groups.connection_count == 1
    assert groups.get(SITE1.identity, SITE1.tunnel) is second.group


@pytest.mark.parametrize("epoch", [1, 4, 9])
def test_a_machine_that_was_set_back_competes_with_what_it_was(epoch: int) -> None:
    """It has the boot id of its own future, and epochs that are used up."""
    groups = table()
    first = groups.register(replace(SITE1, epoch=9), "c1", 0.0)
    reverted = replace(SITE1, epoch=epoch)
    with pytest.raises(RegistrationRefusedError) as caught:
        groups.contested(reverted, REORDERING - 0.1)
    assert caught.value.code is RefuseCode.STALE
    assert groups.contested(reverted, REORDERING) is first.group
    second = groups.register(reverted, "c2", REORDERING, takeover=True)
    assert (second.new_session, second.replaced) == (True, ("c1",))
    assert groups.contested(replace(SITE1, epoch=epoch + 1), REORDERING) is None


def test_another_path_joins_the_group() -> None:
    groups = table()
    first = groups.register(SITE1, "c1", 0.0)
    second = groups.register(replace(SITE1, path="wan6"), "c2", 0.0)
    assert second.group is first.group
    assert second.replaced == ()
    groups.remove("c1")
    assert groups.owner_of(OWN) is first.group


@pytest.mark.parametrize("claimed", ["10.200.5.1", "10.200.0.0/16", "fd00::1", "fd00::/48"])
def test_a_prefix_of_another_group_cannot_be_taken_even_in_part(claimed: str) -> None:
    groups = table()
    owner = groups.register(SITE1, "c1", 0.0).group
    thief = Registration("urn:mpquic:site:site2", "mpq5", "wan5", b"z" * 16, 1, (parse_prefix(claimed),))
    with pytest.raises(RegistrationRefusedError) as caught:
        groups.register(thief, "c2", 0.0)
    assert caught.value.code is RefuseCode.CONFLICT
    assert groups.owner_of(OWN) is owner
    assert len(groups) == 1


def test_one_connection_registers_once() -> None:
    groups = table()
    groups.register(SITE1, "c1", 0.0)
    with pytest.raises(RegistrationRefusedError, match="already"):
        groups.register(replace(SITE1, epoch=2), "c1", 0.0)


def test_the_number_of_paths_is_bounded() -> None:
    groups = table()
    for number in range(MAX_PATHS_PER_GROUP):
        groups.register(replace(SITE1, path=f"wan{number}"), f"c{number}", 0.0)
    with pytest.raises(RegistrationRefusedError, match="paths"):
        groups.register(replace(SITE1, path="one-more"), "c99", 0.0)


def test_revocation_closes_what_is_open() -> None:
    groups = table()
    groups.register(SITE1, "c1", 0.0)
    groups.register(replace(SITE1, path="wan6"), "c2", 0.0)
    other = Registration("urn:mpquic:site:site2", "mpq5", "wan5", b"z" * 16, 1, (parse_prefix("10.200.5.5"),))
    groups.register(other, "c3", 0.0)
    assert groups.revoke(lambda registration: registration.identity == SITE1.identity) == ["c1", "c2"]
    assert [group.identity for group in groups] == [other.identity]


def test_a_thousand_reconnects_leave_nothing_behind() -> None:
    groups = table()
    for epoch in range(1000):
        groups.register(replace(SITE1, epoch=epoch), f"c{epoch}", 0.0)
    assert (len(groups), groups.connection_count, len(groups._prefixes)) == (1, 1, 2)


class GroupsMachine(RuleBasedStateMachine):
    """Whatever happens, the three indexes agree and a replaced or removed connection is in none."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = table()
        self.live: set[int] = set()
        self.handles = itertools.count()
        self.table: GroupTable[int] = GroupTable(lambda size: bytes(size))

    @rule(
        site=st.integers(1, 3),
        path=st.integers(1, 2),
        boot=st.integers(1, 2),
        epoch=st.integers(1, 5),
        extra=st.booleans(),
        takeover=st.booleans(),
    )
    def register(self, site: int, path: int, boot: int, epoch: int, extra: bool, takeover: bool) -> None:
        prefixes = [parse_prefix(f"10.0.0.{site}")] + ([parse_prefix("10.9.0.0/24")] if extra else [])
        registration = Registration(f"site{site}", "t", f"wan{path}", bytes([boot] * 16), epoch, tuple(prefixes))
        handle = next(self.handles)
        try:
            joined = self.table.register(registration, handle, 0.0, takeover=takeover)
        except RegistrationRefusedError:
            return
        assert set(joined.replaced) <= self.live
        self.live -= set(joined.replaced)
        self.live.add(handle)

    @rule(pick=st.integers(0, 99))
    def remove(self, pick: int) -> None:
        if self.live:
            handle = sorted(self.live)[pick % len(self.live)]
            assert self.table.remove(handle) is not None
            self.live.remove(handle)

    @invariant()
    def indexes_agree(self) -> None:
        held = [handle for group in self.table for handle in group.connections]
        assert sorted(held) == sorted(self.live)
        assert self.table.connection_count == len(self.live)
        for handle in self.live:
            group = self.table.group_of(handle)
            assert group is not None
            assert handle in group.connections
        owned = dict(self.table._prefixes.items())
        assert owned == {prefix: group for group in self.table for prefix in group.prefixes}
        assert all(group.members for group in self.table)


TestGroupsMachine = GroupsMachine.TestCase


RULE = PeerRule("urn:mpquic:site:site1", "mpq5", (parse_prefix("10.200.5.1"), parse_prefix("192.168.0.0/16")))


@given(st.sampled_from(["10.200.5.1", "10.200.5.1/32", "192.168.7.0/24", "192.168.0.0/16"]))
def test_a_client_may_use_what_lies_in_its_prefixes(claimed: str) -> None:
    rule, prefixes = PeerTable([RULE]).authorize(RULE.identity, "mpq5", [claimed, claimed])
    assert rule is RULE
    assert prefixes == (parse_prefix(claimed),)
    assert PeerTable([RULE]).still_permits(RULE.identity, "mpq5", prefixes)


@pytest.mark.parametrize(
    ("identity", "tunnel", "claimed", "code"),
    [
        (RULE.identity, "mpq5", "10.200.5.2", RefuseCode.AUTHORIZATION),
        (RULE.identity, "mpq5", "192.0.0.0/8", RefuseCode.AUTHORIZATION),
        (RULE.identity, "mpq5", "0.0.0.0/0", RefuseCode.AUTHORIZATION),
        (RULE.identity, "mpq5", "fd00::1", RefuseCode.AUTHORIZATION),
        (RULE.identity, "mpq6", "10.200.5.1", RefuseCode.AUTHORIZATION),
        ("urn:mpquic:site:site2", "mpq5", "10.200.5.1", RefuseCode.AUTHORIZATION),
        (RULE.identity, "mpq5", "no address", RefuseCode.PROTOCOL),
        (RULE.identity, "mpq5", "192.168.7.1/24", RefuseCode.PROTOCOL),
    ],
)
def test_what_is_not_its_own_is_refused(identity: str, tunnel: str, claimed: str, code: RefuseCode) -> None:
    with pytest.raises(RegistrationRefusedError) as caught:
        PeerTable([RULE]).authorize(identity, tunnel, [claimed])
    assert caught.value.code is code


def test_a_narrowed_rule_no_longer_permits_an_old_registration() -> None:
    narrowed = PeerTable([replace(RULE, allowed=RULE.allowed[:1])])
    assert not narrowed.still_permits(RULE.identity, "mpq5", [parse_prefix("192.168.7.0/24")])
    assert not PeerTable([]).still_permits(RULE.identity, "mpq5", [])


def test_two_rules_for_one_tunnel_are_an_error() -> None:
    with pytest.raises(ValueError, match="two rules"):
        PeerTable([RULE, RULE])
