"""The keys of an instance's YAML: their types, ranges and defaults, and which of them a reload applies.

A key is *hot* (applied by a reload) when it is annotated with `HOT`, and needs a restart otherwise.
"""

from __future__ import annotations

import socket
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from mpquic.config.schema import HOT, IFACE_PREFIX
from mpquic.proto.path.address import endpoint

TrafficClass = Annotated[int, msgspec.Meta(ge=0, le=8, description="the number of a class from 1 to 8, or 0 for none")]
Dscp = Annotated[int, msgspec.Meta(ge=0, le=63, description="a whole number from 0 to 63")]
LowLatency = Annotated[bool, msgspec.Meta(description="true or false")]
MaxRate = Annotated[
    int, msgspec.Meta(ge=100_000, le=100_000_000_000, description="bit/s, a whole number of at least 100000")
]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1000, description="a whole number from 1 to 1000")]
Priority = Annotated[int, msgspec.Meta(ge=0, le=1000, description="a whole number from 0 to 1000")]
LARGEST_PORT = 65535
Port = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PORT, description=f"a UDP port from 1 to {LARGEST_PORT}")]
InstanceName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z",
        description="a name of at most 32 letters, digits, '.', '_' or '-'",
    ),
]
# IFNAMSIZ is 16 with the closing NUL; the kernel refuses '/', white space and the names "." and "..".
DeviceName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!\.{1,2}\Z)[^\s/:]{1,15}\Z",
        description="an interface name of 1 to 15 characters without '/' or ':'",
    ),
]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255, description="a text of 1 to 255 characters")]
FilePath = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00]+\Z", description="an absolute path of a file")]
Identity = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^urn:[A-Za-z0-9][A-Za-z0-9-]{0,31}:[^\s]{1,220}\Z", description="a URN like urn:mpquic:site:NAME"
    ),
]
RemoteAddress = Annotated[str, msgspec.Meta(description="an IPv4 or IPv6 address", extra={"format": "address"})]
BindAddress = Annotated[
    str, msgspec.Meta(description="an IPv4 or IPv6 address, or iface:DEVICE", extra={"format": "bind"})
]
Prefix = Annotated[
    str,
    msgspec.Meta(description="an address or prefix like 10.200.5.1/32 without host bits", extra={"format": "prefix"}),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], msgspec.Meta(description="debug, info, warning or error")
]
Milliseconds = Annotated[int, msgspec.Meta(ge=50, le=60000, description="milliseconds from 50 to 60000")]
Seconds = Annotated[float, msgspec.Meta(ge=1, le=300, description="seconds from 1 to 300")]
Transport: TypeAlias = Literal["quic", "stripe"]
TRANSPORT = msgspec.Meta(description="quic or stripe")
Pipes = Annotated[int, msgspec.Meta(ge=1, le=16, description="a whole number from 1 to 16")]
Enabled = Annotated[bool, msgspec.Meta(description="true, or false while it is out of service on purpose")]

MAX_PATHS = 8
"""Paths of one tunnel at most."""
ONE_PATH = ("bind_ip", "remote_addr", "remote_port")
"""Keys that a tunnel over one WAN needs, and one over several states for each path."""
STRIPE_PORT_OFFSET = 1000
"""The stripe port lies so far above the QUIC port, where nobody states it."""


def _device(bind_ip: str) -> str | None:
    return bind_ip.removeprefix(IFACE_PREFIX) if bind_ip.startswith(IFACE_PREFIX) else None


def _address(bind_ip: str) -> str | None:
    return None if bind_ip.startswith(IFACE_PREFIX) else bind_ip


class ClientTls(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a client's identity; `server_name` is what the server's certificate must be made for."""

    ca_file: FilePath
    cert_file: FilePath
    key_file: FilePath
    server_name: Text
    revoked_file: Annotated[FilePath | None, HOT] = None


class ServerTls(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a server's identity, and of the certificates that it no longer accepts."""

    ca_file: FilePath
    cert_file: FilePath
    key_file: FilePath
    revoked_file: Annotated[FilePath | None, HOT] = None


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """What a client identity may do on this server: one tunnel and the inner prefixes that belong to it.

    Not `enabled`: its client's variables say that it is out of service. It is accepted all the same, since a client
    that isn't told yet must not be cut off.
    """

    identity: Identity
    tunnel: InstanceName
    enabled: Enabled = True
    allowed: Annotated[tuple[Prefix, ...], msgspec.Meta(min_length=1, description="a list of at least one prefix")]
    traffic_class: TrafficClass = 0
    weight: Weight = 1
    priority: Priority = 100
    dscp: Dscp = 0
    low_latency: LowLatency = False
    max_rate: MaxRate | None = None
    class_name: Annotated[Text | None, HOT] = None


class _Instance(msgspec.Struct, frozen=True, kw_only=True):
    name: InstanceName
    tun_name: DeviceName
    tun_mtu: Annotated[int, msgspec.Meta(ge=1280, le=9000, description="a whole number from 1280 to 9000")] = 1400
    transport_mode: Annotated[Literal["datagram", "reliable"], msgspec.Meta(description="datagram or reliable")] = (
        "datagram"
    )
    congestion_algorithm: Annotated[
        Literal["auto", "bbr", "cubic", "reno"], msgspec.Meta(description="auto, bbr, cubic or reno")
    ] = "auto"
    max_datagram_size: Annotated[
        int, msgspec.Meta(ge=1200, le=9000, description="bytes of a UDP payload from 1200 to 9000")
    ] = 1200
    udp_gso: Annotated[Literal["auto", "on", "off"], msgspec.Meta(description="auto, on or off")] = "auto"
    stripe_enabled: Annotated[bool, msgspec.Meta(description="true or false")] = True
    stripe_port: Port | None = None
    probe_interval_ms: Annotated[Milliseconds, HOT] = 500
    down_after_ms: Annotated[Milliseconds, HOT] = 3000
    log_level: Annotated[LogLevel, HOT] = "info"

    @property
    def probe_interval(self) -> float:
        """Seconds between two probes."""
        return self.probe_interval_ms / 1000

    @property
    def down_after(self) -> float:
        """Seconds of silence after which a path is down."""
        return self.down_after_ms / 1000


class MultipathPath(msgspec.Struct, frozen=True, kw_only=True):
    """One WAN of a tunnel over several. What it leaves out is the instance's."""

    name: InstanceName
    bind_ip: BindAddress
    remote_addr: RemoteAddress
    remote_port: Port
    weight: Weight | None = None
    priority: Priority | None = None
    pipes: Pipes | None = None
    transport: Annotated[Transport | None, TRANSPORT] = None
    stripe_port: Port | None = None


class PathConfig(NamedTuple):
    """One WAN as used by a client's tunnel."""

    name: str
    bind_device: str | None
    bind_address: str | None
    remote_addr: str
    remote_port: int
    weight: int
    priority: int
    transport: Transport
    stripe_port: int | None
    """The server's port for pipes, where it isn't the one that the server names: behind a NAT that maps ports."""
    pipes: int

    @property
    def endpoint(self) -> str:
        """Where the server is, for people."""
        return endpoint(self.remote_addr, self.remote_port)

    @property
    def family(self) -> int:
        """Address family of the outer packets, socket.AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.remote_addr else socket.AF_INET


class ClientConfig(_Instance, frozen=True, kw_only=True):
    """An instance that connects to a server over one WAN or several.

    Not `enabled`: out of service on purpose, and not started. A tunnel over several WANs (`multipath_enabled`) has the
    keys of `ONE_PATH` in each entry of `multipath_paths` instead of in the instance.
    """

    role: Literal["client"] = "client"
    enabled: Enabled = True
    inner_addresses: Annotated[
        tuple[Prefix, ...], msgspec.Meta(min_length=1, description="a list of at least one prefix")
    ]
    bind_ip: BindAddress | None = None
    remote_addr: RemoteAddress | None = None
    remote_port: Port | None = None
    multipath_enabled: Annotated[bool, msgspec.Meta(description="true or false")] = False
    multipath_policy: Annotated[Literal["failover"], msgspec.Meta(description="failover")] = "failover"
    multipath_paths: Annotated[
        tuple[MultipathPath, ...], msgspec.Meta(max_length=MAX_PATHS, description=f"a list of up to {MAX_PATHS} paths")
    ] = ()
    tls: ClientTls
    tunnel: InstanceName | None = None
    wan: InstanceName | None = None
    traffic_class: TrafficClass = 0
    weight: Weight = 1
    priority: Priority = 100
    dscp: Dscp = 0
    low_latency: LowLatency = False
    max_rate: MaxRate | None = None
    class_name: Annotated[Text | None, HOT] = None
    reconnect_max_s: Annotated[Seconds, HOT] = 8.0
    transport: Annotated[Transport, TRANSPORT] = "quic"
    pipes: Pipes = 4
    stripe_data_shards: Annotated[int, msgspec.Meta(ge=1, le=64, description="a whole number from 1 to 64")] = 10
    stripe_parity_shards: Annotated[int, msgspec.Meta(ge=0, le=64, description="a whole number from 0 to 64")] = 2
    stripe_fec: Annotated[Literal["adaptive", "always", "off"], msgspec.Meta(description="adaptive, always or off")] = (
        "adaptive"
    )
    stripe_fec_max_overhead: Annotated[float, msgspec.Meta(ge=0, le=1, description="a number from 0 to 1")] = 0.5

    @property
    def tunnel_name(self) -> str:
        """The tunnel on the server that this client belongs to: `tunnel`, or the instance's own name."""
        return self.tunnel if self.tunnel is not None else self.name

    @property
    def paths(self) -> tuple[PathConfig, ...]:
        """The paths of the tunnel, in the order in which they were stated."""
        if self.multipath_enabled:
            return tuple(self._path(entry) for entry in self.multipath_paths)
        # Without these keys the instance isn't valid.
        assert self.bind_ip is not None
        assert self.remote_addr is not None
        assert self.remote_port is not None
        name = self.wan or _device(self.bind_ip) or "default"
        only = MultipathPath(
            name=name, bind_ip=self.bind_ip, remote_addr=self.remote_addr, remote_port=self.remote_port
        )
        return (self._path(only),)

    def _path(self, entry: MultipathPath) -> PathConfig:
        stated = entry.transport or self.transport
        return PathConfig(
            name=entry.name,
            bind_device=_device(entry.bind_ip),
            bind_address=_address(entry.bind_ip),
            remote_addr=entry.remote_addr,
            remote_port=entry.remote_port,
            weight=entry.weight or self.weight,
            priority=self.priority if entry.priority is None else entry.priority,
            transport=stated if self.stripe_enabled else "quic",
            stripe_port=entry.stripe_port or self.stripe_port,
            pipes=entry.pipes or self.pipes,
        )

    @property
    def devices(self) -> tuple[str, ...]:
        """WAN devices that this instance depends on."""
        return tuple(path.bind_device for path in self.paths if path.bind_device is not None)


class ServerConfig(_Instance, frozen=True, kw_only=True):
    """An instance that accepts the connections of many clients on one port."""

    role: Literal["server"] = "server"
    bind_ip: BindAddress
    bind_port: Port
    tls: ServerTls
    peers: Annotated[tuple[Peer, ...], HOT] = ()

    @property
    def bind_device(self) -> str | None:
        """The device that every socket is bound to, or None."""
        return _device(self.bind_ip)

    @property
    def bind_address(self) -> str | None:
        """The local address, or None when a device is given instead."""
        return _address(self.bind_ip)

    @property
    def stripe_bind_port(self) -> int:
        """The UDP port of striped paths, bound if `stripe_enabled`: `stripe_port`, or what follows from `bind_port`."""
        return self.stripe_port if self.stripe_port is not None else self.bind_port + STRIPE_PORT_OFFSET

    @property
    def devices(self) -> tuple[str, ...]:
        """A server depends on no WAN device."""
        return ()


InstanceConfig: TypeAlias = ClientConfig | ServerConfig
ROLES: dict[str, type[ClientConfig] | type[ServerConfig]] = {"client": ClientConfig, "server": ServerConfig}
