"""NewReno (RFC 9002 section 7): the window grows by a packet each round trip, and a loss halves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mpquic.proto.congestion.window import WindowController

if TYPE_CHECKING:
    from mpquic.proto.congestion.controller import AckSample


class NewReno(WindowController):
    """Implements `controller.Controller`."""

    name: ClassVar[str] = "reno"
    reduction: ClassVar[float] = 0.5

    def __init__(self, datagram: int, now: float) -> None:
        super().__init__(datagram, now)
        self._acked = 0

    def _grow(self, sample: AckSample, now: float) -> None:  # noqa: ARG002
        self._acked += sample.bytes_acked
        count = self._acked // self.congestion_window
        if count:
            self._acked -= count * self.congestion_window
            self.congestion_window += count * self.datagram

    def _begin_avoidance(self, now: float) -> None:  # noqa: ARG002
        self._acked = 0
