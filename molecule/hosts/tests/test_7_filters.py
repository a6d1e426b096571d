"""Docker and ufw on the VPS beside us: named with what each has to open, and then all of them work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab.foreign.docker import ANSWER, CONTAINER, PUBLISHED_PORT
from mpqlab.testing import INTERNET, VPS_ADDRESS
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mpqlab.testing import Lab

    from .conftest import Site, Variables

    Edit = Callable[[Callable[[Variables], None]], Path]

PORTS = "45001-45006, 45010, 46001-46006, 46010"
# What the message says, in the words of nft: `ufw allow PORTS/udp`, and DOCKER-USER or `ufw route` for forwarding.
OPEN_THEIRS = f"""
nft add rule ip filter ufw-user-input udp dport '{{ {PORTS} }}' accept
nft add rule ip6 filter ufw6-user-input udp dport '{{ {PORTS} }}' accept
nft insert rule ip filter DOCKER-USER iifname '"mpq*"' accept
nft insert rule ip filter DOCKER-USER oifname '"mpq*"' accept
nft add rule ip6 filter ufw6-user-forward iifname '"mpq*"' accept
nft add rule ip6 filter ufw6-user-forward oifname '"mpq*"' accept
nft add rule ip filter ufw-user-forward iifname '"docker0"' accept
nft add rule ip filter ufw-user-forward oifname '"docker0"' accept
"""


@pytest.fixture
def beside_docker_and_ufw(lab: Lab, edited: Edit) -> Iterator[Edit]:
    """Both are gone before the lab is put back, whose variables don't know of them."""
    lab.mpqlab("seed", "vps", "docker", "ufw")
    yield edited
    lab.mpqlab("seed", "--remove", "vps", "docker", "ufw")
    for tunnel in ("mpq4", "mpq5", "mpq6"):
        lab.wait_state(tunnel, "up", within=30)


def for_docker(variables: Variables) -> None:
    variables.vps["forward_openings"] = [
        {"from": "docker0", "to": "public", "sources": ["172.17.0.0/16"]},
        {"from": "public", "to": "docker0", "protocol": "tcp", "ports": [80]},
    ]


def reaches(lab: Lab, node: str, command: str) -> bool:
    """Whether a download in a node comes to its end."""
    return "yes" in lab.run(node, f"{command} >/dev/null 2>&1 && echo yes || true")


def test_docker_and_ufw_are_named_and_live_together_with_us_when_each_knows_of_the_other(
    lab: Lab, run_site: Site, beside_docker_and_ufw: Edit
) -> None:
    rules = "nft -s list table inet mpquic; nft -s list table ip filter"
    before = lab.run("vps", rules)
    done = run_site("--limit", "vps1")
    assert done.status == 2, done.output[-6000:]
    told = done.output.partition("SITES AND VPSES")[2]
    assert "UDP port 45005" in told
    assert "`ufw allow " in told
    assert "forwarding from mpq5 to " in told
    assert "docker0 (172.17.0.0/16) is a bridge of containers" in told
    assert "vps.forward_openings" in told
    assert lab.run("vps", rules) == before

    lab.run("vps", OPEN_THEIRS)
    done = run_site("--limit", "vps1", inventory=beside_docker_and_ufw(for_docker))
    assert done.status == 0, done.output[-6000:]
    download = f"curl -sS --fail -m 5 http://{INTERNET}/ip"
    assert reaches(lab, "vps", f"ip netns exec {CONTAINER} {download}")
    assert lab.run("internet", f"curl -sS --fail -m 5 http://{VPS_ADDRESS}:{PUBLISHED_PORT}/").strip() == ANSWER
    for lan in (4, 5, 6):
        wait_for(lambda lan=lan: reaches(lab, f"host{lan}", download), 30, f"a way from LAN{lan} to the Internet")
