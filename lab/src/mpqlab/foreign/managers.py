"""Managers of the network beside netplan: programs with a unit and files of their own, that would act again at a boot.

NetworkManager and dhcpcd run and touch no device: what matters is that they are there, enabled and running. cloud-init
writes its file for netplan anew at each boot, unless a file in /etc/cloud/cloud.cfg.d says that it must not.
"""

from __future__ import annotations

from mpqlab.foreign.program import File, Program
from mpqlab.topology import find_wan

_DEVICE = find_wan("wan5").device
_WAITING = "#!/bin/sh\n# Runs, and touches no device.\nexec sleep infinity\n"

_NETWORK_MANAGER_UNIT = """\
[Unit]
Description=Network Manager
Wants=network.target
After=network-pre.target dbus.service
Before=network.target

[Service]
ExecStart=/usr/sbin/NetworkManager --no-daemon

[Install]
WantedBy=multi-user.target
"""
_CONNECTION = f"""\
[connection]
id=uplink
type=ethernet
interface-name={_DEVICE}

[ipv4]
method=auto

[ipv6]
method=auto
"""
_DHCPCD_UNIT = """\
[Unit]
Description=DHCP Client Daemon
Wants=network.target
Before=network.target

[Service]
ExecStart=/usr/sbin/dhcpcd -B

[Install]
WantedBy=multi-user.target
"""
_CLOUD_INIT = f"""\
#!/bin/sh -e
# `cloud-init init`: what its datasource says of the network goes to netplan.
grep -rqsE 'config: *disabled' /etc/cloud/cloud.cfg.d && exit 0
mkdir -p /etc/netplan
cat > /etc/netplan/50-cloud-init.yaml <<'END'
# This file is generated from information provided by the datasource.
network:
    version: 2
    ethernets:
        {_DEVICE}:
            dhcp4: true
END
chmod 600 /etc/netplan/50-cloud-init.yaml
"""
_CLOUD_INIT_UNIT = """\
[Unit]
Description=Initial cloud-init job (metadata service crawler)
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
ExecStart=/usr/bin/cloud-init init
RemainAfterExit=yes

[Install]
WantedBy=cloud-init.target multi-user.target
"""


def network_manager(machine: str) -> Program:
    """Return NetworkManager with a connection for one WAN; the same for each machine."""
    del machine
    files = {
        "usr/sbin/NetworkManager": File(_WAITING, 0o755),
        "etc/NetworkManager/NetworkManager.conf": File("[main]\nplugins=ifupdown,keyfile\n"),
        "etc/NetworkManager/system-connections/uplink.nmconnection": File(_CONNECTION, 0o600),
        "etc/systemd/system/NetworkManager.service": File(_NETWORK_MANAGER_UNIT),
    }
    return Program(files, unit="NetworkManager.service")


def dhcpcd(machine: str) -> Program:
    """Return dhcpcd; the same for each machine."""
    del machine
    files = {
        "usr/sbin/dhcpcd": File(_WAITING, 0o755),
        "etc/dhcpcd.conf": File(f"hostname\nduid\npersistent\nallowinterfaces {_DEVICE}\n"),
        "etc/systemd/system/dhcpcd.service": File(_DHCPCD_UNIT),
    }
    return Program(files, unit="dhcpcd.service")


def cloud_init(machine: str) -> Program:
    """Return cloud-init; the same for each machine. It needs netplan to have an effect."""
    del machine
    files = {
        "usr/bin/cloud-init": File(_CLOUD_INIT, 0o755),
        "etc/cloud/cloud.cfg.d/90_dpkg.cfg": File("datasource_list: [ NoCloud, ConfigDrive, None ]\n"),
        "etc/systemd/system/cloud-init.service": File(_CLOUD_INIT_UNIT),
    }
    return Program(files, unit="cloud-init.service")
