"""Tunnels that are out of service on purpose: by command, by mask, by the variables; and how they come back."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

from mpqlab.testing import PROJECT, changed_tasks
from mpqlab.waiting import wait_for

from .conftest import CARRYING

if TYPE_CHECKING:
    from pathlib import Path

    from mpqlab.testing import Lab, Probe

    from .conftest import EditedSite, Journal

BACK_WITHIN = 5
"""Seconds in which a tunnel is up after its hold has ended."""
INSTANCE_FILE = "/etc/mpquic/instances/mpq1.yml"
WAN_FILE = "/etc/systemd/network/05-mpquic-20-enp7s6.network"
NO_ALARM = ("held", "up", "inactive")


def peer_state(lab: Lab, tunnel: str) -> Any:
    """How the VPS shows the site in the row of a tunnel."""
    (peer,) = lab.status("vps")[tunnel]["peers"]
    return peer["state"]


def test_a_held_tunnel_is_held_at_both_ends_until_it_is_released(lab: Lab, traffic: dict[int, Probe]) -> None:
    began = time.time()
    lab.run("client", "mpquicctl hold mpq5 --reason 'the dish is moved'")
    lab.wait_state("mpq5", "held", within=5)
    hold = lab.status()["mpq5"]["hold"]
    assert (hold["by"], hold["reason"], hold["until"], hold["origin"]) == (
        "root",
        "the dish is moved",
        None,
        "operator",
    )
    assert "the dish is moved" in lab.run("client", "mpquicctl status mpq5", check=False)
    wait_for(lambda: peer_state(lab, "mpq5") == "held", 5, "held at the VPS")
    assert lab.run("client", "systemctl is-active mpquic@mpq5", check=False).strip() == "inactive"
    lab.run("vps", "systemctl restart mpquic@mpq5")
    wait_for(lambda: lab.state("mpq5", "vps") != "inactive", 10, "the VPS's instance is back")
    assert peer_state(lab, "mpq5") == "held"

    lab.run("client", "mpquicctl release mpq5")
    lab.wait_state("mpq5", "up", within=BACK_WITHIN)
    wait_for(lambda: peer_state(lab, "mpq5") == "up", 5, "up at the VPS")
    assert traffic[4].lost(began) == 0
    assert traffic[6].lost(began) == 0


def test_a_tunnel_that_is_held_at_the_vps_is_held_at_the_site(lab: Lab) -> None:
    lab.run("vps", "mpquicctl hold mpq4 --for 1h --reason 'port is moved'")
    lab.wait_state("mpq4", "held", within=5)
    row = lab.status()["mpq4"]
    assert (row["hold"]["reason"], row["hold_at"]) == ("port is moved", "peer")
    lab.run("vps", "mpquicctl release mpq4")
    lab.wait_state("mpq4", "up", within=BACK_WITHIN + 5)


def test_a_hold_ends_with_its_time_or_with_a_start_by_hand(lab: Lab) -> None:
    lab.run("client", "mpquicctl hold mpq4 --for 8s --reason test && mpquicctl hold mpq5 --reason test")
    lab.wait_state("mpq4", "held", within=3)
    lab.wait_state("mpq5", "held", within=3)
    lab.run("client", "systemctl start mpquic@mpq5")
    lab.wait_state("mpq5", "up", within=BACK_WITHIN)
    lab.wait_state("mpq4", "up", within=8 + BACK_WITHIN)
    assert all(lab.status()[name]["hold"] is None for name in ("mpq4", "mpq5"))


def test_a_stop_is_no_hold_and_the_journal_says_what_is(lab: Lab, journals: dict[str, Journal]) -> None:
    lab.run("client", "systemctl stop mpquic@mpq5")
    lab.wait_state("mpq5", "up", within=BACK_WITHIN)
    assert any("mpquicctl hold mpq5" in line for line in journals["client"].lines())


def test_an_unmasked_tunnel_is_up_at_once(lab: Lab, journals: dict[str, Journal]) -> None:
    lab.run("client", "systemctl mask --now mpquic@mpq5")
    lab.wait_state("mpq5", "held", within=5)
    assert lab.status()["mpq5"]["hold"]["origin"] == "mask"
    lab.run("client", "systemctl unmask mpquic@mpq5")
    lab.wait_state("mpq5", "up", within=BACK_WITHIN)
    assert len(journals["client"].lines()) <= 20


def disable(site: dict[str, Any]) -> None:
    """WAN 6 and the tunnel of WAN 5 are out of service, and so is LAN 4."""
    next(wan for wan in site["wans"] if wan["name"] == "wan6")["enabled"] = False
    next(tunnel for tunnel in site["tunnels"] if tunnel["name"] == "mpq5")["enabled"] = False
    next(lan for lan in site["lans"] if lan["name"] == "lan4")["enabled"] = False


def run_check(inventory: Path, result: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit status of check.yml, and what it found."""
    done = subprocess.run(
        [
            *("ansible-playbook", "playbooks/check.yml", "-i", str(inventory)),
            *("-e", f"mpquic_check_json={result}", "-e", "mpquic_check_settle=3"),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.exists(), done.stdout[-5000:]
    document = json.loads(result.read_text())
    return done.returncode, document["findings"]


def test_what_is_held_is_no_failure_of_a_run_a_check_or_a_boot_and_drift_of_files_is_one(
    lab: Lab, edited_site: EditedSite, tmp_path: Path
) -> None:
    lab.run("client", "mpquicctl hold mpq4 --reason 'until the mast is up'")
    lab.run("vps", "systemctl mask --now mpquic@mpq3")
    done = edited_site(disable)
    assert done.status == 0, done.output[-5000:]
    assert re.search(r"held: [^;]*\bmpq4 \(", done.output)
    states = {name: row["state"] for name, row in lab.status().items()}
    assert {name: states[name] for name in ("mpq4", "mpq5", "mpq6")} == dict.fromkeys(("mpq4", "mpq5", "mpq6"), "held")
    assert '"UP"' not in lab.run("client", "ip -json link show enp7s8")
    assert "172.16.4.1/30" in lab.run("client", "ip -brief address show enp6s23")
    way = "ip route get 192.0.2.80 from 172.16.4.2 iif enp6s23 2>&1"
    assert "No route to host" in lab.run("client", way, check=False)

    lab.mpqlab("reboot", "client")
    # Tunnels that are in service are down until their processes run.
    wait_for(lambda: {row["state"] for row in lab.status().values()} <= set(NO_ALARM), 20, "free of alarms")
    status, findings = run_check(edited_site.inventory, tmp_path / "check.json")
    problems = [finding for finding in findings if finding["result"] == "problem"]
    assert (status, problems) == (0, [])
    held = " ".join(finding["text"] for finding in findings if finding["result"] == "held")
    assert [name for name in ("mpq3", "mpq4", "mpq5", "mpq6") if name not in held] == []
    assert "until the mast is up" in held

    # In the same state: what somebody has edited or deleted is named, and mended by the next run.
    lab.run("client", f"echo '# note' >>{WAN_FILE}")
    lab.run("vps", f"rm {INSTANCE_FILE}")
    status, findings = run_check(edited_site.inventory, tmp_path / "damaged.json")
    told = " ".join(finding["text"] for finding in findings if finding["result"] == "problem")
    assert status == 2
    assert WAN_FILE in told
    assert INSTANCE_FILE in told
    announced = changed_tasks(lab.playbook("--check", "--tags", "networkd,daemon", inventory=edited_site.inventory))
    assert "site1-client: networkd : Write files" in announced
    assert "vps1: daemon : Write files" in announced

    lab.run("vps", "systemctl unmask mpquic@mpq3")
    lab.run("client", "mpquicctl release mpq4")
    lab.playbook()
    assert "# note" not in lab.run("client", f"cat {WAN_FILE}")
    lab.run("vps", f"test -s {INSTANCE_FILE}")
    for number in CARRYING:
        lab.wait_state(f"mpq{number}", "up", within=30)
    edited_site.differs = False
