"""iperf3's command line and its answers (version 3.10 and later, for `--bind-dev`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from mpquic.speedtest.runs import Transfer

if TYPE_CHECKING:
    from mpquic.speedtest.runs import Run

PROGRAM: Final = "iperf3"
PORT: Final = 5201
CONNECT_MS: Final = 3000
CONGESTION: Final = "cubic"
"""Pinned at both ends: a host's default may be another one."""
BETWEEN_TESTS: Final = ("unable to receive control message", "Connection refused", "the server is busy")
"""What iperf3 says of a server that is between two tests: it closes its listening socket and opens another."""


class Iperf3Error(Exception):
    """There is no figure; the text is iperf3's own, or says what it printed instead."""


def command(
    run: Run,
    server: str,
    port: int,
    seconds: float,
    *,
    source: str | None = None,
    device: str | None = None,
    congestion: str = CONGESTION,
) -> list[str]:
    """Return the command of a run. `device` binds its sockets, so that no route leads them elsewhere."""
    argv = [PROGRAM, "--json", "--client", server, "--port", str(port), "--time", f"{seconds:g}"]
    argv += ["--connect-timeout", str(CONNECT_MS), "--parallel", str(run.connections), "--congestion", congestion]
    argv += ["--bind", source] if source is not None else []
    argv += ["--bind-dev", device] if device is not None else []
    return [*argv, "--reverse"] if run.direction == "down" else argv


def transfer(output: str) -> Transfer:
    """Return what iperf3's JSON says of a TCP test; Iperf3Error."""
    try:
        report: Any = json.loads(output)
        if "error" in report:
            raise Iperf3Error(str(report["error"]))
        received, sent = report["end"]["sum_received"], report["end"]["sum_sent"]
        return Transfer(
            bits_per_second=round(float(received["bits_per_second"])),
            bytes=int(received["bytes"]),
            seconds=round(float(received["seconds"]), 2),
            retransmits=sent.get("retransmits"),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Iperf3Error(f"iperf3 printed no result: {output.strip()[:200] or 'nothing'}") from None


def is_between_tests(error: str) -> bool:
    """Whether the same question may be answered a moment later."""
    return any(words in error for words in BETWEEN_TESTS)
