"""What an instance tells about the dates of its own certificate and of its CA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.control.validity import shown

if TYPE_CHECKING:
    import datetime as dt

    from mpquic.daemon.credentials import Dates
    from mpquic.daemon.journal import Journal
    from mpquic.proto.control.validity import Validity

CHECK_INTERVAL = 86400.0
"""Seconds between two looks at the dates."""


def status(dates: Dates, now: dt.datetime) -> dict[str, object]:
    """Return what `mpquicctl status --json` shows as `certificate`."""
    return {
        "serial": f"{dates.own.serial:x}",
        "not_after": shown(dates.own.not_after),
        "days_left": dates.own.days_left(now),
        "ca_not_after": shown(dates.ca.not_after),
    }


def warn(dates: Dates, journal: Journal, now: dt.datetime) -> None:
    """Write a line for each certificate that doesn't count now, or that ends soon."""
    for which, validity in (("own", dates.own), ("ca", dates.ca)):
        problem = validity.problem("the certificate" if which == "own" else "the certificate of the CA", now)
        if problem is not None:
            journal.error("certificate.invalid", which=which, problem=problem)
        elif validity.ends_soon(now):
            journal.warning(
                "certificate.expiring",
                which=which,
                not_after=shown(validity.not_after),
                days_left=validity.days_left(now),
                remedy="run site.yml for this host" if which == "own" else "make a new CA",
            )


def warn_of_peer(validity: Validity, journal: Journal, name: str, now: dt.datetime, loop_time: float) -> None:
    """Write a line for the certificate of a peer that ends soon, at most one a day for each peer."""
    if validity.ends_soon(now):
        journal.limited(
            f"expiring {name}",
            loop_time,
            "certificate.expiring",
            CHECK_INTERVAL,
            which="peer",
            peer=name,
            not_after=shown(validity.not_after),
            days_left=validity.days_left(now),
            remedy="run site.yml for that host",
        )
