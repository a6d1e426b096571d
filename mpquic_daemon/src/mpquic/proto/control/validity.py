"""From when to when a certificate counts, and what is said of one that doesn't, or not for long."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

WARN_DAYS = 30
"""Days before its end from which a certificate is warned of."""


@dataclass(frozen=True, slots=True)
class Validity:
    """The dates of a certificate (aware), with its serial number."""

    serial: int
    not_before: dt.datetime
    not_after: dt.datetime

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Validity:
        """Return the dates of a certificate."""
        return cls(certificate.serial_number, certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def days_left(self, now: dt.datetime) -> int:
        """Return the whole days until its end; below 0 when it has ended."""
        return (self.not_after - now).days

    def ends_soon(self, now: dt.datetime) -> bool:
        """Whether its end is near, or over."""
        return self.days_left(now) < WARN_DAYS

    def problem(self, whose: str, now: dt.datetime) -> str | None:
        """Say why a certificate doesn't count at `now`, with both times and the likely cause; None if it counts."""
        if self.not_before <= now <= self.not_after:
            return None
        if now < self.not_before:
            what = f"{whose} isn't valid before {shown(self.not_before)}"
            cause = "a clock is wrong, this machine's or that of the controller when it was issued"
        else:
            what = f"{whose} has ended at {shown(self.not_after)}"
            cause = "it wasn't renewed (run site.yml), or this machine's clock is wrong"
        return f"{what}, and the clock of this machine says {shown(now)}: {cause}"


def shown(time: dt.datetime) -> str:
    """Return a time for people and programs, in UTC (RFC 3339)."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
