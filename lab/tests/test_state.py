"""Records of processes: what is remembered, and that no other process is ever signalled."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from mpqlab.state import Process, State, leader_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); sys.stdin.read()"
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "run")
    state.create()
    return state


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_running_process_is_alive_and_found_again(state: State, child: subprocess.Popen[bytes]) -> None:
    state.remember(Process.of("isp5.dhcp", child.pid))
    found = state.process("isp5.dhcp")
    assert found is not None
    assert found.alive
    assert found.pid == child.pid
    assert [process.name for process in state.processes()] == ["isp5.dhcp"]


def test_an_ended_process_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    process = Process.of("x", child.pid)
    child.kill()
    assert process.wait(5.0)
    assert not process.alive


def test_a_process_that_got_the_id_of_an_ended_one_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    earlier = dataclasses.replace(Process.of("x", child.pid), start_time=1)
    assert not earlier.alive
    assert not earlier.send(signal.SIGKILL)
    earlier.end()
    assert child.poll() is None


def test_a_process_that_ignores_the_request_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        started = time.monotonic()
        process = Process.of("stubborn", child.pid)
        process.end(seconds=0.2)
        assert not process.alive
        assert time.monotonic() - started < 5.0


def test_waiting_for_a_process_that_goes_on_ends_in_time(child: subprocess.Popen[bytes]) -> None:
    assert not Process.of("x", child.pid).wait(0.05)


def test_nothing_can_be_remembered_of_a_process_that_has_ended() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError, match="has ended"):
        Process.of("x", child.pid)


def test_a_machine_without_a_running_init_has_no_leader(state: State, child: subprocess.Popen[bytes]) -> None:
    assert state.leader("client") is None
    process = Process.of(leader_name("client"), child.pid)
    state.remember(process)
    assert state.leader("client") == process
    child.kill()
    process.wait(5.0)
    assert state.leader("client") is None


def test_forgetting_twice_is_no_error(state: State) -> None:
    state.remember(Process.of("x", os.getpid()))
    state.forget("x")
    state.forget("x")
    assert state.process("x") is None


def test_a_torn_record_reads_as_none(state: State) -> None:
    (state.run / "processes" / "x.json").write_text('{"name": "x", "pi')
    assert state.process("x") is None
    assert state.processes() == []


def test_settings_are_read_back_and_empty_before(state: State) -> None:
    assert state.read("wan5") == {}
    state.write("wan5", {"subnet": 1})
    assert state.read("wan5") == {"subnet": 1}
