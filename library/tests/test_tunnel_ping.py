"""Whether the far ends of tunnels reply; ping itself is imitated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from module_process import run_module
from tunnel_ping import summary

if TYPE_CHECKING:
    from pathlib import Path

TUNNELS = [{"device": "mpq5", "address": "10.200.5.2"}, {"device": "mpq6", "address": "10.200.6.2"}]
# Prints the next line of the file of its device as the number of replies, and notes its arguments.
PING = """#!/bin/sh
cd {folder}
printf '%s\\n' "$*" >> arguments
while [ $# -gt 1 ]; do [ "$1" = -I ] && device=$2; shift; done
read -r received < $device
sed -i 1d $device
case $received in
[0-9]*) printf '%s\\n' '--- x ping statistics ---' "10 packets transmitted, $received received, 0% packet loss";;
*) echo "ping: $received"; exit 2;;
esac
"""


def ping(folder: Path, **series: str) -> dict[str, Any]:
    (folder / "ping").write_text(PING.format(folder=folder))
    (folder / "ping").chmod(0o755)
    for device, lines in series.items():
        (folder / device).write_text(lines)
    replies: dict[str, Any] = run_module("tunnel_ping", {"tunnels": TUNNELS, "interval": 0.2}, path=str(folder))[
        "replies"
    ]
    return replies


def test_each_is_pinged_through_its_own_device_and_a_few_times_a_second(tmp_path: Path) -> None:
    full = {"sent": 10, "received": 10}
    assert ping(tmp_path, mpq5="10\n", mpq6="10\n") == {"mpq5": full, "mpq6": full}
    lines = (tmp_path / "arguments").read_text().splitlines()
    assert sorted(line.split(" -I ")[1] for line in lines) == ["mpq5 10.200.5.2", "mpq6 10.200.6.2"]
    assert all("-c 10 -i 0.2 " in line for line in lines)


@pytest.mark.parametrize(("second", "received"), [("10", 10), ("9", 9), ("7", 8), ("Network is unreachable", 8)])
def test_where_some_are_lost_the_better_of_two_series_counts(tmp_path: Path, second: str, received: int) -> None:
    found = ping(tmp_path, mpq5="10\n", mpq6=f"8\n{second}\n")
    assert found["mpq6"] == {"sent": 10, "received": received}
    assert len((tmp_path / "arguments").read_text().splitlines()) == 3, "the other isn't asked again"


def test_what_ping_says_when_it_can_not_send(tmp_path: Path) -> None:
    found = ping(tmp_path, mpq5="10\n", mpq6="unknown iface mpq6\nunknown iface mpq6\n")
    assert found["mpq6"] == {"error": "ping: unknown iface mpq6"}


def test_a_series_without_replies_is_a_loss_and_no_error() -> None:
    assert summary("10 packets transmitted, 0 received, +10 errors, 100% packet loss") == (10, 0)
    assert summary("ping: socket: Operation not permitted") is None
