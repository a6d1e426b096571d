"""Revoked servers, certificates outside of their dates, and warnings before their end."""

from __future__ import annotations

import datetime as dt
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from mpquic.config import load
from mpquic.daemon import expiry, registry, server_chain
from mpquic.daemon.credentials import Dates
from mpquic.daemon.journal import Journal
from mpquic.daemon.service import Service
from mpquic.proto.control.validity import Validity, shown
from mpquic.release import RELEASE

from .conftest import DAY, IDENTITY, SERVER_NAME, Site
from .virtual import Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def start(site: Site) -> Iterator[Callable[..., Ends]]:
    """Starts a client and a server in virtual time, and ends them after the test."""
    made: list[Ends] = []

    def make(**settings: object) -> Ends:
        made.append(Ends(site, transport="quic", probes=False, **settings))
        return made[-1]

    yield make
    for both in made:
        both.close()


def serial_of(site: Site, name: str) -> int:
    return x509.load_pem_x509_certificate((site.directory / f"{name}.crt").read_bytes()).serial_number


def client_tls(site: Site, revoked: Path) -> dict[str, str]:
    files = {key: str(site.directory / f"client.{end}") for key, end in (("cert_file", "crt"), ("key_file", "key"))}
    return {**files, "ca_file": str(site.ca.file), "server_name": SERVER_NAME, "revoked_file": str(revoked)}


def new_server(site: Site, *, age: dt.timedelta = DAY, life: dt.timedelta = 10 * DAY) -> None:
    site.ca.issue("server", x509.DNSName(SERVER_NAME), ExtendedKeyUsageOID.SERVER_AUTH, age=age, life=life)


def reload(both: Ends) -> None:
    """Have client and server read their files again."""
    for name, role in (("sv", both.server), ("cl", both.client)):
        both.processes[name].call(lambda role=role: role.apply(role._config))


def colons(serial: int) -> str:
    """Return a serial number as OpenSSL prints it in the text of a certificate."""
    digits = f"{serial:X}".zfill(len(f"{serial:X}") + len(f"{serial:X}") % 2)
    return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2))


@pytest.mark.parametrize("written", [lambda serial: f"{serial:x}", lambda serial: f"{serial:X}", colons])
def test_a_client_refuses_a_server_whose_certificate_is_revoked(
    site: Site, start: Callable[..., Ends], written: Callable[[int], str]
) -> None:
    revoked = site.directory / "revoked"
    revoked.write_text(f"# withdrawn\n{written(serial_of(site, 'server'))}\n")
    both = start(tls=client_tls(site, revoked))
    both.run(5.0)
    assert both.state == "down"
    serial = f"{serial_of(site, 'server'):x}"
    assert both.client.status()["error"] == f"the server's certificate {serial} is revoked: run site.yml for the VPS"
    assert both.server.counters()["registrations"] == 0


def test_a_connection_ends_when_a_certificate_of_its_server_ends(
    site: Site, start: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = x509.load_pem_x509_certificate((site.directory / "server.crt").read_bytes()).not_valid_after_utc
    both = start()
    both.wait(lambda: both.state == "up", 5.0, "up")
    today = end
    clock = SimpleNamespace(UTC=dt.UTC, datetime=SimpleNamespace(now=lambda _zone: today))
    monkeypatch.setattr(server_chain, "dt", clock)
    both.run(70.0)
    assert (both.state, both.client.status()["reconnects"]) == ("up", 0)
    today = end + dt.timedelta(seconds=1)
    seen: list[str] = []
    both.wait(lambda: seen.append(str(both.client.status()["error"])) or "has ended" in seen[-1], 70.0, "the end")
    assert f"the server's certificate has ended at {shown(end)}" in seen[-1]


def test_a_connection_ends_when_its_servers_certificate_is_revoked_by_a_reload(
    site: Site, start: Callable[..., Ends]
) -> None:
    revoked = site.directory / "revoked"
    revoked.write_text("")
    both = start(tls=client_tls(site, revoked))
    both.wait(lambda: both.state == "up", 5.0, "up")
    revoked.write_text("0a\n")
    reload(both)
    both.run(3.0)
    assert both.state == "up"
    assert both.client.status()["reconnects"] == 0
    revoked.write_text(f"{serial_of(site, 'server'):x}\n")
    reload(both)
    both.run(0.1)
    assert both.state == "down"
    assert "is revoked" in str(both.client.status()["error"])
    both.run(20.0)
    assert both.state == "down"
    new_server(site)
    reload(both)
    both.wait(lambda: both.state == "up", 10.0, "up with another certificate")


def server_tls(site: Site, revoked: Path) -> dict[str, str]:
    files = {key: str(site.directory / f"server.{end}") for key, end in (("cert_file", "crt"), ("key_file", "key"))}
    return {**files, "ca_file": str(site.ca.file), "revoked_file": str(revoked)}


def left(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why clients have left, as the server's journal says it."""
    return [fields(record)["reason"] for record in caplog.records if record.message == "client.gone"]


@pytest.mark.parametrize("transport", ["quic", "stripe"])
def test_a_server_ends_a_connection_when_a_certificate_of_its_client_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    end = x509.load_pem_x509_certificate((site.directory / "client.crt").read_bytes()).not_valid_after_utc
    both = Ends(site, transport=transport, probes=False)
    try:
        both.wait(lambda: both.state == "up", 5.0, "up")
        today = end - dt.timedelta(seconds=1)
        clock = SimpleNamespace(UTC=dt.UTC, datetime=SimpleNamespace(now=lambda _zone: today))
        monkeypatch.setattr(registry, "dt", clock)
        with caplog.at_level(logging.INFO, "mpquic"):
            both.run(70.0)
            assert left(caplog) == []
            today = end
            both.wait(lambda: left(caplog), 70.0, "the end")
        assert left(caplog) == ["certificate expired"]
    finally:
        both.close()


@pytest.mark.parametrize("transport", ["quic", "stripe"])
def test_a_server_ends_a_connection_when_the_certificate_of_its_client_is_revoked_by_a_reload(
    site: Site, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    revoked = site.directory / "revoked"
    revoked.write_text("")
    both = Ends(site, transport=transport, probes=False, server={"tls": server_tls(site, revoked)})
    try:
        both.wait(lambda: both.state == "up", 5.0, "up")
        with caplog.at_level(logging.INFO, "mpquic"):
            revoked.write_text("0a\n")
            reload(both)
            both.run(3.0)
            assert (left(caplog), both.state) == ([], "up")
            revoked.write_text(f"{serial_of(site, 'client'):x}\n")
            reload(both)
            both.run(0.5)
        assert left(caplog) == ["certificate revoked"]
        both.run(20.0)
        assert both.state == "down"
        assert both.server.counters()["tables"]["stripe_sessions"] == 0  # type: ignore[index]
    finally:
        both.close()


@pytest.mark.parametrize(
    ("times", "says"),
    [({"age": -400 * DAY, "life": 800 * DAY}, "isn't valid before 20"), ({"age": 20 * DAY}, "has ended at 20")],
    ids=["not yet", "not any more"],
)
def test_a_client_tells_both_times_of_a_server_outside_of_its_dates_and_heals_by_itself(
    site: Site, start: Callable[..., Ends], times: dict[str, dt.timedelta], says: str
) -> None:
    new_server(site, **times)
    both = start()
    both.run(5.0)
    error = str(both.client.status()["error"])
    assert f"the server's certificate {says}" in error
    assert f"the clock of this machine says {dt.datetime.now(dt.UTC):%Y-%m-%d}" in error
    assert "clock is wrong" in error
    new_server(site)
    reload(both)
    both.wait(lambda: both.state == "up", 10.0, "up")


def test_a_server_logs_both_times_of_a_client_outside_of_its_dates(
    site: Site, start: Callable[..., Ends], caplog: pytest.LogCaptureFixture
) -> None:
    site.ca.client("client", age=-400 * DAY, life=800 * DAY)
    both = start()
    with caplog.at_level(logging.WARNING, "mpquic"):
        both.run(5.0)
    assert both.state == "down"
    (record, *_) = [record for record in caplog.records if record.message == "client.refused"]
    assert "the client's certificate isn't valid before" in fields(record)["reason"]
    assert "and the clock of this machine says" in fields(record)["reason"]
    site.ca.client("client")
    reload(both)
    both.wait(lambda: both.state == "up", 10.0, "up")


def fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = record.__dict__["fields"]
    return found


def test_both_ends_show_their_certificate_and_that_of_the_peer(site: Site, start: Callable[..., Ends]) -> None:
    both = start()
    both.wait(lambda: both.state == "up", 5.0, "up")
    assert [peer["release"] for peer in both.server.status()["peers"]] == [RELEASE]
    for role, own, peer in ((both.client, "client", "server"), (both.server, "server", "client")):
        shown: Any = role.status()["certificate"]
        assert shown.keys() == {"serial", "not_after", "days_left", "ca_not_after"}
        assert shown["serial"] == f"{serial_of(site, own):x}"
        assert shown["days_left"] == 8
        assert shown["not_after"].endswith("Z")
        (path,) = role.paths()
        assert (path["release"], path["peer_release"]) == (RELEASE, RELEASE)
        assert path["peer_certificate"] == {
            "serial": f"{serial_of(site, peer):x}",
            "not_after": path["peer_certificate"]["not_after"],
        }


def test_the_certificate_of_a_peer_that_ends_soon_is_warned_of_once_a_day(
    start: Callable[..., Ends], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mpquic"):
        both = start()
        both.wait(lambda: both.state == "up", 5.0, "up")
        both.processes["cl"].call(lambda: both.client.reconnect(silent=False))
        both.wait(lambda: both.client.status()["reconnects"] == 1, 5.0, "up again")
    warned = [fields(record) for record in caplog.records if record.message == "certificate.expiring"]
    assert sorted(found["peer"] for found in warned) == ["10.77.2.2:45009", IDENTITY]
    assert {found["which"] for found in warned} == {"peer"}
    assert {found["days_left"] for found in warned} == {8}


def dates(own: float, ca: float = 4000) -> Dates:
    """Return dates that end in so many days."""
    return Dates(*(Validity(7, NOW - 900 * DAY, NOW + days * DAY) for days in (own, ca)))


@pytest.mark.parametrize(
    ("found", "events"),
    [
        (dates(30), []),
        (dates(29.5), [("certificate.expiring", "own")]),
        (dates(300, 3), [("certificate.expiring", "ca")]),
        (dates(-1, 3), [("certificate.invalid", "own"), ("certificate.expiring", "ca")]),
    ],
)
def test_a_process_warns_of_its_own_certificate_and_ca_from_thirty_days_before(
    found: Dates, events: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mpquic"):
        expiry.warn(found, Journal(logging.getLogger("mpquic")), NOW)
    assert [(record.message, fields(record)["which"]) for record in caplog.records] == events


def test_the_dates_are_looked_at_when_it_starts_and_each_day(caplog: pytest.LogCaptureFixture) -> None:
    """The process around a role, with a loop that only remembers what it is to call."""
    calls: list[tuple[float, Callable[[], None]]] = []
    service: Any = SimpleNamespace(
        _role=SimpleNamespace(dates=dates(-5)),
        _journal=Journal(logging.getLogger("mpquic")),
        _loop=SimpleNamespace(call_later=lambda delay, call: calls.append((delay, call))),
        _date_check=None,
    )
    service._check_dates = lambda: Service._check_dates(service)
    with caplog.at_level(logging.WARNING, "mpquic"):
        service._check_dates()
        calls.pop()[1]()
    assert [record.message for record in caplog.records] == ["certificate.invalid"] * 2
    assert [delay for delay, _ in calls] == [86400.0]


def test_the_list_of_revoked_certificates_needs_no_restart(site: Site) -> None:
    from mpquic.config.reload import compare

    old = load(site.client_config())
    new = msgspec.structs.replace(old, tls=msgspec.structs.replace(old.tls, revoked_file="/etc/mpquic/pki/revoked"))
    assert compare(old, new).restart == ()
