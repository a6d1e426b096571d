import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqlab.emulator import leo

from .packets import PLAIN, udp
from .patience import PATIENT
from .simulation import Simulation

PACKET = PLAIN + udp(1250)
MINUTE = 1_700_000_040.0  # a whole minute since the epoch


@PATIENT
@given(st.floats(0, 4e9), st.integers(0, 9))
def test_slots_begin_at_12_27_42_57_and_have_the_measured_outages(time: float, seed: int) -> None:
    slot = leo.slot_at(time, seed)
    assert slot.start <= time < slot.end
    assert slot.start % 60 in (12, 27, 42, 57)
    assert slot.end - slot.start == 15
    assert 0.060 <= slot.outage_end - slot.start <= 0.1301
    assert 0.030 <= slot.spike <= 0.070
    assert slot == leo.slot_at(slot.start, seed)


def test_the_delay_spike_fades() -> None:
    slot = leo.slot_at(MINUTE + 13, 1)
    assert slot.extra_delay(slot.start) == slot.spike
    assert 0 < slot.extra_delay(slot.outage_end + 0.25) < slot.spike
    assert slot.extra_delay(slot.outage_end + 0.5) == pytest.approx(0, abs=1e-6)


def test_nothing_is_carried_in_the_outage_and_the_capacity_is_the_slots() -> None:
    start = 1000.0
    link = Simulation(start=start, wall_offset=MINUTE + 10 - start, leo=True, delay_ms=20, queue_ms=300, seed=2)
    for i in range(20_000):
        link.send(PACKET, at=start + i * 0.0005)
    arrived = link.finish()
    slots = [leo.slot_at(MINUTE + 11, 2), leo.slot_at(MINUTE + 13, 2)]
    # Slower than 20 Mbit/s offered is none of them: what waits in the outage is carried after it.
    assert len(arrived) == 20_000
    boundary, resumed = (wall - MINUTE - 10 + start for wall in (slots[1].start, slots[1].outage_end))
    late = [time for time, _ in arrived if boundary + 0.021 < time < resumed + 0.020]
    assert late == []
    assert slots[0].capacity != slots[1].capacity


def test_the_rate_is_the_slots_capacity() -> None:
    start = 1000.0
    link = Simulation(
        start=start, wall_offset=MINUTE + 14 - start, leo=True, leo_min_mbit=10, leo_max_mbit=20, queue_ms=50
    )
    for i in range(6000):
        link.send(PACKET, at=start + i / 3000)  # 30 Mbit/s
    link.run_until(start + 2)
    expected = 10 + 10 * leo.slot_at(MINUTE + 14, 1).capacity
    assert link.direction.counters.out_bytes * 8 / 2e6 == pytest.approx(expected, rel=0.03)
