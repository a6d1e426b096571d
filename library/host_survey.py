#!/usr/bin/python
"""Ansible module: what a host is and what runs on it, for the preflight to judge."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_survey
short_description: Look at a host before anything is changed
description:
  - Reads, and changes nothing. What it finds is judged on the controller (package C(mpquic_plan.preflight)).
  - It needs Python alone. A program that isn't installed yet (nft, ss) leaves its part empty.
options:
  instances: {description: Folder of the instances' YAML., type: path, default: /etc/mpquic/instances}
  pki: {description: Folder of the certificates., type: path, default: /etc/mpquic/pki}
  certificate: {description: Name of the host's own certificate without its suffix., type: str, required: true}
  taken_over:
    description: File that notes that the network was taken over by an earlier run.
    type: path
    default: /var/lib/mpquic/taken-over.json
"""

RETURN = r"""
survey: {description: Plain data; each part is described where it is gathered., returned: always, type: dict}
"""

import glob
import ipaddress
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

NETWORK_FOLDERS = ("/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network")
# Files of other managers that say how interfaces are configured.
MANAGER_FILES = {
    "ifupdown": ("/etc/network/interfaces", "/etc/network/interfaces.d/*"),
    "netplan": ("/etc/netplan/*.yaml", "/run/netplan/*.yaml", "/lib/netplan/*.yaml"),
    "cloud-init": ("/etc/cloud/cloud.cfg.d/*.cfg",),
    "NetworkManager": ("/etc/NetworkManager/system-connections/*",),
    "dhcpcd": ("/etc/dhcpcd.conf",),
}
PROGRAMS = {
    "ifupdown": ("/usr/sbin/ifup", "/sbin/ifup"),
    "netplan": ("/usr/lib/systemd/system-generators/netplan", "/lib/systemd/system-generators/netplan"),
    "cloud-init": ("/usr/bin/cloud-init",),
    "NetworkManager": ("/usr/sbin/NetworkManager",),
    "dhcpcd": ("/usr/sbin/dhcpcd", "/sbin/dhcpcd"),
}
UNITS = (
    "NetworkManager.service",
    "dhcpcd.service",
    "networking.service",
    "cloud-init.service",
    "docker.service",
    "ufw.service",
    "firewalld.service",
    "nftables.service",
    "netfilter-persistent.service",
    "libvirtd.service",
    "chrony.service",
    "ntpsec.service",
    "systemd-timesyncd.service",
    "systemd-networkd-wait-online.service",
)
DISK_FOLDERS = ("/", "/etc", "/opt", "/var/lib", "/var/tmp", "/tmp", "/run")
LARGEST_FILE = 65536
MODULES = ("tun", "nf_tables", "nft_fib_inet", "nft_masq", "nft_ct", "8021q")
SOCKET = re.compile(r'\("(?P<name>[^"]*)",pid=(?P<pid>\d+)')


def read(path: str | Path) -> str | None:
    """Text of a small file, None when it can't be read or is none."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113
            return None
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read(LARGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return None


def os_release(text: str) -> dict[str, str]:
    """Values of os-release(5)."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def ssh_connection(process: int) -> list[str]:
    """The four words of SSH_CONNECTION (sshd(8)): client's address and port, own address and port; [] without ssh.

    sudo takes the variable away, so the environments of the parents are read, too.
    """
    while process > 1:
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            for entry in environment:
                if entry.startswith(b"SSH_CONNECTION="):
                    words = entry.partition(b"=")[2].decode("ascii", "replace").split()
                    return words if len(words) == 4 else []
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return []
    return []


def sockets(text: str) -> list[dict[str, Any]]:
    """Sockets that wait for others in the output of `ss -Hltunp`, each with the process that has it."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        address, _, port = fields[4].rpartition(":")
        if not port.isdigit():
            continue
        address, _, device = address.strip("[]").partition("%")
        owner = SOCKET.search(" ".join(fields[6:]))
        found.append(
            {
                "protocol": fields[0],
                "address": address.strip("[]"),
                "device": device.strip("[]"),
                "port": int(port),
                "process": owner["name"] if owner else "",
                "pid": int(owner["pid"]) if owner else 0,
                "unit": unit_of(int(owner["pid"])) if owner else "",
            }
        )
    return found


def unit_of(pid: int) -> str:
    """The systemd service that a process belongs to, '' when it is in none."""
    groups = read(f"/proc/{pid}/cgroup") or ""
    names = re.findall(r"/([^/\n]+\.service)", groups)
    return names[-1] if names else ""


def lease(index: int, folder: str = "/run/systemd/netif/leases") -> dict[str, str]:
    """The DHCPv4 lease that systemd-networkd has on a link: address and client identifier (hexadecimal); '' without."""
    text = read(f"{folder}/{index}") or ""
    address = re.search(r"^ADDRESS=(\S+)$", text, re.MULTILINE)
    client = re.search(r"^CLIENTID=([0-9A-Fa-f]+)$", text, re.MULTILINE)
    return {"address": address[1] if address else "", "client": client[1].lower() if client else ""}


def links(listing: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Links of `ip -details -json address show` by name, with what the preflight asks for."""
    return {
        link["ifname"]: {
            "mac": link.get("address", ""),
            "permanent_mac": link.get("permaddr", ""),
            "kind": link.get("linkinfo", {}).get("info_kind", ""),
            "master": link.get("master", ""),
            "altnames": link.get("altnames", []),
            "lease": lease(link.get("ifindex", 0)),
            "addresses": [
                f"{entry['local']}/{entry['prefixlen']}"
                for entry in link.get("addr_info", [])
                if "local" in entry and "prefixlen" in entry
            ],
        }
        for link in listing
        if "ifname" in link
    }


def owner_of(found: dict[str, dict[str, Any]], address: str) -> str:
    """Name of the link that has an address, '' when none has it."""
    plain, _, scope = address.partition("%")
    try:
        wanted = ipaddress.ip_address(plain)
    except ValueError:
        return ""
    # A bridge and its ports, or a VLAN and its parent, have the same link-local address.
    if scope in found:
        return scope
    wanted = getattr(wanted, "ipv4_mapped", None) or wanted
    for name, link in found.items():
        if any(ipaddress.ip_interface(entry).ip == wanted for entry in link["addresses"]):
            return name
    return ""


def network_files(folders: tuple[str, ...] = NETWORK_FOLDERS) -> list[dict[str, str]]:
    """systemd-networkd's files that aren't ours, with the text; not those that a link to /dev/null masks."""
    result = []
    masked: set[str] = set()
    for folder in folders:
        for path in sorted(glob.glob(f"{folder}/*")):  # noqa: PTH207
            name = os.path.basename(path)  # noqa: PTH119
            if "-mpquic-" in name or not name.endswith((".network", ".netdev", ".link")) or name in masked:
                continue
            if os.path.realpath(path) == os.devnull:
                masked.add(name)
                continue
            text = read(path)
            if text is not None:
                result.append({"path": path, "text": text})
    return result


def cloud_configures_network(root: str = "") -> bool:
    """Whether cloud-init is there and hasn't been told to leave the network alone."""
    folder = f"{root}/etc/cloud"
    program, switch = f"{root}/usr/bin/cloud-init", f"{folder}/cloud-init.disabled"
    if not os.path.exists(program) or os.path.exists(switch):  # noqa: PTH110
        return False
    paths = [f"{folder}/cloud.cfg", *sorted(glob.glob(f"{folder}/cloud.cfg.d/*.cfg"))]  # noqa: PTH207
    texts = [read(path) or "" for path in paths]
    disabled = re.compile(r"^network:\s*(\{\s*config:\s*[\"']?disabled|\n\s+config:\s*[\"']?disabled)", re.MULTILINE)
    return not any(disabled.search(text) for text in texts)


def managers(units: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Programs that configure interfaces: whether each is installed and runs, and its files."""
    result = {}
    for name, programs in PROGRAMS.items():
        files = [path for pattern in MANAGER_FILES[name] for path in sorted(glob.glob(pattern))]  # noqa: PTH207
        unit = units.get(f"{name}.service", {})
        result[name] = {
            "installed": any(os.path.exists(program) for program in programs),  # noqa: PTH110
            "active": unit.get("active") == "active",
            "enabled": unit.get("enabled", ""),
            # Contents may hold passwords of wireless networks: only names of interfaces leave the host.
            "files": [{"path": path, "devices": configured_devices(read(path) or "")} for path in files],
            "generator_masked": os.path.realpath(f"/etc/systemd/system-generators/{name}") == os.devnull,
        }
    return result


def purged(text: str) -> list[str]:
    """Packages that would go in the output of `apt-get --simulate purge`."""
    return re.findall(r"^(?:Purg|Remv) (\S+)", text, re.MULTILINE)


def configured_devices(text: str) -> list[str]:
    """Interfaces that a file of ifupdown configures."""
    return sorted({name for name in re.findall(r"^\s*iface\s+(\S+)", text, re.MULTILINE) if name != "lo"})


def ufw_is_enabled(text: str) -> bool:
    """Whether ufw filters, by the text of /etc/ufw/ufw.conf; its unit is active even if it doesn't."""
    found = re.findall(r"^\s*ENABLED\s*=\s*[\"']?(\w+)", text, re.MULTILINE)
    return bool(found) and found[-1].lower() == "yes"


def note_of(text: str | None) -> dict[str, Any] | None:
    """What an earlier run has noted of taking the network over; {} if the note is damaged, None without one."""
    if text is None:
        return None
    try:
        note = json.loads(text)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def unit_states(text: str) -> dict[str, dict[str, str]]:
    """States in `systemctl show --property=Id,ActiveState,UnitFileState,LoadState` of several units."""
    states = {}
    for block in text.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields.get("LoadState") not in (None, "not-found"):
            states[fields.get("Id", "")] = {
                "active": fields.get("ActiveState", ""),
                "enabled": fields.get("UnitFileState", ""),
            }
    return states


def disk() -> dict[str, dict[str, int]]:
    """Free bytes and inodes for root where the run writes, and how it's mounted.

    `device` tells which folders share a file system.
    """
    result = {}
    for folder in DISK_FOLDERS:
        try:
            free = os.statvfs(folder)
            result[folder] = {
                "bytes": free.f_bavail * free.f_frsize,
                # A file system without a fixed number of inodes says 0 of 0.
                "inodes": free.f_favail if free.f_files else -1,
                "device": os.stat(folder).st_dev,  # noqa: PTH116
                "read_only": bool(free.f_flag & os.ST_RDONLY),
                "noexec": bool(free.f_flag & os.ST_NOEXEC),
            }
        except OSError:
            continue
    return result


def missing_modules(folder: Path, loaded: Path) -> list[str]:
    """Modules of the kernel that we need, and that it neither has built in, nor loaded, nor as a file.

    Nothing is known of a kernel without such a folder, as in a container: then none is missing.
    """
    if not folder.is_dir():
        return []
    listed = (read_whole(folder / "modules.builtin") + read_whole(folder / "modules.dep")).splitlines()
    names = {re.sub(r"\.ko.*", "", line.partition(":")[0].rpartition("/")[2]).replace("-", "_") for line in listed}
    return [name for name in MODULES if name not in names and not (loaded / name).is_dir()]


def read_whole(path: Path) -> str:
    """Text of a file of any size, '' when it can't be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def memory() -> int:
    """Bytes of memory."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "path", "default": "/etc/mpquic/instances"},
            "pki": {"type": "path", "default": "/etc/mpquic/pki"},
            "certificate": {"type": "str", "required": True},
            "taken_over": {"type": "path", "default": "/var/lib/mpquic/taken-over.json"},
        },
        supports_check_mode=True,
    )
    params = module.params

    def output(*words: str) -> str:
        """Standard output of a command, '' when it isn't installed or fails."""
        program = module.get_bin_path(words[0], opt_dirs=["/usr/sbin", "/sbin"])
        if program is None:
            return ""
        code, out, _ = module.run_command([program, *words[1:]])
        return str(out) if code == 0 else ""

    def listing(*words: str) -> Any:
        return json.loads(output(*words) or "[]")

    found = links(listing("ip", "-details", "-json", "address", "show"))
    units = unit_states(
        output("systemctl", "show", "--property=Id,ActiveState,UnitFileState,LoadState", *UNITS),
    )
    found_managers = managers(units)
    connection = ssh_connection(os.getpid())
    release = os_release(read("/etc/os-release") or "")
    pki = Path(params["pki"])
    survey: dict[str, Any] = {
        "time": time.time(),
        "user": os.geteuid(),
        "system": {
            **{key: release.get(key, "") for key in ("ID", "VERSION_ID", "PRETTY_NAME")},
            "init": (read("/proc/1/comm") or "").strip(),
            "apt": module.get_bin_path("apt-get") is not None,
            "python": list(sys.version_info[:2]),
        },
        "kernel": platform.release(),
        "resolv_conf": os.path.realpath("/etc/resolv.conf"),
        "machine_id": (read("/etc/machine-id") or "").strip(),
        "container": output("systemd-detect-virt", "--container").strip(),
        "connection": {
            "client": connection[0],
            "address": connection[2],
            "port": int(connection[3]),
            "device": owner_of(found, connection[2]),
        }
        if connection and connection[3].isdigit()
        else None,
        "links": found,
        "default_routes": [
            {"family": family, "device": route.get("dev", ""), "gateway": route.get("gateway", "")}
            for family in (4, 6)
            for route in listing("ip", f"-{family}", "-json", "route", "show", "default")
        ],
        "sockets": sockets(output("ss", "-Hltunp")),
        "filters": json.loads(output("nft", "-j", "list", "ruleset") or "{}").get("nftables", []),
        "nft": module.get_bin_path("nft", opt_dirs=["/usr/sbin"]) is not None,
        "legacy_filters": (read("/proc/net/ip_tables_names") or "").split(),
        "units": units,
        "network_files": network_files(),
        "managers": found_managers,
        # Nobody is asked by apt in the run: what goes with a package is known only before.
        "purged": purged(output("apt-get", "--simulate", "purge", "ifupdown"))
        if found_managers["ifupdown"]["installed"]
        else [],
        "cloud_network": cloud_configures_network(),
        "ufw_enabled": ufw_is_enabled(read("/etc/ufw/ufw.conf") or ""),
        "taken_over": note_of(read(params["taken_over"])),
        "ours": os.path.isdir(params["instances"]),  # noqa: PTH112
        "instances": {
            path.stem: text for path in sorted(Path(params["instances"]).glob("*.yml")) if (text := read(path))
        },
        "pki": {"ca": read(pki / "ca.crt"), "certificate": read(pki / f"{params['certificate']}.crt")},
        "disk": disk(),
        "memory": memory(),
        "tun": os.path.exists("/dev/net/tun"),  # noqa: PTH110
        "missing_modules": missing_modules(Path("/lib/modules") / platform.release(), Path("/sys/module")),
        "systemd": output("systemctl", "--version").split()[1:2],
    }
    module.exit_json(changed=False, survey=survey)


if __name__ == "__main__":
    main()
