#!/usr/bin/python
"""Ansible module: does the far end of each tunnel reply, and to how many of some pings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_ping
short_description: Ping the inner address behind each tunnel
description:
  - Some packets, through the TUN device that is named and no other, to all tunnels at once. Responders limit the rate
    of their replies, so no more than some go out in a second. Where one is lost a second series tells whether it was by
    chance.
options:
  tunnels: {description: "Each with C(device) and C(address).", type: list, elements: dict, required: true}
  count: {description: Packets in a series., type: int, default: 10}
  interval: {description: Seconds between two., type: float, default: 0.3}
"""

RETURN = r"""
replies:
  description: By device, C(sent) and C(received) of the better series; C(error) where ping can't be run.
  returned: always
  type: dict
"""

import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

SUMMARY = re.compile(r"^(\d+) packets transmitted, (\d+) received", re.MULTILINE)
LATE = 3
"""Seconds for which the last reply may be on its way."""


def summary(text: str) -> tuple[int, int] | None:
    """Packets sent and received in what `ping -q` prints, None when it has sent none."""
    found = SUMMARY.search(text)
    return (int(found[1]), int(found[2])) if found else None


def series(tunnels: list[dict[str, str]], ping: str, count: int, interval: float) -> dict[str, tuple[int, int] | str]:
    """One series for each tunnel at once: (sent, received), or what ping said."""
    running = {
        tunnel["device"]: subprocess.Popen(
            [
                ping, "-n", "-q", "-c", str(count), "-i", str(interval), "-W", str(LATE), "-I", tunnel["device"],
                tunnel["address"],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"LC_ALL": "C.UTF-8"},
        )
        for tunnel in tunnels
    }  # fmt: skip
    texts = {device: process.communicate()[0] for device, process in running.items()}
    return {device: summary(text) or text.strip() for device, text in texts.items()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tunnels": {"type": "list", "elements": "dict", "required": True},
            "count": {"type": "int", "default": 10},
            "interval": {"type": "float", "default": 0.3},
        },
        supports_check_mode=True,
    )
    tunnels = module.params["tunnels"]
    ping = module.get_bin_path("ping")
    if ping is None:
        error = {"error": "ping isn't installed (package iputils-ping)"}
        module.exit_json(changed=False, replies={tunnel["device"]: error for tunnel in tunnels})
    count, interval = module.params["count"], module.params["interval"]
    found = series(tunnels, ping, count, interval)
    lossy = [tunnel for tunnel in tunnels if found[tunnel["device"]] != (count, count)]
    for device, again in (series(lossy, ping, count, interval) if lossy else {}).items():
        before = found[device]
        if isinstance(before, str) or (not isinstance(again, str) and again[1] > before[1]):
            found[device] = again
    module.exit_json(
        changed=False,
        replies={
            device: {"error": result} if isinstance(result, str) else {"sent": result[0], "received": result[1]}
            for device, result in found.items()
        },
    )


if __name__ == "__main__":
    main()
