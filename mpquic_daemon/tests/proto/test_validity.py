"""What is said of a certificate's dates."""

from __future__ import annotations

import datetime as dt

import pytest
from mpquic.proto.control.identity import ChainVerifier, IdentityError
from mpquic.proto.control.validity import Validity

from .pki import CA, CLIENT_AUTH, NOW, SITE1, issue, uri

DAY = dt.timedelta(days=1)
VALIDITY = Validity(7, dt.datetime(2026, 3, 1, tzinfo=dt.UTC), dt.datetime(2028, 6, 1, 12, 30, tzinfo=dt.UTC))


def test_a_certificate_that_counts_is_no_problem() -> None:
    assert VALIDITY.problem("the certificate", VALIDITY.not_before) is None
    assert VALIDITY.problem("the certificate", VALIDITY.not_after) is None


def test_one_that_is_not_valid_yet_is_told_with_both_times_and_the_clock_as_the_cause() -> None:
    assert VALIDITY.problem("the server's certificate", VALIDITY.not_before - 400 * DAY) == (
        "the server's certificate isn't valid before 2026-03-01T00:00:00Z, and the clock of this machine says "
        "2025-01-25T00:00:00Z: a clock is wrong, this machine's or that of the controller when it was issued"
    )


def test_one_that_has_ended_is_told_with_both_times_and_what_to_do() -> None:
    assert VALIDITY.problem("the certificate", VALIDITY.not_after + DAY) == (
        "the certificate has ended at 2028-06-01T12:30:00Z, and the clock of this machine says 2028-06-02T12:30:00Z: "
        "it wasn't renewed (run site.yml), or this machine's clock is wrong"
    )


@pytest.mark.parametrize(("days", "soon"), [(30, False), (29.9, True), (0.5, True), (-3, True)])
def test_the_end_is_near_from_thirty_days_before(days: float, soon: bool) -> None:
    assert VALIDITY.ends_soon(VALIDITY.not_after - days * DAY) is soon


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [(NOW + DAY, NOW + 9 * DAY, "isn't valid before"), (NOW - 9 * DAY, NOW - DAY, "has ended at")],
)
def test_a_server_tells_its_log_which_time_a_client_is_out_of(start: dt.datetime, end: dt.datetime, says: str) -> None:
    client = issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], start=start, end=end)
    with pytest.raises(IdentityError, match=f"not verified: the client's certificate {says} .* clock of this machine"):
        ChainVerifier([CA.certificate]).verify([client.der], NOW)


def test_a_ca_that_has_ended_is_named_as_such() -> None:
    client = issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], end=NOW + 20000 * DAY)
    with pytest.raises(IdentityError, match="not verified: the certificate of the CA has ended"):
        ChainVerifier([CA.certificate]).verify([client.der], CA.certificate.not_valid_after_utc + DAY)
