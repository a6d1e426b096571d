"""The receiving half of a session: datagrams to frames. What is refused is counted by reason and has no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mpquic.proto.dedup import Arrival
from mpquic.proto.frame import Frame, FrameError, decode_frames
from mpquic.proto.stripe.fec import GroupDecoder
from mpquic.proto.stripe.keys import CONTROL_SPACE
from mpquic.proto.stripe.replay import CONTROL_WINDOW, SHARD_WINDOW, ReplayWindow
from mpquic.proto.stripe.reports import Reporter
from mpquic.proto.stripe.wire import (
    CONTROL_BIT,
    EPOCH_SHIFT,
    HEADER_SIZE,
    MAGIC,
    OVERHEAD,
    REPAIR_PREFIX,
    TYPE_MASK,
    VERSION,
    PacketType,
    check_shape,
    unpack_header,
)

if TYPE_CHECKING:
    from mpquic.proto.stripe.keys import Opener
    from mpquic.proto.stripe.pipes import Address, Pipes

_DATA = int(PacketType.DATA)
_PARITY = int(PacketType.PARITY)
_NEW, _DUPLICATE = Arrival.NEW, Arrival.DUPLICATE


class ControlPacket(NamedTuple):
    """An authenticated packet of a control type. `number` orders those of a session."""

    kind: int
    number: int
    pipe: int
    body: bytes


class StripeReceiver:
    """Opens datagrams, refuses what is not the peer's or came before, repairs groups."""

    def __init__(self, session: int, opener: Opener, pipes: Pipes, *, shard_window: int = SHARD_WINDOW) -> None:
        self._session = session
        self._opener = opener
        self._pipes = pipes
        self.window = ReplayWindow(shard_window)
        self.control_window = ReplayWindow(CONTROL_WINDOW)
        self.decoder = GroupDecoder()
        self.reporter = Reporter(self.window)
        self.refused: dict[str, int] = {}
        self.shards = 0
        self.copies_in_vain = 0

    def refuse(self, reason: str) -> None:
        """Count something that was not taken."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def receive(
        self, data: bytes | bytearray | memoryview, segment: int, address: Address | None, now: float
    ) -> tuple[list[Frame], list[ControlPacket]]:
        """Take what one read gave: datagrams of `segment` bytes back to back, the last perhaps shorter (UDP GRO).

        `address` is where they came from; None where there is no choice.
        """
        frames: list[Frame] = []
        control: list[ControlPacket] = []
        window, key_for, unseal = self.window, self._opener.key_for, self._opener.open
        pipes = len(self._pipes.all)
        view = memoryview(data)
        fresh = 0
        lowest, highest_before = 1 << 64, window.highest
        for start in range(0, len(view), max(segment, 1)):
            packet = view[start : start + segment]
            if len(packet) < OVERHEAD:
                self.refuse("truncated")
                continue
            magic, version_pipe, epoch_type, session, low, index, data_shards, length = unpack_header(packet)
            if magic != MAGIC or version_pipe >> 4 != VERSION:
                self.refuse("foreign")
                continue
            if session != self._session:
                self.refuse("session")
                continue
            kind = epoch_type & TYPE_MASK
            pipe = version_pipe & 15
            fault = check_shape(kind, index, data_shards)
            if fault is not None or length != len(packet) - HEADER_SIZE or pipe >= pipes:
                self.refuse(fault or ("pipe" if pipe >= pipes else "length"))
                continue
            is_control = kind & CONTROL_BIT
            space = self.control_window if is_control else window
            number = space.expand(low)
            arrival = space.check(number)
            if arrival is not _NEW:
                self.refuse("replayed" if arrival is _DUPLICATE else "late")
                continue
            key = key_for(epoch_type >> EPOCH_SHIFT, now)
            if key is None:
                self.refuse("epoch")
                continue
            body = unseal(
                key, number | CONTROL_SPACE if is_control else number, packet[HEADER_SIZE:], packet[:HEADER_SIZE], now
            )
            if body is None:
                self.refuse("forged")
                continue
            space.add(number)
            if is_control:
                control.append(ControlPacket(kind, number, pipe, body))
                self._pipes.on_control(pipe, number, address)
                continue
            self._pipes.on_packet(pipe, number, address)
            fresh += 1
            if number < lowest:
                lowest = number
            if kind == _DATA and not data_shards:
                self._decode(body, frames)
            else:
                self._grouped(kind, number, index, data_shards, body, now, frames)
        if fresh:
            self.shards += fresh
            self.reporter.on_shards(fresh, lowest, highest_rose=window.highest > highest_before, now=now)
        return frames, control

    def _decode(self, body: bytes, frames: list[Frame]) -> None:
        try:
            frames += decode_frames(body)
        except FrameError as error:
            self.refuse(f"frame {error.reason}")

    def _grouped(
        self, kind: int, number: int, index: int, data_shards: int, body: bytes, now: float, frames: list[Frame]
    ) -> None:
        """Take a shard of a group, or a copy."""
        if kind == _PARITY:
            base = number - index
            repaired = self.decoder.add_parity(base, index, data_shards, body, now) if base >= 0 else []
        else:
            if kind != _DATA:
                if len(body) <= REPAIR_PREFIX.size:
                    self.refuse("repair")
                    return
                number = self.window.expand(REPAIR_PREFIX.unpack_from(body)[0])
                body = body[REPAIR_PREFIX.size :]
                if self.window.check(number) is _DUPLICATE:
                    self.copies_in_vain += 1
                    return
            base = number - index
            if not data_shards:
                self._decode(body, frames)
                return
            if base < 0:
                self.refuse("shard")
                return
            new, repaired = self.decoder.add_data(base, index, body, now)
            if new:
                self._decode(body, frames)
        for place, block in repaired:
            self.reporter.on_repaired(base + place)
            self._decode(block, frames)
