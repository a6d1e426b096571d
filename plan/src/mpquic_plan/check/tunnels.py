"""Each tunnel carries, at both ends; what is out of service on purpose is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic_plan.check.finding import Finding, Result, identity_of, listener_of, port_of, problem
from mpquic_plan.check.routing import both_looks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "tunnels"
HEALTH = "health"
HOLD = "hold"


def inner_peer(tun: Mapping[str, Any]) -> str | None:
    """Return the IPv4 address of the VPS in a client's tunnel: the one host route to it of the main table."""
    routes = (route for route in tun["routes"] if route["table"] is None and route["destination"].endswith("/32"))
    return next((str(route["destination"]).partition("/")[0] for route in routes), None)


def host_is_sound(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield what `site_health` has found: units, links, packet filter, kernel parameters, states of tunnels."""
    remedy = f"see journalctl -b and mpquicctl status on {host.name}; run site.yml"
    held = _held_instances(host) | set(_held_at_the_vps(host, fleet))
    states = [
        {
            _with_reason(host, text): remedy
            for text in map(str, each.get("problems", []))
            if text.partition(" ")[0] not in held
        }
        for each in host.health
    ]
    if len(states) == 2:
        yield from both_looks(HEALTH, states[0], states[1])
    for each in host.health:
        if "problems" not in each:
            yield problem(HEALTH, f"the host can't be looked at: {each.get('msg', 'no reason given')}", "run site.yml")


def _with_reason(host: Host, text: str) -> str:
    """Return a problem of an instance with the reason that this one gives, where the problem doesn't have it."""
    reason = host.rows.get(text.partition(" ")[0], {}).get("error")
    return f"{text}: {reason}" if reason and reason not in text else text


def tunnels_out_of_service(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield tunnels that are held, by whom and until when, and those whose WAN can't be used now: no failures."""
    for name, row in sorted(host.rows.items()):
        hold = row.get("hold")
        if row.get("state") == "held" or hold:
            yield Finding(HOLD, Result.HELD, f"{name} is {_held(hold or {}, row)}", f"mpquicctl release {name}")
        elif row.get("state") == "inactive":
            why = row.get("error") or row.get("missing") or "its WAN can't be used"
            yield Finding(CHECK, Result.SKIPPED, f"{name} is inactive: {why}")
    for name, config in sorted(host.configs.items()):
        if config.get("enabled") is False and name not in host.rows:
            yield Finding(HOLD, Result.HELD, f"{name} is held by the variables (enabled: false)")


def masked_units(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield instances that are masked, here or at the VPS, where `mpquicctl` doesn't tell of them by itself."""
    for name in _held_at_the_vps(host, fleet):
        if host.rows.get(name, {}).get("state") != "held":
            yield Finding(HOLD, Result.HELD, f"{name} is out of service at {host.plan['vps']}, see there")
    for unit, state in sorted(host.second["units"].items()):
        name = unit.removeprefix("mpquic@").removesuffix(".service")
        row = host.rows.get(name, {})
        if unit.startswith("mpquic@") and state.get("LoadState") == "masked" and row.get("state") != "held":
            yield Finding(HOLD, Result.HELD, f"{name} is masked by the operator", f"systemctl unmask {unit}")


def peers_reply(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield tunnels of a client that are up and whose far end doesn't reply to every ping."""
    for name, row in sorted(host.rows.items()):
        reply = host.replies.get(name)
        if row.get("state") != "up" or reply is None:
            continue
        if reply.get("error"):
            yield Finding(CHECK, Result.SKIPPED, f"{name} wasn't pinged: {reply['error']}")
        elif (lost := reply["sent"] - reply["received"]) > 0:
            yield problem(
                CHECK,
                f"{lost} of {reply['sent']} pings through {name} were lost, in the better of two series",
                f"mpquicctl paths and mpquicctl counters {name} on both hosts; the bare link: ping -I DEVICE VPS",
            )


def both_ends_agree(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield tunnels that are up here and not connected on the VPS, or the reverse."""
    if not host.is_client:
        yield from _absent_sites(host, fleet)
        return
    vps = fleet.vps
    if vps is None:
        text = f"{host.plan['vps']}, the VPS of this site, wasn't looked at: what runs there wasn't compared"
        yield Finding(CHECK, Result.SKIPPED, text)
        return
    identity = identity_of(host.plan)
    for name, config in host.configs.items():
        listener = listener_of(vps, config)
        row = vps.rows.get(listener or "", {})
        connected = next((peer["connected"] for peer in row.get("peers") or [] if peer["identity"] == identity), None)
        if host.rows.get(name, {}).get("state") != "up":
            continue
        if connected is None:
            text = f"{name} is up here, and {vps.name} doesn't tell of {identity} on port {port_of(config)}"
            yield problem(CHECK, text, f"mpquicctl status on {vps.name}; run site.yml for it")
        elif not connected:
            text = f"{name} is up here, and {vps.name} says that it isn't connected"
            yield problem(CHECK, text, f"mpquicctl reconnect {name}; compare the VPS's address with vps.address")


def _absent_sites(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield sites that aren't connected, and weren't looked at either, so that nobody says why."""
    for name, row in sorted(host.rows.items()):
        away = [peer["identity"] for peer in row.get("peers") or [] if not peer["connected"]]
        away = sorted(identity.rpartition(":")[2] for identity in away if identity not in fleet.identities)
        if away:
            yield Finding(CHECK, Result.SKIPPED, f"{name}: not connected and not looked at: {', '.join(away)}")


def _held_instances(host: Host) -> set[str]:
    rows = {name for name, row in host.rows.items() if row.get("state") == "held" or row.get("hold")}
    masked = {unit for unit, state in host.second["units"].items() if state.get("LoadState") == "masked"}
    return rows | {unit.removeprefix("mpquic@").removesuffix(".service") for unit in masked}


def _held_at_the_vps(host: Host, fleet: Fleet) -> list[str]:
    """Tunnels of a client whose listener is held, and which therefore can't be up here."""
    vps = fleet.vps
    if not host.is_client or vps is None:
        return []
    held = _held_instances(vps)
    return [name for name, config in host.configs.items() if listener_of(vps, config) in held]


def _held(hold: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if not hold:
        return str(row.get("error") or "held")
    until = f" until {hold['until']}" if hold.get("until") else ""
    where = " at its peer" if row.get("hold_at") == "peer" else ""
    since = f", since {hold['since']}" if hold.get("since") else ""
    return f"held by {hold.get('by', 'somebody')}{where}{until}: {hold.get('reason', '')}{since}"
