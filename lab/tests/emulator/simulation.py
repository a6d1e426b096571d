"""A direction under a virtual clock."""

from mpqlab.emulator.direction import Direction
from mpqlab.emulator.frame import Frame
from mpqlab.emulator.model import DirectionConfig


class Simulation:
    """Calls a direction as the shell does: at the times it asks for and when something is sent. `now` is in seconds."""

    def __init__(self, start: float = 100.0, wall_offset: float = 0.0, **values: object) -> None:
        self.direction = Direction("up", DirectionConfig().changed(values), wall_offset)
        self.now = start
        self.arrived: list[tuple[float, Frame]] = []

    def run_until(self, time: float) -> None:
        while (event := self.direction.next_event()) is not None and event <= time:
            before = self.now
            self.now = max(self.now, event)
            frames = self.direction.release(self.now)
            self.arrived += [(self.now, frame) for frame in frames]
            following = self.direction.next_event()
            assert frames or following is None or following > before, "an event without effect"
        self.now = max(self.now, time)

    def send(self, data: bytes, at: float | None = None) -> None:
        if at is not None:
            self.run_until(at)
        self.direction.receive(data, self.now)
        self.arrived += [(self.now, frame) for frame in self.direction.release(self.now)]

    def finish(self, within: float = 1000.0) -> list[tuple[float, Frame]]:
        self.run_until(self.now + within)
        assert self.direction.next_event() is None
        assert self.direction.pending() == 0
        return self.arrived

    def set(self, **values: object) -> None:
        config = self.direction.config.changed(values)
        self.direction.configure(config, self.now, reseed="seed" in values)
