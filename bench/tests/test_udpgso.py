"""The UDP flow in superframes, over the loopback."""

import json
import subprocess
import sys

import pytest
from mpqbench.udpgso import READY, send

PORT = 45871


@pytest.mark.parametrize("payload", [200, 1000])
def test_every_packet_of_a_flow_is_counted_by_its_receiver(payload: int) -> None:
    command = [sys.executable, "-m", "mpqbench.udpgso", "receive", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        try:
            assert receiver.stdout.readline().strip() == READY
            packets, seconds = send("127.0.0.1", PORT, payload, 5000, 0.3)
            assert json.loads(receiver.stdout.readline()) == {"packets": packets}
        finally:
            receiver.terminate()
    # How many depends on when the sender was given a processor; never more than was asked for, and a burst.
    assert 0 < packets <= 5000 * seconds + 100
    assert seconds >= 0.3
