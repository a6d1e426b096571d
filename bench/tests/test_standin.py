"""The stand-in for a load generator."""

import time

import pytest
from mpqbench.standin import PIECE, take


def test_takes_the_share_that_it_is_told_to() -> None:
    wall, used = time.monotonic(), time.process_time()
    take(0.2, 200)
    used = time.process_time() - used
    assert used == pytest.approx(200 * PIECE, rel=0.5)
    # Never more than its share, however busy the machine is.
    assert used / (time.monotonic() - wall) < 0.23


@pytest.mark.parametrize("cores", [0.0, 1.5])
def test_refuses_what_one_process_cannot_take(cores: float) -> None:
    with pytest.raises(ValueError, match="cores"):
        take(cores)
