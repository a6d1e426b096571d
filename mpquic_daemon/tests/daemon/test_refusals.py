"""Whose certificate is wrong, and why: told at the client, and at the server of whom it knows."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from mpquic.daemon import credentials
from mpquic.daemon.credentials import CredentialsError
from mpquic.proto.control.handshake import Rejected

from .conftest import DAY, IDENTITY, SERVER_NAME, Authority, Site
from .test_certificates import client_tls, fields, reload, serial_of, site, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .virtual import Ends

    Start = Callable[..., Ends]

__all__ = ["site", "start"]

REFUSED = "authentication: client not authenticated: "


def error_of(both: Ends) -> str:
    both.run(5.0)
    assert both.state == "down"
    return str(both.client.status()["error"])


# The client's own


def outside_of_its_dates(site: Site) -> str:
    site.ca.client("client", age=20 * DAY)
    return f"this machine's certificate {site.directory}/client.crt has ended at 20"


def not_valid_yet(site: Site) -> str:
    site.ca.client("client", age=-2 * DAY)
    return f"this machine's certificate {site.directory}/client.crt isn't valid before 20"


def of_another_ca(site: Site) -> str:
    Authority(site.directory, "other").client("client")
    return (
        f"this machine's certificate {site.directory}/client.crt is of another CA (CN=test other) than {site.ca.file}"
    )


def of_a_server(site: Site) -> str:
    site.ca.server("client")
    return f"this machine's certificate {site.directory}/client.crt isn't for clients"


@pytest.mark.parametrize("fault", [outside_of_its_dates, not_valid_yet, of_another_ca, of_a_server])
def test_a_client_that_is_refused_names_the_fault_of_its_own_certificate(
    site: Site, start: Start, fault: Callable[[Site], str]
) -> None:
    says = fault(site)
    both = start()
    error = error_of(both)
    assert error.startswith(REFUSED + says)
    assert "site.yml" in error or "clock" in error
    site.ca.client("client")
    reload(both)
    both.wait(lambda: both.state == "up", 10.0, "up")
    assert both.client.status()["error"] is None


def test_a_client_that_its_own_list_names_says_so(site: Site, start: Start) -> None:
    revoked = site.directory / "revoked"
    revoked.write_text(f"{serial_of(site, 'client'):x}\n")
    tls = {**site_tls(site), "revoked_file": str(revoked)}
    error = error_of(start(server={"tls": tls}, tls=client_tls(site, revoked)))
    assert "is on this machine's own list of revoked certificates: delete it and " in error
    assert error.endswith("run site.yml for this host")


def test_a_client_in_which_nothing_is_wrong_sends_to_the_journal_of_the_vps(site: Site, start: Start) -> None:
    revoked = site.directory / "revoked"
    revoked.write_text(f"{serial_of(site, 'client'):x}\n")
    error = error_of(start(server={"tls": {**site_tls(site), "revoked_file": str(revoked)}}))
    assert f"client.crt, serial {serial_of(site, 'client'):x}, valid until 20" in error
    assert "the journal of the VPS says why" in error


def site_tls(site: Site) -> dict[str, str]:
    files = {key: str(site.directory / f"server.{end}") for key, end in (("cert_file", "crt"), ("key_file", "key"))}
    return {**files, "ca_file": str(site.ca.file)}


def test_files_that_no_longer_fit_each_other_are_named(site: Site) -> None:
    from mpquic.config import load

    config: Any = load(site.client_config())
    key = (site.directory / "client.key").read_bytes()
    site.ca.client("client")
    (site.directory / "client.key").write_bytes(key)
    problem = credentials.own_problem(config.tls, dt.datetime.now(dt.UTC))
    assert "can't be used together" in problem
    assert problem.endswith("run site.yml for this host")
    with pytest.raises(CredentialsError):
        credentials.load_client(config.tls)
    (site.directory / "client.crt").unlink()
    assert "No such file" in credentials.own_problem(config.tls, dt.datetime.now(dt.UTC))


# The server's


def server_of_another_ca(site: Site) -> str:
    Authority(site.directory, "other").server("server")
    return "the server's certificate is of another CA (CN=test other) than this machine's"


def server_of_another_name(site: Site) -> str:
    site.ca.issue("server", x509.DNSName("vps2.example.net"), ExtendedKeyUsageOID.SERVER_AUTH)
    return f"the server's certificate is for vps2.example.net, and {SERVER_NAME} was expected"


def server_for_clients(site: Site) -> str:
    site.ca.issue("server", x509.DNSName(SERVER_NAME), ExtendedKeyUsageOID.CLIENT_AUTH)
    return "the server's certificate isn't for servers"


def server_outside_of_its_dates(site: Site) -> str:
    site.ca.issue("server", x509.DNSName(SERVER_NAME), ExtendedKeyUsageOID.SERVER_AUTH, age=20 * DAY)
    return "the server's certificate has ended at 20"


@pytest.mark.parametrize(
    "fault", [server_of_another_ca, server_of_another_name, server_for_clients, server_outside_of_its_dates]
)
def test_a_client_says_what_is_wrong_with_the_certificate_of_the_server(
    site: Site, start: Start, fault: Callable[[Site], str]
) -> None:
    says = fault(site)
    error = error_of(start())
    assert error.startswith(says)
    assert "site.yml" in error


# At the server


def refusals(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [fields(record) for record in caplog.records if record.message == "client.refused"]


def revoked_at_the_server(site: Site) -> dict[str, object]:
    (site.directory / "revoked").write_text(f"{serial_of(site, 'client'):x}\n")
    return {"server": {"tls": {**site_tls(site), "revoked_file": str(site.directory / "revoked")}}}


def ended(site: Site) -> dict[str, object]:
    outside_of_its_dates(site)
    return {}


@pytest.mark.parametrize(("fault", "reason"), [(revoked_at_the_server, "is revoked"), (ended, "has ended at")])
def test_a_server_names_the_client_that_it_refuses(
    site: Site,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Site], dict[str, object]],
    reason: str,
) -> None:
    with caplog.at_level(logging.WARNING, "mpquic"):
        both = start(**fault(site))
        both.run(5.0)
    (line, *_) = refusals(caplog)
    assert (line["identity"], line["tunnel"]) == (IDENTITY, "mpq9")
    assert reason in line["reason"]
    peers: Any = both.server.status()["peers"]
    assert peers[0]["state"] == "never"
    assert peers[0]["error"].startswith("refused at 20")
    assert reason in peers[0]["error"]


def test_whoever_only_claims_to_be_a_client_is_named_as_such_and_changes_no_row(
    site: Site, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    of_another_ca(site)
    with caplog.at_level(logging.WARNING, "mpquic"):
        both = start()
        both.run(5.0)
    (line, *_) = refusals(caplog)
    assert line["claims"] == IDENTITY
    assert "identity" not in line
    assert json.loads(json.dumps(both.server.status()["peers"]))[0]["error"] is None


def test_a_client_that_names_tunnel_after_tunnel_makes_one_line(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    both = start()
    both.run(5.0)
    now = both.processes["sv"].loop.time()
    with caplog.at_level(logging.WARNING, "mpquic"):
        for tunnel in ("mpq9", *(f"x{number}" for number in range(100))):
            rejected = Rejected("not_allowed", "no", None, IDENTITY, None, tunnel)
            both.server._registry.refused("203.0.113.7:1", rejected, now)
    assert [line["tunnel"] for line in refusals(caplog)] == ["mpq9", "x0"]


def test_a_certificate_without_its_key_proves_nobody(
    site: Site, start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody shows the certificate of a client, which goes over the wire, and signs with a key of his own."""
    revoked: Path = site.directory / "revoked"
    revoked.write_text(f"{serial_of(site, 'client'):x}\n")
    key = Authority(site.directory, "other").key
    load = credentials.load_client

    def steal(tls: Any) -> Any:
        identity = load(tls)
        object.__setattr__(identity.credentials, "key", key)
        return identity

    monkeypatch.setattr(credentials, "load_client", steal)
    with caplog.at_level(logging.WARNING, "mpquic"):
        both = start(server={"tls": {**site_tls(site), "revoked_file": str(revoked)}})
        both.run(5.0)
    (line, *_) = refusals(caplog)
    assert (line["claims"], "identity" in line) == (IDENTITY, False)
    peers: Any = both.server.status()["peers"]
    assert peers[0]["error"] is None
