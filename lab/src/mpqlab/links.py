"""What a person does to a WAN: settings, cuts, plugs, and an ISP that renumbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpqlab import machine_links, network, services
from mpqlab.emulator.client import EmulatorClient, EmulatorError
from mpqlab.emulator.model import ConfigError, DirectionChoice, DirectionConfig
from mpqlab.errors import LabError
from mpqlab.qemu import QemuMachine
from mpqlab.topology import CLIENT, ISP_PORT_DEVICE, Attachment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Interface

    from mpqlab.lab import Lab
    from mpqlab.topology import Wan


def configure(lab: Lab, wan: Wan, pairs: Sequence[str]) -> dict[str, Any]:
    """Change the emulated link: `key=value`, `up.key=value`, `down.key=value`; return all its settings.

    Raises:
        LabError: a key or value is wrong (then nothing has changed), or the WAN has no emulated link.
    """
    emulator = _emulator(lab, wan)
    try:
        return emulator.set_pairs(pairs)
    except (ConfigError, EmulatorError) as error:
        raise LabError(f"{wan.name}: {error}") from error


def cut(lab: Lab, wan: Wan, direction: DirectionChoice) -> dict[str, Any]:
    """Let everything vanish between the ISP and the Internet; the client sees no error."""
    return _emulator(lab, wan).cut(direction)


def heal(lab: Lab, wan: Wan) -> dict[str, Any]:
    """End a cut."""
    return _emulator(lab, wan).heal()


def unplug(lab: Lab, wan: Wan, *, carrier: bool) -> None:
    """Take the client's device away, or only its carrier. Nothing happens when it is gone already."""
    _require_device(lab, wan)
    if not network.device_exists(wan.isp, ISP_PORT_DEVICE):
        return
    if carrier:
        _set_carrier(lab, wan, on=False)
    elif lab.own_kernel:
        raise LabError(
            f"under qemu a NIC can't be taken away: take its carrier, `mpqlab link unplug {wan.name} --carrier`"
        )
    else:
        machine_links.unplug(wan)


def plug(lab: Lab, wan: Wan) -> None:
    """Bring the client's device and its carrier back."""
    _require_device(lab, wan)
    if not network.device_exists(wan.isp, ISP_PORT_DEVICE):
        machine_links.plug(wan)
    elif wan.attachment is not Attachment.NO_CARRIER:
        _set_carrier(lab, wan, on=True)


def renumber(lab: Lab, wan: Wan, *, flap: bool, lease: IPv4Interface | None = None) -> None:
    """Let the ISP move to its other subnet, gateway, pool and public address; `flap` also drops the carrier briefly.

    With `lease` the ISP gives the client this address, in this subnet, and its public address stays.

    Raises:
        LabError: the WAN has no ISP.
    """
    _emulator(lab, wan)
    if flap and not network.device_exists(wan.isp, ISP_PORT_DEVICE):
        raise LabError(f"{wan.name} is unplugged, so there is no carrier to drop: renumber it without --flap")
    number = int(lab.state.read(wan.name).get("subnet", 0))
    if lease is None:
        number = (number + 1) % len(wan.subnets)
    now = {"subnet": number} if lease is None else {"subnet": number, "lease": str(lease)}
    dhcp = lab.state.process(services.dhcp_name(wan))
    if dhcp is not None:
        dhcp.end()
    if flap:
        _set_carrier(lab, wan, on=False)
    lab.state.write(wan.name, now)
    subnet = services.current_subnet(lab.state, wan)
    network.set_customer_subnet(wan, subnet)
    network.set_public_address(wan, subnet)
    services.await_listening(services.start_dhcp(lab.state, wan, subnet), "udp", 67)
    if flap:
        _set_carrier(lab, wan, on=True)


def describe(lab: Lab, wan: Wan) -> dict[str, Any]:
    """Return what there is to say of a WAN: device, ISP, settings and counters of the emulated link."""
    attached = wan.attachment is not Attachment.NO_DEVICE
    plugged = attached and network.device_exists(wan.isp, ISP_PORT_DEVICE)
    facts: dict[str, Any] = {
        "wan": wan.name,
        "device": wan.device,
        "attachment": wan.attachment.value,
        "plugged": plugged,
        "carrier": plugged and _has_carrier(lab, wan),
        "cut": "",
    }
    if wan.attachment is Attachment.ISP:
        subnet = services.current_subnet(lab.state, wan)
        emulator = services.emulator(lab.state, wan)
        facts |= {"gateway": str(subnet.gateway), "lease": subnet.lease, "public": subnet.public}
        try:
            settings, counters = emulator.get(), emulator.counters()
        except EmulatorError as error:
            facts["error"] = str(error)
            return facts
        facts["cut"] = _cut(settings)
        facts["settings"] = {name: settings[name] for name in ("up", "down")}
        facts["counters"] = {name: counters[name] for name in ("up", "down")}
    return facts


def render(facts: dict[str, Any]) -> str:
    """Return the text that `mpqlab link` prints: what differs from a perfect wire."""
    state = link_state(facts)
    lines = [f"{facts['wan']} ({facts['device']}): {state}"]
    if "settings" in facts:
        perfect = DirectionConfig().as_dict()
        for name, settings in facts["settings"].items():
            changed = [f"{key}={settings[key]}" for key, value in perfect.items() if settings[key] != value]
            lines.append(f"  {name:4} {' '.join(changed) or 'a perfect wire'}")
    return "\n".join(lines)


def link_state(link: dict[str, Any]) -> str:
    """Return one word or two for the state of a WAN's device and link."""
    if "error" in link:
        return "no emulator"
    if not link["plugged"]:
        return "no device" if link["attachment"] == "no device" else "unplugged"
    if link["cut"]:
        return "cut" if link["cut"] == "both" else f"cut {link['cut']}"
    if link["attachment"] != "isp":
        return str(link["attachment"])
    return "plugged" if link["carrier"] else "no carrier"


def _set_carrier(lab: Lab, wan: Wan, *, on: bool) -> None:
    machine_links.set_carrier(wan, on=on)
    client = lab.machines[CLIENT]
    if isinstance(client, QemuMachine):
        # What happens to a tap, its NIC isn't told.
        client.set_carrier(wan.device, on=on)


def _has_carrier(lab: Lab, wan: Wan) -> bool:
    if lab.own_kernel:
        return network.has_carrier(wan.isp, ISP_PORT_DEVICE)
    return network.has_carrier(CLIENT, wan.device)


def _cut(settings: dict[str, Any]) -> str:
    directions = [name for name in ("up", "down") if settings[name]["blackhole"]]
    return "both" if len(directions) > 1 else "".join(directions)


def _emulator(lab: Lab, wan: Wan) -> EmulatorClient:
    lab.require()
    if wan.attachment is not Attachment.ISP:
        raise LabError(f"{wan.name} has no link beyond the modem ({wan.attachment.value}): choose wan4, wan5 or wan6")
    return services.emulator(lab.state, wan)


def _require_device(lab: Lab, wan: Wan) -> None:
    lab.require()
    if wan.attachment is Attachment.NO_DEVICE:
        raise LabError(f"{wan.name} has no modem in this site ({wan.device} never exists): choose another WAN")
