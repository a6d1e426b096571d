"""A site in three namespaces: client, a network in the middle, server; with a CA and real processes.

    client wan0 10.77.1.2 -- 10.77.1.1 middle 10.77.2.1 -- 10.77.2.2 eth0 server

The inner addresses are 10.200.9.1 (client) and 10.200.9.2 (server), fd09::1 and fd09::2.
"""

import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from waiting import wait_for

IDENTITY = "urn:mpquic:site:site1"
SERVER_NAME = "vps1.example.net"
DAY = dt.timedelta(days=1)


class Authority:
    """A private CA that writes PEM files into a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        now = dt.datetime.now(dt.UTC)
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder(self.subject, self.subject, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.file = directory / f"{name}.crt"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, alternative: x509.GeneralName, usage: x509.ObjectIdentifier, *, age: dt.timedelta = DAY,
        life: dt.timedelta = 10 * DAY,
    ) -> tuple[Path, Path, int]:  # fmt: skip
        """Write NAME.crt and NAME.key; return both and the serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        begin = dt.datetime.now(dt.UTC) - age
        builder = x509.CertificateBuilder(self.subject, x509.Name([]), key.public_key(), x509.random_serial_number())
        certificate = (
            builder.not_valid_before(begin)
            .not_valid_after(begin + life)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        certificate_file, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_file, key_file, certificate.serial_number

    def client(self, name: str, uri: str = IDENTITY, **times: dt.timedelta) -> tuple[Path, Path, int]:
        """Issue a client's certificate."""
        return self.issue(name, x509.UniformResourceIdentifier(uri), ExtendedKeyUsageOID.CLIENT_AUTH, **times)

    def server(self, name: str) -> tuple[Path, Path, int]:
        """Issue a server's certificate."""
        return self.issue(name, x509.DNSName(SERVER_NAME), ExtendedKeyUsageOID.SERVER_AUTH)


class Site:
    """Namespaces, devices, files and processes of one test module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.prefix = f"shet-{os.getpid()}"
        self.runtime = directory / "run"
        self.runtime.mkdir(exist_ok=True)
        self.holds = directory / "holds"
        self.holds.mkdir(exist_ok=True)
        self.state_folder = directory / "peers"
        self.state_folder.mkdir(exist_ok=True)
        self.ca = Authority(directory)
        self.ca.client("client")
        self.ca.server("server")
        self.roles: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: dict[str, Path] = {}

    # Network

    def namespace(self, role: str) -> str:
        return f"{self.prefix}-{role}"

    def ip(self, role: str, *arguments: str) -> None:
        subprocess.run(["ip", "-n", self.namespace(role), *arguments], check=True, capture_output=True)

    def run(self, role: str, *command: str, check: bool = True, timeout: float = 30) -> str:
        """Run a command in a namespace; return its output."""
        full = ["ip", "netns", "exec", self.namespace(role), *command]
        done = subprocess.run(full, check=False, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def build(self) -> None:
        self._add_namespace("middle")
        self.run("middle", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.add_end("client", "wan0", 1)
        self.add_end("server", "eth0", 2)

    def _add_namespace(self, role: str) -> None:
        self.roles.append(role)
        subprocess.run(["ip", "netns", "add", self.namespace(role)], check=True)
        self.ip(role, "link", "set", "lo", "up")

    def add_end(self, role: str, device: str, network: int) -> None:
        """Add a machine at 10.77.NETWORK.2, with a TUN device."""
        self._add_namespace(role)
        other = f"m{network}"
        self.ip("middle", "link", "add", other, "type", "veth", "peer", device, "netns", self.namespace(role))
        self.ip("middle", "addr", "add", f"10.77.{network}.1/24", "dev", other)
        self.ip("middle", "link", "set", other, "up")
        self.ip(role, "addr", "add", f"10.77.{network}.2/24", "dev", device)
        self.ip(role, "link", "set", device, "up")
        self.ip(role, "route", "add", "default", "via", f"10.77.{network}.1", "dev", device)
        settings = ("rp_filter=0", "promote_secondaries=1")
        self.run(role, "sysctl", "-qw", *(f"net.ipv4.conf.all.{setting}" for setting in settings))
        self.make_tun(role)

    def make_tun(self, role: str) -> None:
        number = 2 if role == "server" else 1
        self.ip(role, "tuntap", "add", "dev", "mpq9", "mode", "tun", "vnet_hdr")
        self.ip(role, "link", "set", "mpq9", "mtu", "1400", "up")
        self.ip(role, "addr", "add", f"10.200.9.{number}/32", "dev", "mpq9")
        self.ip(role, "addr", "add", f"fd09::{number}/128", "dev", "mpq9", "nodad")
        self.ip(role, "route", "add", "10.200.9.0/24", "dev", "mpq9")
        self.ip(role, "route", "add", "fd09::/64", "dev", "mpq9")

    def destroy(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        for role in self.roles:
            subprocess.run(["ip", "netns", "del", self.namespace(role)], check=False, capture_output=True)

    def cut(self) -> None:
        """Drop everything beyond the client, in silence and in both directions."""
        self.run(
            "middle",
            "nft",
            "add table inet cut; add chain inet cut f { type filter hook forward priority 0; policy drop; }",
        )

    def heal(self) -> None:
        self.run("middle", "nft", "delete", "table", "inet", "cut", check=False)

    # Configuration

    def client_config(self, name: str = "cl", **changes: object) -> Path:
        data: dict[str, object] = {
            "name": name, "role": "client", "tunnel": "mpq9", "tun_name": "mpq9",
            "inner_addresses": ["10.200.9.1/32", "fd09::1/128"], "bind_ip": "iface:wan0",
            "remote_addr": "10.77.2.2", "remote_port": 45009, "wan": "wan9", "max_datagram_size": 1452,
            "tls": {
                "ca_file": str(self.ca.file), "cert_file": str(self.directory / "client.crt"),
                "key_file": str(self.directory / "client.key"), "server_name": SERVER_NAME,
            },
        }  # fmt: skip
        return self.write(name, {**data, **changes})

    def server_config(self, name: str = "sv", **changes: object) -> Path:
        data: dict[str, object] = {
            "name": name, "role": "server", "bind_ip": "0.0.0.0", "bind_port": 45009, "tun_name": "mpq9",
            "max_datagram_size": 1452,
            "tls": {
                "ca_file": str(self.ca.file), "cert_file": str(self.directory / "server.crt"),
                "key_file": str(self.directory / "server.key"),
            },
            "peers": [{"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]}],
        }  # fmt: skip
        return self.write(name, {**data, **changes})

    def write(self, name: str, data: object) -> Path:
        (self.directory / "instances").mkdir(exist_ok=True)
        path = self.directory / "instances" / f"{name}.yml"
        path.write_text(yaml.safe_dump(data))
        return path

    # Processes

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MPQUIC_RUNTIME_DIR": str(self.runtime),
            "MPQUIC_LINKD_SOCKET": str(self.runtime / "linkd"),
            "MPQUIC_HOLDS_DIR": str(self.holds),
            "MPQUIC_STATE_DIR": str(self.state_folder),
        }

    def start(self, role: str, config: Path) -> subprocess.Popen[bytes]:
        name = config.stem
        self.logs[name] = self.directory / f"{name}.log"
        with self.logs[name].open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(role), sys.executable, "-m", "mpquic.cli", "--config", config],
                env=self.environment, stderr=log, stdout=log,
            )  # fmt: skip
        return self.processes[name]

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(10)

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def log(self, name: str) -> str:
        return self.logs[name].read_text()

    def ask(self, name: str, what: str = "status", op: str = "get") -> Any:
        """Ask a control socket; None while nobody answers."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self.runtime / f"{name}.sock"))
                with connection.makefile("rwb") as stream:
                    stream.write(json.dumps({"v": 1, "id": 1, "op": op, "what": what}).encode() + b"\n")
                    stream.flush()
                    return json.loads(stream.readline() or b"{}").get("result")
        except OSError:
            return None

    def state(self, name: str = "cl") -> str | None:
        status = self.ask(name)
        return status["state"] if status else None

    def wait_server(self) -> None:
        """Wait until the server listens: a second of an idle machine's time, most of it for imports."""
        self.wait_state("up", 20.0, "sv")

    def wait_state(self, state: str, seconds: float = 5.0, name: str = "cl") -> float:
        try:
            return wait_for(lambda: self.state(name) == state, seconds, f"state {state} of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; status {self.ask(name)}\n{self.log(name)[-3000:]}") from None

    def ping(self, count: int = 3, target: str = "10.200.9.2", size: int = 56) -> bool:
        command = ("ping", "-n", "-c", str(count), "-i", "0.05", "-W", "1", "-s", str(size), target)
        return " 0% packet loss" in self.run("client", *command, check=False)

    def iperf(self, *arguments: str) -> float:
        """Return Mbit/s of a TCP transfer of 3 s through the tunnel."""
        server = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace("server"), "iperf3", "-s", "-1", "-B", "10.200.9.2"],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: ":5201" in self.run("server", "ss", "-Hltn"), 5, "iperf3")
            command = ("iperf3", "-c", "10.200.9.2", "-C", "cubic", "-t", "3", "-J", *arguments)
            report = json.loads(self.run("client", *command, timeout=20))
            return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6
        finally:
            server.kill()
            server.wait(5)

    def wait_ping(self, seconds: float) -> float:
        return wait_for(lambda: self.ping(1), seconds, "traffic")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("ip", "nft", "ping", "iperf3")):
        pytest.skip("needs root, iproute2, nftables, ping and iperf3")
    found = Site(tmp_path_factory.mktemp("site"))
    try:
        found.build()
        yield found
    finally:
        found.destroy()


@pytest.fixture
def running(site: Site) -> Iterator[Site]:
    """A site whose client is up; both processes end with the test."""
    try:
        site.start("server", site.server_config())
        site.wait_server()
        site.start("client", site.client_config())
        site.wait_state("up")
        yield site
    finally:
        site.heal()
        for name in list(site.processes):
            site.kill(name)
