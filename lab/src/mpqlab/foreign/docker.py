"""Docker with one container: bridge, rules as iptables-nft writes them, and a web server with a published port."""

from __future__ import annotations

from mpqlab.foreign.program import File, Program

BRIDGE = "docker0"
NETWORK = "172.17.0.0/16"
BRIDGE_ADDRESS = "172.17.0.1/16"
CONTAINER = "web"
"""The container's network namespace inside the machine: `ip netns exec web CMD`."""
CONTAINER_ADDRESS = "172.17.0.2"
PUBLISHED_PORT = 8080
ANSWER = "answer of the container"

_FILTER = f"""\
table ip filter {{
	chain DOCKER {{
		iifname != "{BRIDGE}" oifname "{BRIDGE}" ip daddr {CONTAINER_ADDRESS} tcp dport 80 counter accept
	}}
	chain DOCKER-ISOLATION-STAGE-2 {{
		oifname "{BRIDGE}" counter drop
		counter return
	}}
	chain DOCKER-ISOLATION-STAGE-1 {{
		iifname "{BRIDGE}" oifname != "{BRIDGE}" counter jump DOCKER-ISOLATION-STAGE-2
		counter return
	}}
	chain DOCKER-USER {{
		counter return
	}}
	chain FORWARD {{
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		counter jump DOCKER-ISOLATION-STAGE-1
		oifname "{BRIDGE}" ct state related,established counter accept
		oifname "{BRIDGE}" counter jump DOCKER
		iifname "{BRIDGE}" oifname != "{BRIDGE}" counter accept
		iifname "{BRIDGE}" oifname "{BRIDGE}" counter accept
	}}
}}
"""
_NAT = f"""\
table ip nat {{
	chain DOCKER {{
		iifname "{BRIDGE}" counter return
		iifname != "{BRIDGE}" tcp dport {PUBLISHED_PORT} counter dnat to {CONTAINER_ADDRESS}:80
	}}
	chain PREROUTING {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter jump DOCKER
	}}
	chain OUTPUT {{
		type nat hook output priority -100; policy accept;
		ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
	}}
	chain POSTROUTING {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "{BRIDGE}" ip saddr {NETWORK} counter masquerade
		ip saddr {CONTAINER_ADDRESS} ip daddr {CONTAINER_ADDRESS} tcp dport 80 counter masquerade
	}}
}}
"""
_UP = f"""\
#!/bin/sh -e
ip link add {BRIDGE} type bridge
ip address add {BRIDGE_ADDRESS} dev {BRIDGE}
ip link set {BRIDGE} up
ip netns add {CONTAINER}
ip link add veth{CONTAINER} master {BRIDGE} type veth peer name eth0 netns {CONTAINER}
ip link set veth{CONTAINER} up
ip -n {CONTAINER} link set lo up
ip -n {CONTAINER} address add {CONTAINER_ADDRESS}/16 dev eth0
ip -n {CONTAINER} link set eth0 up
ip -n {CONTAINER} route add default via {BRIDGE_ADDRESS.partition("/")[0]}
echo 1 > /proc/sys/net/ipv4/ip_forward
nft list chain ip filter DOCKER >/dev/null 2>&1 || nft -f /usr/local/share/docker/filter.nft
nft -f /usr/local/share/docker/nat.nft
"""
_DOWN = f"""\
#!/bin/sh
ip link delete {BRIDGE}
ip netns delete {CONTAINER}
nft delete table ip nat
# The other table is shared with ufw: the last of the two takes it away.
systemctl --quiet is-active ufw.service || nft delete table ip filter
"""
_UNIT = f"""\
[Unit]
Description=Docker Application Container Engine
After=network-online.target nftables.service
Wants=network-online.target

[Service]
Type=exec
ExecStartPre=/usr/local/sbin/docker-up
ExecStart=/usr/bin/ip netns exec {CONTAINER} /usr/bin/python3 -m http.server 80 --directory /usr/local/share/docker/web
ExecStopPost=-/usr/local/sbin/docker-down

[Install]
WantedBy=multi-user.target
"""


def program(machine: str) -> Program:
    """Return Docker; the same for each machine."""
    del machine
    files = {
        "usr/local/share/docker/filter.nft": File(_FILTER),
        "usr/local/share/docker/nat.nft": File(_NAT),
        "usr/local/share/docker/web/index.html": File(f"{ANSWER}\n"),
        "usr/local/sbin/docker-up": File(_UP, 0o755),
        "usr/local/sbin/docker-down": File(_DOWN, 0o755),
        "etc/systemd/system/docker.service": File(_UNIT),
    }
    return Program(files, unit="docker.service")
