"""An instance file that is wrong is refused with a sentence for each wrong key."""

from pathlib import Path

import pytest
import yaml
from mpquic.config import ClientConfig, PathConfig, ServerConfig, load, parse
from mpquic.config.reload import compare, hot_keys, take_hot
from mpquic.config.schema import ConfigError

GOLDEN = Path(__file__).parents[3] / "molecule/render/golden"
TLS = {"ca_file": "/pki/ca.crt", "cert_file": "/pki/mpq5.crt", "key_file": "/pki/mpq5.key"}
CLIENT = {
    "name": "mpq5",
    "role": "client",
    "tun_name": "mpq5",
    "inner_addresses": ["10.200.5.1/32", "fd12:3456::1/128"],
    "bind_ip": "iface:enp7s7",
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "wan": "wan5",
    "tls": {**TLS, "server_name": "vps1.example.net"},
}
PEER = {"identity": "urn:mpquic:site:site1", "tunnel": "mpq5", "allowed": ["10.200.5.1/32"]}
OTHER = {"identity": "urn:mpquic:site:site2", "tunnel": "mpq5", "allowed": ["10.200.5.5/32"]}
SERVER = {
    "name": "mpq5",
    "role": "server",
    "tun_name": "mpq5",
    "bind_ip": "::",
    "bind_port": 45005,
    "tls": TLS,
    "peers": [PEER],
}

PATH5 = {"name": "wan5", "bind_ip": "iface:enp7s6", "remote_addr": "203.0.113.10", "remote_port": 45017}
PATH6 = {
    **PATH5,
    "name": "wan6",
    "bind_ip": "iface:enp7s7",
    "priority": 200,
    "weight": 3,
    "pipes": 2,
    "transport": "quic",
    "stripe_port": 50017,
}
MULTIPATH = {
    **{key: value for key, value in CLIENT.items() if key not in ("bind_ip", "remote_addr", "remote_port", "wan")},
    "transport": "stripe",
    "multipath_enabled": True,
    "multipath_paths": [PATH5, PATH6],
}


def problems_of(data: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(data if isinstance(data, str) else yaml.safe_dump(data))
    return [str(problem) for problem in caught.value.problems]


def without(data: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in data.items() if name != key}


def test_a_client_has_the_documented_defaults() -> None:
    config = parse(yaml.safe_dump(CLIENT))
    assert isinstance(config, ClientConfig)
    assert (config.transport_mode, config.congestion_algorithm, config.udp_gso) == ("datagram", "auto", "auto")
    assert (config.tun_mtu, config.probe_interval, config.down_after, config.reconnect_max_s) == (1400, 0.5, 3.0, 8.0)
    assert config.tunnel_name == "mpq5"
    assert config.devices == ("enp7s7",)
    (path,) = config.paths
    assert (path.name, path.bind_device, path.bind_address, path.remote_port) == ("wan5", "enp7s7", None, 45005)


def test_a_server_has_no_devices_and_takes_many_peers() -> None:
    config = parse(yaml.safe_dump({**SERVER, "peers": [PEER, OTHER]}))
    assert isinstance(config, ServerConfig)
    assert config.devices == ()
    assert config.bind_address == "::"
    assert [peer.allowed for peer in config.peers] == [("10.200.5.1/32",), ("10.200.5.5/32",)]


def test_what_the_suite_renders_is_accepted() -> None:
    rendered = sorted(GOLDEN.glob("*/etc/mpquic/instances/*.yml"))
    configs = [load(path) for path in rendered]
    servers = [config for config in configs if isinstance(config, ServerConfig)]
    paths = [path for config in configs if isinstance(config, ClientConfig) for path in config.paths]
    ports = {server.bind_port: server.stripe_bind_port for server in servers if server.stripe_enabled}
    assert {path.transport for path in paths} == {"quic", "stripe"}
    assert all(path.stripe_port == ports[path.remote_port] for path in paths if path.transport == "stripe")


def client_path(**keys: object) -> PathConfig:
    config = parse(yaml.safe_dump({**CLIENT, **keys}))
    assert isinstance(config, ClientConfig)
    (path,) = config.paths
    return path


def test_a_tunnel_over_several_wans_has_a_path_for_each() -> None:
    config = parse(yaml.safe_dump(MULTIPATH))
    assert isinstance(config, ClientConfig)
    assert config.multipath_policy == "failover"
    assert config.devices == ("enp7s6", "enp7s7")
    first, second = config.paths
    assert (first.name, first.bind_device, first.remote_port, first.stripe_port) == ("wan5", "enp7s6", 45017, None)
    assert (first.transport, first.priority, first.weight, first.pipes) == ("stripe", 100, 1, 4)
    assert (second.name, second.stripe_port) == ("wan6", 50017)
    assert (second.transport, second.priority, second.weight, second.pipes) == ("quic", 200, 3, 2)


def test_a_path_is_striped_where_it_says_so_and_no_kill_switch_is_set() -> None:
    assert client_path().transport == "quic"
    assert client_path(transport="stripe").transport == "stripe"
    assert client_path(transport="stripe", stripe_enabled=False).transport == "quic"


def test_striping_has_the_documented_defaults() -> None:
    config = parse(yaml.safe_dump({**CLIENT, "transport": "stripe"}))
    assert isinstance(config, ClientConfig)
    (path,) = config.paths
    assert (path.pipes, path.stripe_port) == (4, None)
    assert (config.stripe_data_shards, config.stripe_parity_shards) == (10, 2)
    assert (config.stripe_fec, config.stripe_fec_max_overhead) == ("adaptive", 0.5)
    server = parse(yaml.safe_dump(SERVER))
    assert isinstance(server, ServerConfig)
    assert (server.stripe_enabled, server.stripe_bind_port) == (True, 46005)


def test_a_stated_stripe_port_wins_at_both_ends() -> None:
    path = client_path(transport="stripe", stripe_port=50001, pipes=16)
    assert (path.stripe_port, path.pipes) == (50001, 16)
    server = parse(yaml.safe_dump({**SERVER, "stripe_port": 50001}))
    assert isinstance(server, ServerConfig)
    assert server.stripe_bind_port == 50001


def test_a_stripe_port_matters_only_to_those_who_use_it() -> None:
    assert client_path(remote_port=65000).transport == "quic"
    assert client_path(remote_port=65000, transport="stripe", stripe_enabled=False).transport == "quic"
    assert client_path(transport="stripe", stripe_enabled=False, transport_mode="reliable").transport == "quic"
    server = parse(yaml.safe_dump({**SERVER, "bind_port": 65000, "stripe_enabled": False}))
    assert isinstance(server, ServerConfig)


PREFIX = "an address or prefix like 10.200.5.1/32 without host bits"
WRONG = {
    "misspelt key": ({**CLIENT, "remote_prt": 1}, ["remote_prt: unknown key; did you mean remote_port?"]),
    "misspelt key in tls": (
        {**CLIENT, "tls": {**CLIENT["tls"], "sever_name": "x"}},  # type: ignore[dict-item]
        ["tls.sever_name: unknown key; did you mean server_name?"],
    ),
    "key of a server": ({**CLIENT, "peers": []}, ["peers: unknown key; it belongs to role server"]),
    "key of a client": ({**SERVER, "remote_addr": "::1"}, ["remote_addr: unknown key; it belongs to role client"]),
    "key like nothing": (
        {**SERVER, "tls": {**TLS, "zzz": 1}},
        ["tls.zzz: unknown key; expected one of ca_file, cert_file, key_file, revoked_file"],
    ),
    "no role": (without(CLIENT, "role"), ["role: missing; expected client or server"]),
    "wrong role": (
        {**CLIENT, "role": "klient"},
        ["role: expected client or server, not 'klient'; did you mean client?"],
    ),
    "no remote": (without(CLIENT, "remote_addr"), ["remote_addr: missing; expected an IPv4 or IPv6 address"]),
    "no tls": (
        without(SERVER, "tls"),
        ["tls: missing; expected a mapping with ca_file, cert_file, key_file, revoked_file"],
    ),
    "tls isn't a mapping": ({**SERVER, "tls": "x"}, ["tls: expected a mapping of keys, not 'x'"]),
    "port too large": (
        {**CLIENT, "remote_port": 65536},
        ["remote_port: expected a UDP port from 1 to 65535, not 65536"],
    ),
    "port as text": (
        {**CLIENT, "remote_port": "45005"},
        ["remote_port: expected a UDP port from 1 to 65535, not '45005'"],
    ),
    "yes for a number": (
        {**CLIENT, "probe_interval_ms": True},
        ["probe_interval_ms: expected milliseconds from 50 to 60000, not True"],
    ),
    "host name as address": (
        {**CLIENT, "remote_addr": "vps1"},
        ["remote_addr: expected an IPv4 or IPv6 address, not 'vps1'"],
    ),
    "long device": (
        {**CLIENT, "bind_ip": "iface:enp7s7enp7s7enp7"},
        ["bind_ip: expected an IPv4 or IPv6 address, or iface:DEVICE, not 'iface:enp7s7enp7s7enp7'"],
    ),
    "other family": (
        {**CLIENT, "bind_ip": "::1"},
        ["bind_ip: expected an IPv4 address as remote_addr is, not '::1'"],
    ),
    "long TUN name": (
        {**CLIENT, "tun_name": "a" * 16},
        ["tun_name: expected an interface name of 1 to 15 characters without '/' or ':', not 'aaaaaaaaaaaaaaaa'"],
    ),
    "small MTU": ({**CLIENT, "tun_mtu": 1279}, ["tun_mtu: expected a whole number from 1280 to 9000, not 1279"]),
    "unknown mode": (
        {**CLIENT, "transport_mode": "relaible"},
        ["transport_mode: expected datagram or reliable, not 'relaible'; did you mean reliable?"],
    ),
    "unknown congestion control": (
        {**CLIENT, "congestion_algorithm": "bbr2"},
        ["congestion_algorithm: expected auto, bbr, cubic or reno, not 'bbr2'; did you mean bbr?"],
    ),
    "host bits": (
        {**CLIENT, "inner_addresses": ["10.200.5.1/30"]},
        [f"inner_addresses[0]: expected {PREFIX}, not '10.200.5.1/30'; did you mean 10.200.5.0/30?"],
    ),
    "no inner address": (
        {**CLIENT, "inner_addresses": []},
        ["inner_addresses: expected a list of at least one prefix, not []"],
    ),
    "inner address twice": (
        {**CLIENT, "inner_addresses": ["10.200.5.1/32", "10.200.5.1"]},
        ["inner_addresses[1]: 10.200.5.1 is given twice, first as inner_addresses[0]"],
    ),
    "relative path": (
        {**SERVER, "tls": {**TLS, "key_file": "mpq5.key"}},
        ["tls.key_file: expected an absolute path of a file, not 'mpq5.key'"],
    ),
    "down before the second probe": (
        {**CLIENT, "down_after_ms": 900},
        ["down_after_ms: expected at least twice probe_interval_ms (1000), not 900"],
    ),
    "identity that is no URN": (
        {**SERVER, "peers": [{**PEER, "identity": "site1"}]},
        ["peers[0].identity: expected a URN like urn:mpquic:site:NAME, not 'site1'"],
    ),
    "peer twice": (
        {**SERVER, "peers": [PEER, {**PEER, "allowed": ["10.200.5.9/32"]}]},
        ["peers[1]: identity and tunnel are those of peers[0]; one entry for each pair"],
    ),
    "prefix of another peer": (
        {**SERVER, "peers": [PEER, {**OTHER, "allowed": ["10.200.5.1/32"]}]},
        ["peers[1].allowed: 10.200.5.1/32 overlaps 10.200.5.1/32 of peers[0]"],
    ),
    "prefix inside that of another peer": (
        {**SERVER, "peers": [{**PEER, "allowed": ["10.200.0.0/16"]}, {**OTHER, "allowed": ["10.200.9.0/24"]}]},
        ["peers[1].allowed: 10.200.9.0/24 overlaps 10.200.0.0/16 of peers[0]"],
    ),
    "peers isn't a list": ({**SERVER, "peers": {}}, ["peers: expected a list, not {}"]),
    "empty value": ({**CLIENT, "name": None}, [
        "name: expected a name of at most 32 letters, digits, '.', '_' or '-', not an empty value"
    ]),
    "unknown transport": (
        {**CLIENT, "transport": "strip"},
        ["transport: expected quic or stripe, not 'strip'; did you mean stripe?"],
    ),
    "transport of a server": ({**SERVER, "transport": "stripe"}, ["transport: unknown key; it belongs to role client"]),
    "ranges of striping": (
        {
            **CLIENT,
            "pipes": 17,
            "stripe_data_shards": 0,
            "stripe_parity_shards": 65,
            "stripe_fec": False,
            "stripe_fec_max_overhead": 1.5,
        },
        [
            "pipes: expected a whole number from 1 to 16, not 17",
            "stripe_data_shards: expected a whole number from 1 to 64, not 0",
            "stripe_parity_shards: expected a whole number from 0 to 64, not 65",
            "stripe_fec: expected adaptive, always or off, not False",
            "stripe_fec_max_overhead: expected a number from 0 to 1, not 1.5",
        ],
    ),
    "stripe port as text": (
        {**CLIENT, "stripe_port": "46005"},
        ["stripe_port: expected a UDP port from 1 to 65535, not '46005'"],
    ),
    "switch as text": ({**CLIENT, "stripe_enabled": "no"}, ["stripe_enabled: expected true or false, not 'no'"]),
    "no room for the server's stripe port": (
        {**SERVER, "bind_port": 65000},
        ["stripe_port: bind_port + 1000 is 66000, no UDP port; state stripe_port"],
    ),
    "stripe port of the client is the QUIC port": (
        {**CLIENT, "transport": "stripe", "stripe_port": 45005},
        ["stripe_port: expected another port than remote_port, not 45005"],
    ),
    "stripe port of the server is the QUIC port": (
        {**SERVER, "stripe_port": 45005},
        ["stripe_port: expected another port than bind_port, not 45005"],
    ),
    "paths without multipath": (
        {**CLIENT, "multipath_paths": [PATH5]},
        ["multipath_paths: expected multipath_enabled: true beside it, or no such key"],
    ),
    "multipath without paths": (
        {**MULTIPATH, "multipath_paths": []},
        ["multipath_paths: missing; expected a list of at least one path"],
    ),
    "one path's keys beside several": (
        {**MULTIPATH, "bind_ip": "iface:enp7s6", "wan": "wan5"},
        [
            "bind_ip: expected in each entry of multipath_paths instead, since multipath_enabled is true",
            "wan: expected in each entry of multipath_paths instead, since multipath_enabled is true",
        ],
    ),
    "one WAN twice": (
        {**MULTIPATH, "multipath_paths": [PATH5, PATH5]},
        [
            "multipath_paths[1].name: that of multipath_paths[0]; expected another for each path",
            "multipath_paths[1].bind_ip: that of multipath_paths[0]; expected another for each path",
        ],
    ),
    "policy of the future": (
        {**MULTIPATH, "multipath_policy": "balanced"},
        ["multipath_policy: expected failover, not 'balanced'"],
    ),
    "paths that aren't a list": (
        {**MULTIPATH, "multipath_paths": "x"},
        ["multipath_paths: expected a list of up to 8 paths, not 'x'"],
    ),
    "a path of another family": (
        {**MULTIPATH, "multipath_paths": [PATH5, {**PATH6, "bind_ip": "::1"}]},
        ["multipath_paths[1].bind_ip: expected an IPv4 address as remote_addr is, not '::1'"],
    ),
    "a path without its port": (
        {**MULTIPATH, "multipath_paths": [without(PATH5, "remote_port")]},
        ["multipath_paths[0].remote_port: missing; expected a UDP port from 1 to 65535"],
    ),
    "reliable over stripe on one of two paths": (
        {**MULTIPATH, "transport_mode": "reliable"},
        ["transport_mode: expected datagram with transport: stripe, which sends again by itself, not reliable"],
    ),
    "reliable stripe": (
        {**CLIENT, "transport": "stripe", "transport_mode": "reliable"},
        ["transport_mode: expected datagram with transport: stripe, which sends again by itself, not reliable"],
    ),
    "two at once": (
        {**CLIENT, "weight": 0, "log_level": "loud"},
        [
            "log_level: expected debug, info, warning or error, not 'loud'",
            "weight: expected a whole number from 1 to 1000, not 0",
        ],
    ),
    "key twice": ("name: a\nrole: client\nname: b\n", ["name: given twice, again in line 3"]),
    "not YAML": ("name: [", ["not valid YAML in line 1: expected the node content, but found '<stream end>'"]),
    "not a mapping": ("- a\n", ["expected a mapping of keys, not ['a']"]),
    "empty file": ("", ["expected a mapping of keys, not an empty value"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_the_reason(case: str) -> None:
    data, expected = WRONG[case]
    assert problems_of(data) == expected


def test_a_tunnel_has_a_bounded_number_of_paths() -> None:
    paths = [{**PATH5, "name": f"wan{n}", "bind_ip": f"iface:eth{n}"} for n in range(9)]
    (problem,) = problems_of({**MULTIPATH, "multipath_paths": paths})
    assert problem.startswith("multipath_paths: expected a list of up to 8 paths, not [")


def test_hot_keys_are_those_that_break_no_connection() -> None:
    hot = {"log_level", "probe_interval_ms", "down_after_ms"}
    assert hot_keys(ClientConfig) == hot | {"reconnect_max_s", "class_name"}
    assert hot_keys(ServerConfig) == hot | {"peers"}


def test_a_reload_takes_hot_keys_and_names_those_that_need_a_restart() -> None:
    old = parse(yaml.safe_dump(SERVER))
    new = parse(
        yaml.safe_dump(
            {
                **SERVER,
                "peers": [PEER, OTHER],
                "tun_mtu": 1380,
                "tls": {**TLS, "cert_file": "/pki/new.crt", "revoked_file": "/pki/revoked.txt"},
            }
        )
    )
    changes = compare(old, new)
    assert set(changes.hot) == {"peers", "tls.revoked_file"}
    assert set(changes.restart) == {"tun_mtu", "tls.cert_file"}
    merged = take_hot(old, new)
    assert isinstance(merged, ServerConfig)
    assert isinstance(new, ServerConfig)
    assert merged.peers == new.peers
    assert merged.tls.revoked_file == "/pki/revoked.txt"
    assert merged.tls.cert_file == "/pki/mpq5.crt"
    assert merged.tun_mtu == 1400
    assert compare(merged, new) == ((), changes.restart)


def test_out_of_service_is_a_matter_of_running_for_a_client_and_of_a_reload_for_its_server() -> None:
    client = parse(yaml.safe_dump(CLIENT))
    held = parse(yaml.safe_dump({**CLIENT, "enabled": False}))
    assert compare(client, parse(yaml.safe_dump({**CLIENT, "enabled": True}))) == ((), ())
    assert compare(client, held) == ((), ("enabled",))
    server = parse(yaml.safe_dump({**SERVER, "peers": [PEER, OTHER]}))
    told = parse(yaml.safe_dump({**SERVER, "peers": [{**PEER, "enabled": False}, OTHER]}))
    assert compare(server, told) == (("peers",), ())
    assert isinstance(told, ServerConfig)
    assert [peer.enabled for peer in told.peers] == [False, True]
    assert problems_of({**CLIENT, "enabled": "no"}) == [
        "enabled: expected true, or false while it is out of service on purpose, not 'no'"
    ]


def test_an_unchanged_file_changes_nothing_and_another_role_needs_a_restart() -> None:
    client, server = parse(yaml.safe_dump(CLIENT)), parse(yaml.safe_dump(SERVER))
    assert compare(client, client) == ((), ())
    assert compare(client, server) == ((), ("role",))
