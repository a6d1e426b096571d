"""A run whose part on a VPS would cut off a site that can't follow is stopped before anything is touched."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Playbook

    CutOff = Callable[..., list[str]]

PLAY = """
- hosts: vps:sites
  gather_facts: false
  tasks:
    - mpquic_cut_off:
        plan: "{{ plan }}"
        hosts: "{{ in_run }}"
        accept: "{{ accept | default([]) }}"
      run_once: true
"""


def instance(port: int, site: str = "site1", address: str = "10.200.1.1/32") -> dict[str, Any]:
    peers = [{"identity": f"urn:mpquic:site:{site}", "allowed": [address]}]
    return {"name": "mpq1", "role": "server", "bind_port": port, "stripe_port": 46001, "peers": peers}


def certificate(*names: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vps")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


PLAN: dict[str, Any] = {
    "vps1": {
        "role": "vps",
        "instances": [{"name": "mpq1", "config": instance(45001)}],
        "pki": {"subject_alt_names": ["DNS:vps1.example.net", "IP:203.0.113.10"]},
    },
    **{
        site: {
            "role": "client",
            "vps": "vps1",
            "pki": {"subject_alt_names": [f"URI:urn:mpquic:site:{site}"]},
            "tuns": [{"name": "mpq1", "addresses": [f"10.200.{number}.1/32"]}],
            "instances": [],
        }
        for number, site in enumerate(("site1", "site2"), 1)
    },
}


def survey(serving: list[str], pem: str | None = None) -> dict[str, Any]:
    return {
        "instances": {f"i{number}": text for number, text in enumerate(serving)},
        "pki": {"ca": None, "certificate": pem},
    }


@pytest.fixture
def cut_off(act: Callable[..., dict[str, Any]]) -> CutOff:
    """Judges a VPS by what it serves; the reply is the list of problems."""

    def of(
        serving: list[str],
        in_run: tuple[str, ...] = ("vps1", "site2"),
        pem: str | None = None,
        accept: tuple[str, ...] = (),
    ) -> list[str]:
        arguments = {"plan": PLAN, "hosts": list(in_run), "accept": list(accept)}
        hosts = {"vps1": {"mpquic_survey": {"survey": survey(serving, pem)}}}
        result = act("mpquic_cut_off", arguments, {"hostvars": hosts})
        assert result["changed"] is False
        problems: list[str] = result.get("invocation", {}).get("problems", [])
        assert bool(result.get("failed")) is bool(problems)
        return problems

    return of


def test_a_change_that_cuts_off_an_absent_site_stops_the_run_and_names_the_site(playbook: Playbook) -> None:
    playbook.put("site.yml", PLAY)
    found = {"survey": survey([yaml.safe_dump(instance(45555))])}
    inventory = {
        "all": {
            "vars": {"plan": PLAN, "in_run": ["vps1", "site2"], "ansible_connection": "local"},
            "children": {
                "vps": {"hosts": {"vps1": {"mpquic_survey": found}}},
                "sites": {"hosts": {"site1": {}, "site2": {}}},
            },
        }
    }
    done = playbook.run(inventory)
    assert done.returncode == 2
    assert done.stdout.count("site1: mpq1: the port of listener mpq1 would change from 45555 to 45001") == 1
    assert "mpquic_cut_off=HOST,... (or all)" in done.stdout
    assert "site2:" not in done.stdout


def test_a_site_that_is_in_the_run_can_follow(cut_off: CutOff) -> None:
    assert cut_off([yaml.safe_dump(instance(45555))])
    assert cut_off([yaml.safe_dump(instance(45555))], in_run=("vps1", "site1", "site2")) == []


def test_without_a_change_or_without_the_vps_nobody_is_cut_off(cut_off: CutOff) -> None:
    assert cut_off([yaml.safe_dump(instance(45001))]) == []
    assert cut_off([yaml.safe_dump(instance(45555))], in_run=("site2",)) == []


@pytest.mark.parametrize("accept", ["site1", "all"])
def test_a_person_may_cut_off_a_site(cut_off: CutOff, accept: str) -> None:
    assert cut_off([yaml.safe_dump(instance(45555))], accept=(accept,)) == []
    assert cut_off([yaml.safe_dump(instance(45555))], accept=("site2",))


@pytest.mark.parametrize("text", ["", "- a\n", "{", "role: server\n"])
def test_a_damaged_file_on_the_vps_stops_nobody(cut_off: CutOff, text: str) -> None:
    assert cut_off([text]) == []


@pytest.mark.parametrize("names", [("vps1.example.net",), ("vps1.example.net", "old.example.net"), ()])
def test_the_first_name_of_the_certificate_stays(cut_off: CutOff, names: tuple[str, ...]) -> None:
    assert cut_off([yaml.safe_dump(instance(45001))], pem=certificate(*names)) == []


def test_a_first_name_that_goes_away_is_named(cut_off: CutOff) -> None:
    pem = certificate("old.example.net", "vps1.example.net")
    problem, _ = cut_off([yaml.safe_dump(instance(45001))], pem=pem)
    assert "would lose the name old.example.net" in problem


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\n", "\u00e9"])
def test_a_certificate_that_can_not_be_read_stops_nobody(cut_off: CutOff, pem: str) -> None:
    assert cut_off([yaml.safe_dump(instance(45001))], pem=pem) == []


@pytest.mark.parametrize(
    ("renumber", "stopped"), [((), True), (("mpq2",), True), (("mpq1",), False), (("all",), False)]
)
def test_moved_addresses_of_a_shared_listener_stop_the_run_unless_it_is_named(
    act: Callable[..., dict[str, Any]], renumber: tuple[str, ...], stopped: bool
) -> None:
    def serving(*addresses: str) -> dict[str, Any]:
        peers = [
            {"identity": f"urn:mpquic:site:site{number}", "tunnel": "mpq1", "allowed": [address]}
            for number, address in enumerate(addresses, 1)
        ]
        return {**instance(45001), "peers": peers}

    planned = serving("10.200.1.1/32", "10.200.1.9/32")
    plan = {**PLAN, "vps1": {**PLAN["vps1"], "instances": [{"name": "mpq1", "config": planned}]}}
    now = [yaml.safe_dump(serving("10.200.1.1/32", "10.200.1.5/32"))]
    hosts = {"vps1": {"mpquic_survey": {"survey": survey(now)}}}
    arguments = {"plan": plan, "hosts": ["vps1", "site1", "site2"], "renumber": list(renumber)}
    result = act("mpquic_cut_off", arguments, {"hostvars": hosts})
    assert bool(result.get("failed")) is stopped
    if stopped:
        line, remedy = result["invocation"]["problems"]
        assert line == "would move: mpq1: mpq1 of urn:mpquic:site:site2 from 10.200.1.5 to 10.200.1.9"
        assert "mpquic_renumber=LISTENER" in remedy
