"""A striped session as a path of the tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.path.path import PathState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpquic.proto.path.budget import PathBudget
    from mpquic.proto.path.path import FrameOrRun
    from mpquic.proto.stripe.session import StripeSession


class StripePath:
    """Implements `mpquic.proto.path.path.Path`. `state` is set by whoever watches liveness.

    What `send` takes is in the session's `take_outgoing`: whoever owns the sockets sends it after each call.
    """

    reliable = False
    takes_runs = True

    def __init__(self, name: str, session: StripeSession, *, budget: PathBudget | None = None) -> None:
        self.name = name
        self.session = session
        self.state = PathState.DOWN
        self.frames_sent = 0
        self._budget = budget

    @property
    def frame_capacity(self) -> int:
        """Largest encoded frame in bytes that one shard takes."""
        return self.session.shard_capacity

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        return self.session.rtt

    @property
    def loss(self) -> float:
        """Share of shards that the path loses, repaired or not, 0.0 to 1.0."""
        return self.session.sender.recovery.loss.loss

    @property
    def rate(self) -> float:
        """Bytes per second that the path delivers, 0.0 while unknown."""
        return self.session.sender.controller.bandwidth

    def unacknowledged(self, since: float) -> list[FrameOrRun]:
        """Return what was sent since then and isn't known to have arrived, in order."""
        return self.session.sender.unacknowledged(since)

    def repair_time(self, traffic_class: int, now: float) -> float:
        """Seconds in which it may yet bring what it has lost of a class; 0.0 while nothing is missing."""
        return self.session.repair_time(traffic_class, now)

    def limit_by(self, budget: PathBudget) -> None:
        """Send no more than the path's share of its WAN allows; without a limit nothing is asked on the way."""
        self._budget = budget if budget.share is not None else None

    def next_allowance(self, now: float) -> float | None:
        """When the share of the WAN allows sending again; None when it isn't what packets wait for."""
        return None if self._budget is None else self._budget.next_allowance(now)

    def budget(self, now: float) -> int:
        """Bytes of encoded frames that may be handed over now."""
        room = self.session.budget(now)
        if room <= 0 or self._budget is None:
            return room
        return self._budget.allowance(room, now)

    def send(self, frames: Sequence[FrameOrRun], now: float) -> int:
        """Take frames in order while the budget lasts; returns how many."""
        if self._budget is None:
            sent = self.session.send(frames, now)
        else:
            budget = self.budget(now)
            taken = size = 0
            for frame in frames:
                if size >= budget:
                    break
                size += frame.size
                taken += 1
            sent = self.session.send(frames[:taken], now)
            self._budget.spend(sum(frame.size for frame in frames[:sent]))
        self.frames_sent += sent
        return sent
