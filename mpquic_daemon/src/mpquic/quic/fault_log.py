"""Logs faults of QUIC connections, with a limit."""

import logging

from mpquic.proto.path.address import Address

_PAUSE = 60.0

_logger = logging.getLogger(__name__)


class FaultLog:
    """Writes the traceback of a fault, one a minute for all connections: anybody may be able to cause them."""

    def __init__(self) -> None:
        self._last: float | None = None

    def write(self, now: float, doing: str, peer: Address | None) -> None:
        """Log the exception that is being handled."""
        if self._last is None or not 0 <= now - self._last < _PAUSE:
            self._last = now
            _logger.exception("QUIC connection with %s failed on %s", peer, doing)


faults = FaultLog()
