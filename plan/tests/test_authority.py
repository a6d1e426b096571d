"""Whether a run may use or make a CA: never by accident, and never so that a host is cut off unasked."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic_plan.preflight.authority import (
    Action,
    Ca,
    Controller,
    Decision,
    Folder,
    Host,
    KeyState,
    Validity,
    decide,
    expiring,
)

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
YEARS = Validity(NOW - dt.timedelta(days=400), NOW + dt.timedelta(days=4000))
OURS = Ca("a" * 64, "1234567890abcdef" * 4)
THEIRS = Ca("b" * 64, "fedcba0987654321" * 4)
EMPTY = Controller(directory="pki/prod", passphrase_source="the variable mpquic_pki_passphrase", passphrase_length=40)
USABLE = dataclasses.replace(EMPTY, exists=True, certificate=OURS, validity=YEARS, key=KeyState.OPEN, opened=OURS.key)


def vps(ca: Ca | None = None, **more: Any) -> Host:
    return Host("vps1", reached=True, ca=ca, **more)


def site(ca: Ca | None = None, **more: Any) -> Host:
    return Host("site1-client", reached=True, ca=ca, **more)


ABSENT = Host("site2-client", reached=False)


def having(base: Controller = USABLE, **changes: Any) -> Controller:
    return dataclasses.replace(base, **changes)


def refused(controller: Controller, *hosts: Host, new: bool = False) -> str:
    decision = decide(controller, hosts, NOW, new=new)
    assert decision.action is Action.REFUSE
    assert "nothing was changed" in decision.message
    return decision.message


def test_a_ca_that_the_hosts_have_or_will_get_is_used() -> None:
    assert decide(USABLE, [vps(OURS), site(OURS), ABSENT], NOW, new=False) == Decision(Action.USE)
    assert decide(USABLE, [vps(OURS), site()], NOW, new=False) == Decision(Action.USE)
    assert decide(USABLE, [ABSENT], NOW, new=False) == Decision(Action.USE)


def test_a_certificate_made_anew_for_the_same_key_is_the_same_ca() -> None:
    assert decide(USABLE, [vps(Ca(OURS.key, "0" * 64))], NOW, new=False) == Decision(Action.USE)


def test_the_first_run_makes_one_when_every_host_was_reached_and_none_has_any() -> None:
    assert decide(EMPTY, [vps(), site()], NOW, new=False) == Decision(Action.MAKE)


def test_a_first_run_that_was_cut_between_key_and_certificate_goes_on_with_the_key() -> None:
    cut = having(EMPTY, exists=True, key=KeyState.OPEN, opened=OURS.key)
    assert decide(cut, [vps(), site()], NOW, new=False) == Decision(Action.MAKE, keep_key=True)


def test_a_first_run_that_misses_a_host_stops_and_says_what_to_do() -> None:
    message = refused(EMPTY, vps(), site(), ABSENT)
    assert "site2-client was not reached" in message
    assert "--limit" in message
    assert "mpquic_pki_new_ca" in message


def test_a_new_ca_with_absent_hosts_is_made_only_when_it_is_asked_for() -> None:
    assert decide(EMPTY, [vps(), ABSENT], NOW, new=True) == Decision(Action.MAKE)


def test_a_missing_folder_is_named_with_the_hosts_and_their_ca() -> None:
    message = refused(EMPTY, vps(OURS), site(OURS))
    assert "There is no folder pki/prod" in message
    assert "vps1 and site1-client have CA 12:34:56:78:90:AB:CD:EF" in message
    assert "backup" in message
    assert "checkout" in message


def test_after_a_renamed_inventory_the_folder_with_the_hosts_ca_is_named() -> None:
    elsewhere = having(EMPTY, others=(Folder("pki/mine", OURS, True), Folder("pki/lab", THEIRS, True)))
    message = refused(elsewhere, vps(OURS), site())
    assert "pki/mine has CA 12:34" in message
    assert "pki/lab" not in message
    assert "set mpquic_pki_dir to that folder" in message


def test_a_folder_without_the_key_is_no_way_out_and_it_is_said() -> None:
    elsewhere = having(EMPTY, others=(Folder("pki/mine", OURS, False),))
    assert "pki/mine has CA 12:34:56:78:90:AB:CD:EF, though not its ca.key" in refused(elsewhere, vps(OURS))


def test_other_folders_are_listed_when_none_has_the_hosts_ca() -> None:
    elsewhere = having(EMPTY, others=(Folder("pki/lab", THEIRS, True),))
    assert "pki/lab has CA FE:DC:BA" in refused(elsewhere, vps(OURS))


def test_a_certificate_without_its_key_stops_even_where_no_host_has_it() -> None:
    message = refused(having(key=KeyState.MISSING, opened=None), vps(), site())
    assert "ca.crt (CA 12:34:56:78:90:AB:CD:EF) without its key" in message
    assert "Restore pki/prod from its backup" in message


def test_another_passphrase_is_told_with_its_source_and_the_others() -> None:
    message = refused(having(key=KeyState.LOCKED, opened=None), vps(OURS))
    assert "The passphrase doesn't open the CA's key pki/prod/ca.key" in message
    assert "the variable mpquic_pki_passphrase" in message
    assert "MPQUIC_PKI_PASSPHRASE" in message


def test_a_missing_passphrase_is_told() -> None:
    locked = having(key=KeyState.NO_PASSPHRASE, opened=None, passphrase_source=None, passphrase_length=0)
    assert "there is no passphrase for it" in refused(locked, vps(OURS))
    missing = dataclasses.replace(locked, passphrase_problem="There is no file /nowhere.")
    assert "There is no file /nowhere." in refused(missing, vps(OURS))


def test_a_dry_run_may_lack_the_passphrase() -> None:
    locked = having(key=KeyState.NO_PASSPHRASE, opened=None, passphrase_source=None, passphrase_length=0)
    assert decide(locked, [vps(OURS)], NOW, new=False, dry=True).action is Action.USE
    bare = having(EMPTY, passphrase_source=None, passphrase_length=0)
    assert decide(bare, [vps()], NOW, new=False, dry=True).action is Action.MAKE
    assert "needs a passphrase" in refused(bare, vps())


def test_a_key_of_another_certificate_is_not_used() -> None:
    assert "isn't the key of" in refused(having(opened=THEIRS.key), vps(OURS))


def test_files_that_are_no_key_and_no_certificate_are_named() -> None:
    assert "openssl pkey" in refused(having(key=KeyState.UNUSABLE, opened=None), vps(OURS))
    broken = having(certificate=None, certificate_problem="holds no PEM certificate")
    assert "pki/prod/ca.crt holds no PEM certificate" in refused(broken, vps())


def test_a_lost_certificate_is_restored_from_a_host_that_has_it() -> None:
    lost = having(certificate=None, validity=None)
    assert decide(lost, [vps(), site(OURS)], NOW, new=False) == Decision(Action.RESTORE, source="site1-client")
    assert decide(lost, [vps(THEIRS), site(OURS)], NOW, new=True) == Decision(Action.RESTORE, source="site1-client")
    message = refused(lost, vps(THEIRS), site(OURS))
    assert "ca.key without its certificate" in message


def test_a_host_with_another_ca_is_named_and_stops_the_run() -> None:
    message = refused(USABLE, vps(OURS), site(THEIRS))
    assert "site1-client has CA FE:DC:BA:09:87:65:43:21" in message
    assert "vps1 has the controller's" in message
    assert "remove /etc/mpquic/pki" in message
    unreadable = refused(USABLE, vps(OURS), site(ca_unreadable=True))
    assert "site1-client has an /etc/mpquic/pki/ca.crt that can't be read" in unreadable


def test_a_host_with_another_ca_gets_ours_when_that_is_asked_for() -> None:
    assert decide(USABLE, [vps(OURS), site(THEIRS)], NOW, new=True) == Decision(Action.USE)


def test_the_variable_has_no_effect_on_a_ca_that_serves() -> None:
    assert decide(USABLE, [vps(OURS), site(OURS)], NOW, new=True) == Decision(Action.USE)


@pytest.mark.parametrize(
    "controller",
    [
        having(key=KeyState.MISSING, opened=None),
        having(key=KeyState.LOCKED, opened=None),
        having(opened=THEIRS.key),
        having(validity=Validity(NOW - dt.timedelta(days=9), NOW)),
    ],
    ids=["no key", "another passphrase", "another key", "ended"],
)
def test_the_variable_replaces_a_ca_that_does_not_serve(controller: Controller) -> None:
    assert decide(controller, [vps(OURS), site(OURS)], NOW, new=True) == Decision(Action.MAKE)


@pytest.mark.parametrize(("length", "action"), [(11, Action.REFUSE), (12, Action.MAKE)])
def test_the_passphrase_of_a_new_ca_has_a_least_length(length: int, action: Action) -> None:
    decision = decide(having(EMPTY, passphrase_length=length), [vps()], NOW, new=False)
    assert decision.action is action
    assert (action is Action.MAKE) == (decision.message == "")
    assert action is Action.MAKE or "has 11 characters and needs at least 12" in decision.message


def test_a_short_passphrase_still_opens_an_old_ca() -> None:
    assert decide(having(passphrase_length=4), [vps(OURS)], NOW, new=False).action is Action.USE


def test_a_ca_outside_of_its_dates_is_told_with_both_times() -> None:
    early = refused(having(validity=Validity(NOW + dt.timedelta(days=1), NOW + dt.timedelta(days=9))), vps(OURS))
    assert "is not valid yet" in early
    assert "2026-03-02 12:00 UTC" in early
    assert "clock says 2026-03-01 12:00 UTC" in early
    assert "has ended" in refused(having(validity=Validity(NOW - dt.timedelta(days=9), NOW)), vps(OURS))


def test_links_in_the_folder_are_named() -> None:
    assert "pki/prod/ca.key is a symbolic link" in refused(having(links=("pki/prod/ca.key",)), vps(OURS))


def test_a_certificate_is_warned_of_from_thirty_days_before_its_end() -> None:
    def warning(days: float) -> str | None:
        return expiring("site1", NOW + dt.timedelta(days=days), NOW, "run site.yml for it")

    assert warning(30) is None
    assert warning(29.5) == "The certificate of site1 ends on 2026-03-31, in 29 days: run site.yml for it."
    assert warning(-1) == "The certificate of site1 has ended on 2026-02-28: run site.yml for it."


CAS = st.sampled_from([None, OURS, THEIRS])
HOSTS = st.lists(
    st.builds(
        lambda name, reached, ca, unreadable: Host(
            name, reached, ca if reached else None, reached and ca is None and unreadable
        ),
        st.text("abc", min_size=1, max_size=3),
        st.booleans(),
        CAS,
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
CONTROLLERS = st.builds(
    Controller,
    directory=st.just("pki/prod"),
    exists=st.booleans(),
    certificate=CAS,
    certificate_problem=st.sampled_from([None, "can't be read"]),
    validity=st.sampled_from([YEARS, Validity(NOW - dt.timedelta(days=9), NOW)]),
    key=st.sampled_from(KeyState),
    opened=st.sampled_from([OURS.key, THEIRS.key]),
    passphrase_source=st.sampled_from([None, "the variable"]),
    passphrase_length=st.integers(0, 20),
    others=st.lists(st.builds(Folder, st.just("pki/x"), st.sampled_from([OURS, THEIRS]), st.booleans())).map(tuple),
)


@given(CONTROLLERS, HOSTS, st.booleans(), st.booleans())
def test_no_ca_is_made_or_replaced_unasked(controller: Controller, hosts: list[Host], new: bool, dry: bool) -> None:
    decision = decide(controller, hosts, NOW, new=new, dry=dry)
    assert (decision.action is Action.REFUSE) == bool(decision.message)
    if decision.action is Action.MAKE and not new:
        assert all(host.reached and host.ca is None and not host.ca_unreadable for host in hosts)
        assert controller.certificate is None
    if decision.action is Action.USE and not new:
        assert controller.certificate is not None
        assert all(host.ca is None or host.ca.key == controller.certificate.key for host in hosts)
    if decision.action in (Action.USE, Action.RESTORE) and not dry:
        assert controller.key is KeyState.OPEN
