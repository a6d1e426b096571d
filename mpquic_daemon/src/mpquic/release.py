"""What this process runs: version and build hash, read from its own modules when it starts."""

from __future__ import annotations

import mpquic
from mpquic.build_hash import BUILD_HASH
from mpquic.proto.control.printable import printable

MAX_SHOWN = 64


def named(version: str, build_hash: str) -> str:
    """Return the text of a release: `0.2.0-0123456789ab`, or `0.2.0+dev` of what runs from a checkout."""
    return f"{version}-{build_hash}" if build_hash else f"{version}+dev"


RELEASE = named(mpquic.__version__, BUILD_HASH)
"""That of this process: a release that is installed while it runs doesn't change it."""


def of_peer(text: str) -> str | None:
    """Return the release that a registered peer states, bounded and on one printable line; None for none."""
    return printable(text[:MAX_SHOWN]) or None
