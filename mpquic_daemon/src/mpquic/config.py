"""The YAML of one instance: its schema, its errors, and which keys a running daemon can take over.

The schema is strict: an unknown key, a wrong type and a value out of range are errors, and all of them are
reported at once, each with the key, what was expected and the nearest valid name. A key is *hot* (applied by
a reload) when it is annotated with `HOT`, and needs a restart otherwise.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
import yaml

from mpquic import files
from mpquic.schema import HOT, IFACE_PREFIX, ConfigError, Problem, check_struct, fields_of, nearest_value, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

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
Enabled = Annotated[bool, msgspec.Meta(description="true, or false while it is out of service on purpose")]

STRIPE_PORT_OFFSET = 1000
"""The stripe port lies so far above the QUIC port, where nobody states it."""


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
    bind_ip: BindAddress
    tun_mtu: Annotated[int, msgspec.Meta(ge=1280, le=9000, description="a whole number from 1280 to 9000")] = 1400
    transport_mode: Annotated[Literal["datagram", "reliable"], msgspec.Meta(description="datagram or reliable")] = (
        "datagram"
    )
    congestion_algorithm: Annotated[Literal["cubic", "reno"], msgspec.Meta(description="cubic or reno")] = "cubic"
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
    def bind_device(self) -> str | None:
        """The device that every socket is bound to, or None."""
        return self.bind_ip.removeprefix(IFACE_PREFIX) if self.bind_ip.startswith(IFACE_PREFIX) else None

    @property
    def bind_address(self) -> str | None:
        """The local address, or None when a device is given instead."""
        return None if self.bind_ip.startswith(IFACE_PREFIX) else self.bind_ip

    @property
    def probe_interval(self) -> float:
        """Seconds between two probes."""
        return self.probe_interval_ms / 1000

    @property
    def down_after(self) -> float:
        """Seconds of silence after which a path is down."""
        return self.down_after_ms / 1000


class ClientPath(NamedTuple):
    """One WAN as used by a client's tunnel."""

    name: str
    bind_device: str | None
    bind_address: str | None
    remote_addr: str
    remote_port: int
    weight: int
    priority: int
    transport: Transport
    stripe_port: int
    pipes: int

    @property
    def family(self) -> int:
        """Address family of the outer packets, socket.AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.remote_addr else socket.AF_INET


class ClientConfig(_Instance, frozen=True, kw_only=True):
    """An instance that connects to a server over a WAN. Not `enabled`: out of service on purpose, and not started."""

    role: Literal["client"] = "client"
    enabled: Enabled = True
    site: InstanceName
    inner_addresses: Annotated[
        tuple[Prefix, ...], msgspec.Meta(min_length=1, description="a list of at least one prefix")
    ]
    remote_addr: RemoteAddress
    remote_port: Port
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
    transport: Annotated[Transport, msgspec.Meta(description="quic or stripe")] = "quic"
    pipes: Annotated[int, msgspec.Meta(ge=1, le=16, description="a whole number from 1 to 16")] = 4
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
    def paths(self) -> tuple[ClientPath, ...]:
        """The paths of the tunnel, in order of preference; one so far."""
        path = ClientPath(
            name=self.wan or self.bind_device or "default",
            bind_device=self.bind_device,
            bind_address=self.bind_address,
            remote_addr=self.remote_addr,
            remote_port=self.remote_port,
            weight=self.weight,
            priority=self.priority,
            transport=self.transport if self.stripe_enabled else "quic",
            stripe_port=self.stripe_remote_port,
            pipes=self.pipes,
        )
        return (path,)

    @property
    def stripe_remote_port(self) -> int:
        """The server's UDP port of striped paths: `stripe_port`, or what follows from `remote_port`."""
        return self.stripe_port if self.stripe_port is not None else self.remote_port + STRIPE_PORT_OFFSET

    @property
    def devices(self) -> tuple[str, ...]:
        """WAN devices that this instance depends on."""
        return tuple(path.bind_device for path in self.paths if path.bind_device is not None)


class ServerConfig(_Instance, frozen=True, kw_only=True):
    """An instance that accepts the connections of many clients on one port."""

    role: Literal["server"] = "server"
    bind_port: Port
    tls: ServerTls
    peers: Annotated[tuple[Peer, ...], HOT] = ()

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


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML 1.2 section 3.2.1.3); PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise ConfigError([Problem(key, f"given twice, again in line {key_node.start_mark.line + 1}")])
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path) -> InstanceConfig:
    """Read and check the instance file `path`; ConfigError lists all that is wrong with it."""
    try:
        text = files.read(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([Problem("", f"can't read {path}: {reason}")]) from error
    return parse(text)


def check_files(config: InstanceConfig) -> list[Problem]:
    """Return what is wrong with the files that `config` names: each must be there, and be readable by this user.

    Whether certificate and key fit each other is for the daemon's start to tell.
    """
    problems = []
    for key in ("ca_file", "cert_file", "key_file", "revoked_file"):
        path = getattr(config.tls, key)
        if path is None:
            continue
        try:
            empty = not files.read(path)
        except OSError as error:
            problems.append(Problem(f"tls.{key}", f"can't read {path}: {error.strerror}"))
        else:
            if empty and key != "revoked_file":
                problems.append(Problem(f"tls.{key}", f"{path} is empty"))
    return problems


def parse(text: str) -> InstanceConfig:
    """Check the YAML `text`; ConfigError lists all that is wrong with it."""
    try:
        # _UniqueKeyLoader is a SafeLoader: it builds plain data only.
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError([Problem("", f"not valid YAML{where}: {reason}")]) from error
    if not isinstance(data, dict):
        raise ConfigError([Problem("", f"expected a mapping of keys, not {shown(data)}")])
    if "role" not in data:
        raise ConfigError([Problem("role", "missing; expected client or server")])
    role = data["role"]
    model = ROLES.get(role) if isinstance(role, str) else None
    if model is None:
        raise ConfigError(
            [Problem("role", f"expected client or server, not {shown(role)}{nearest_value(role, ROLES)}")]
        )
    problems = list(check_struct(data, model, elsewhere=_keys_of_the_other_role(model)))
    if problems:
        raise ConfigError(problems)
    config = msgspec.convert(data, model)
    problems = list(_check_meaning(config))
    if problems:
        raise ConfigError(problems)
    return config


def _keys_of_the_other_role(model: type[msgspec.Struct]) -> dict[str, str]:
    return {
        key: f"it belongs to role {role}"
        for role, other in ROLES.items()
        if other is not model
        for key in fields_of(other)
    }


def _check_meaning(config: InstanceConfig) -> Iterator[Problem]:
    """What no single key can tell: how keys fit each other."""
    if config.down_after_ms < 2 * config.probe_interval_ms:
        yield Problem(
            "down_after_ms",
            f"expected at least twice probe_interval_ms ({2 * config.probe_interval_ms}), not {config.down_after_ms}",
        )
    if isinstance(config, ClientConfig):
        yield from _check_unique(config.inner_addresses, "inner_addresses")
        if config.bind_address is not None:
            local, remote = ipaddress.ip_address(config.bind_address), ipaddress.ip_address(config.remote_addr)
            if local.version != remote.version:
                yield Problem("bind_ip", f"expected an IPv{remote.version} address as remote_addr is, not '{local}'")
        if any(path.transport == "stripe" for path in config.paths):
            yield from _check_stripe_port(config.stripe_port, config.remote_port, "remote_port")
            if config.transport_mode == "reliable":
                yield Problem(
                    "transport_mode",
                    "expected datagram with transport: stripe, which sends again by itself, not reliable",
                )
        return
    if config.stripe_enabled:
        yield from _check_stripe_port(config.stripe_port, config.bind_port, "bind_port")
    names: dict[tuple[str, str], int] = {}
    owned: list[tuple[Network, int]] = []
    for index, peer in enumerate(config.peers):
        first = names.setdefault((peer.identity, peer.tunnel), index)
        if first != index:
            yield Problem(
                f"peers[{index}]", f"identity and tunnel are those of peers[{first}]; one entry for each pair"
            )
        yield from _check_unique(peer.allowed, f"peers[{index}].allowed")
        owned += [(ipaddress.ip_network(prefix), index) for prefix in peer.allowed]
    # Sorted, a prefix that lies inside others comes right after the last one that contains it.
    owned.sort(key=lambda entry: (entry[0].version, entry[0].network_address.packed, entry[0].prefixlen))
    for (outer, owner), (inner, index) in itertools.pairwise(owned):
        if owner != index and outer.version == inner.version and outer.overlaps(inner):
            yield Problem(f"peers[{index}].allowed", f"{inner} overlaps {outer} of peers[{owner}]")


def _check_stripe_port(stated: int | None, quic_port: int, quic_key: str) -> Iterator[Problem]:
    if stated == quic_port:
        yield Problem("stripe_port", f"expected another port than {quic_key}, not {stated}")
    elif stated is None and quic_port + STRIPE_PORT_OFFSET > LARGEST_PORT:
        yield Problem(
            "stripe_port",
            f"{quic_key} + {STRIPE_PORT_OFFSET} is {quic_port + STRIPE_PORT_OFFSET}, no UDP port; state stripe_port",
        )


def _check_unique(prefixes: tuple[str, ...], key: str) -> Iterator[Problem]:
    seen: dict[Network, int] = {}
    for index, prefix in enumerate(prefixes):
        first = seen.setdefault(ipaddress.ip_network(prefix), index)
        if first != index:
            yield Problem(f"{key}[{index}]", f"{prefix} is given twice, first as {key}[{first}]")
