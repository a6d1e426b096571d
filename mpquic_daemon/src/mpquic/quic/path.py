"""A path over a QUIC connection: frames in DATAGRAM frames, or one after the other on a stream."""

from collections import deque
from collections.abc import Sequence
from typing import cast

from mpquic.proto.packet.frame import Frame
from mpquic.proto.path.budget import PathBudget
from mpquic.proto.path.path import FrameOrRun, PathState
from mpquic.quic.connection_view import LinkState
from mpquic.quic.link import QuicLink


class QuicPath:
    """Implements `mpquic.proto.path.data_plane.DataPlane`. `state` is set by whoever watches liveness.

    Datagram mode: frames that are handed over together, of one traffic class, share datagrams as far as they fit.
    Reliable mode: `data_stream` is the stream on which its opener has written the type byte.
    """

    def __init__(
        self, name: str, link: QuicLink, *, data_stream: int | None = None, budget: PathBudget | None = None
    ) -> None:
        self.name = name
        self.link = link
        self.state = PathState.DOWN
        self.data_stream = data_stream
        self.frames_sent = 0
        self.datagrams_sent = 0
        self.oversized = 0
        """Frames dropped because no datagram takes them: the tunnel split them for a larger packet size."""
        self._budget = budget
        self.keeps_sent = False
        """Whether what a stream is given is kept until it is acknowledged, since another path may have to send it
        again. It costs a tenth of the processor time: the buffers of the TUN are used again later."""
        self._written: deque[tuple[int, float, Frame]] = deque()
        """What is kept: where each frame ends in the stream, and when it was written."""

    @property
    def reliable(self) -> bool:
        """True when frames travel on a stream."""
        return self.data_stream is not None

    @property
    def takes_runs(self) -> bool:
        """False: each frame is encoded by itself."""
        return False

    @property
    def frame_capacity(self) -> int:
        """Largest encoded frame in bytes that one datagram takes now."""
        return self.link.datagram_capacity

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first sample."""
        return self.link.estimators.rtt.smoothed

    @property
    def loss(self) -> float:
        """Share of packets that are lost, 0.0 to 1.0."""
        return self.link.estimators.loss

    @property
    def rate(self) -> float:
        """Bytes per second that congestion control allows, 0.0 while unknown."""
        return self.link.rate

    def unacknowledged(self, since: float) -> list[FrameOrRun]:
        """Return what was written to the stream since then and isn't known to have arrived, in order.

        Nothing in datagram mode: what became of a DATAGRAM frame isn't recorded.
        """
        self._forget_acknowledged()
        return [frame for _, sent_at, frame in self._written if sent_at >= since]

    def _forget_acknowledged(self) -> None:
        written = self._written
        if written and self.data_stream is not None:
            acknowledged = self.link.outgoing.stream_progress(self.data_stream)[1]
            while written and written[0][0] <= acknowledged:
                written.popleft()

    def repair_time(self, traffic_class: int, now: float) -> float:
        """0.0: lost datagrams don't come again, and of a stream nothing comes before what is missing."""
        del traffic_class, now
        return 0.0

    def budget(self, now: float) -> int:
        """Bytes of encoded frames that may be handed over now."""
        if self.link.state is not LinkState.ESTABLISHED:
            return 0
        stream = self.data_stream
        room = self.link.datagram_budget() if stream is None else self.link.stream_budget(stream)
        if room <= 0:
            return 0
        return room if self._budget is None else self._budget.allowance(room, now)

    def next_allowance(self, now: float) -> float | None:
        """When the share of the WAN allows sending again; None when it allows it now."""
        return None if self._budget is None else self._budget.next_allowance(now)

    def send(self, frames: Sequence[FrameOrRun], now: float) -> int:
        """Take frames in order while the budget lasts; gives how many."""
        budget = self.budget(now)
        if budget <= 0 or not frames:
            return 0
        frames = cast("Sequence[Frame]", frames)  # as `takes_runs` says
        taken, size = 0, 0
        for frame in frames:
            if size >= budget:
                break
            size += frame.size
            taken += 1
        sent = (
            self._send_stream(frames[:taken], now)
            if self.data_stream is not None
            else self._send_datagrams(frames[:taken])
        )
        if self._budget is not None and sent and self._budget.share is not None:
            whole, capacity = self.data_stream is not None, self.link.datagram_capacity
            self._budget.spend(sum(frame.size for frame in frames[:sent] if whole or frame.size <= capacity))
        self.frames_sent += sent
        return sent

    def _send_stream(self, frames: Sequence[Frame], now: float) -> int:
        assert self.data_stream is not None
        self._forget_acknowledged()
        parts: list[bytes | memoryview] = []
        for frame in frames:
            parts.append(frame.encode_header())
            parts.append(frame.payload)
        if not self.link.send_stream(self.data_stream, b"".join(parts)):
            return 0
        if self.keeps_sent:
            end = self.link.outgoing.stream_progress(self.data_stream)[0] - sum(map(len, parts))
            for frame in frames:
                end += frame.size
                self._written.append((end, now, frame))
        return len(frames)

    def _send_datagrams(self, frames: Sequence[Frame]) -> int:
        capacity = self.link.datagram_capacity
        bundles: list[bytes] = []
        ends: list[int] = []  # how many frames are done with when a bundle has gone
        parts: list[bytes | memoryview] = []
        room = 0
        traffic_class = -1
        for index, frame in enumerate(frames):
            size = frame.size
            if size > capacity:
                self.oversized += 1
                continue
            if size > room or frame.traffic_class != traffic_class:
                if parts:
                    bundles.append(b"".join(parts))
                    ends.append(index)
                parts, room, traffic_class = [], capacity, frame.traffic_class
            parts.append(frame.encode_header())
            parts.append(frame.payload)
            room -= size
        if parts:
            bundles.append(b"".join(parts))
            ends.append(len(frames))
        sent = self.link.send_datagrams(bundles)
        self.datagrams_sent += sent
        if sent == len(bundles):
            return len(frames)
        return ends[sent - 1] if sent else 0
