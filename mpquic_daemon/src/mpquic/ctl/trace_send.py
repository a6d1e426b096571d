"""`mpquicctl trace --send`: one packet along the way that was found, and what was counted on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from mpquic import control_client
from mpquic.trace import host, send
from mpquic.trace.expression import Packet

if TYPE_CHECKING:
    from mpquic.trace.host import Routing
    from mpquic.trace.way import Way

COUNTED_S: Final = 1.0
"""Seconds for which an instance may take to count what it has carried."""
_POLL_S: Final = 0.02
Counters = list[dict[str, Any]]


def prove(found: dict[str, Any], way: Way, routing: Routing) -> dict[str, Any]:
    """Send a packet by the TUN of a report and return what became of it; HostError, OSError.

    Nothing is sent where the way doesn't lead into a tunnel that is up.
    """
    order, refusal = order_of(found, way, routing)
    facts: dict[str, Any] = {
        "source": str(order.source) if order is not None else None,
        "device": way.device,
        "mark": way.mark,
        "refusal": refusal,
    }
    if order is None:
        return facts | _plain(send.Sent(), [], proven=False, problems=[refusal or ""])
    before = _read(found["tunnel"])
    sent = send.send(order)
    deadline = time.monotonic() + COUNTED_S
    while True:
        counters = _changes(before, _read(found["tunnel"]))
        proven, problems = send.judge(sent, order.device, counters)
        if proven or sent.error is not None or not sent.left or time.monotonic() > deadline:
            return facts | _plain(sent, counters, proven=proven, problems=problems)
        time.sleep(_POLL_S)


def _plain(sent: send.Sent, counters: Counters, *, proven: bool, problems: list[str]) -> dict[str, Any]:
    return {
        "left_by": sent.left,
        "returned_by": sent.returned,
        "reply": sent.reply,
        "delivered": sent.delivered,
        "rtt_seconds": sent.rtt_seconds,
        "connection": sent.connection,
        "counters": counters,
        "proven": proven,
        "problems": problems,
    }


def order_of(found: dict[str, Any], way: Way, routing: Routing) -> tuple[send.Order | None, str | None]:
    """Return what to send, or why nothing is sent."""
    question, owner = way.question, found["tunnel"]
    version = question.destination.version
    if way.outcome != "leaves" or not way.agrees or way.device is None:
        return None, "nothing is sent, since the packet wouldn't leave"
    if owner is None or owner["device"] != way.device:
        return (
            None,
            f"nothing is sent: {way.device} is no tunnel, and addresses of LANs never leave by a WAN from this host",
        )
    if owner["state"] != "up":
        return None, f"nothing is sent, since {owner['name']} is {owner['state'] or 'not known'}"
    if way.mark is None:
        return None, "nothing is sent, since the mark that the rules give can't be told"
    lan = routing.devices.get(question.lan.device)
    own = [address.ip for address in lan.addresses if address.version == version] if lan is not None else []
    if not own:
        return None, f"nothing is sent, since this host has no IPv{version} address on {question.lan.device}"
    packet = Packet(
        source=own[0],
        destination=question.destination,
        oif=way.device,
        protocol=question.number,
        port=question.port,
        mark=way.mark,
    )
    passage = host.ruleset().pass_hook("output", packet)
    if not passage.accepted:
        return None, f"nothing is sent, since this host's own packets are dropped by {passage.by}"
    route = way.decision.route
    return (
        send.Order(
            device=way.device,
            source=own[0],
            destination=question.destination,
            protocol=question.protocol,
            port=question.port,
            dscp=question.dscp,
            mark=way.mark,
            table=route.table if route is not None else None,
        ),
        None,
    )


def _read(owner: dict[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    """Return packets sent and received of the TUN, of its instance, and of its WANs."""
    devices = host.devices()
    found: dict[str, tuple[int | None, int | None]] = {}
    for kind, name in (("TUN", owner["device"]), *(("WAN", name) for name in owner["wan_devices"])):
        device = devices.get(name)
        if device is not None:
            found[f"{kind} {name}"] = device.sent_packets, device.received_packets
    try:
        counted = control_client.call(owner["name"], {"op": "get", "what": "counters"})["tunnel"]
        found[f"instance {owner['name']}"] = counted["tx_packets"], counted["rx_packets"]
    except (control_client.NotRunning, control_client.ControlError, OSError, LookupError, TypeError):
        found[f"instance {owner['name']}"] = None, None
    return found


def _changes(
    before: dict[str, tuple[int | None, int | None]], after: dict[str, tuple[int | None, int | None]]
) -> Counters:
    nothing = (None, None)
    return [
        {
            "name": name,
            "tx_packets_before": sent,
            "tx_packets_after": after.get(name, nothing)[0],
            "rx_packets_before": received,
            "rx_packets_after": after.get(name, nothing)[1],
        }
        for name, (sent, received) in before.items()
    ]
