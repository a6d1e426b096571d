"""The table that nobody else can take away, in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess

import pytest
from mpquic.guard.barrier import NAME, Barrier, grouped

from .provisioned import new_namespace

TUNS = [f"tun{number}" for number in range(1, 16)]
PREFIXES = [f"192.168.{number}.0/24" for number in range(30)] + [f"fd00:{number:x}::/64" for number in range(1, 31)]
PAIRS = {(device, prefix) for device in TUNS for prefix in PREFIXES}


def listed(*words: str) -> str:
    return subprocess.run(["nft", *words], capture_output=True, text=True, check=False).stdout


def drops() -> set[tuple[str, str]]:
    """Pairs of device and prefix that the kernel's table drops, as nft lists them."""
    devices: dict[str, set[str]] = {}
    chains: dict[str, str] = {}
    for each in json.loads(listed("-j", "list", "table", "inet", NAME))["nftables"]:
        if "rule" not in each:
            continue
        rule, matches = each["rule"], {}
        for expression in each["rule"]["expr"]:
            if "match" in expression:
                left = expression["match"]["left"]
                matches[left.get("meta", left.get("payload", {})).get("key", "source")] = expression["match"]["right"]
            elif "jump" in expression:
                source = matches["source"]  # a single address has no length
                prefix = f"{source}/32" if isinstance(source, str) else "{addr}/{len}".format(**source["prefix"])
                chains[prefix] = expression["jump"]["target"]
            elif "drop" in expression:
                devices.setdefault(rule["chain"], set()).add(matches["oifname"])
    return {(device, prefix) for prefix, chain in chains.items() for device in devices[chain]}


def test_prefixes_are_grouped_by_the_devices_that_masquerade_them() -> None:
    pairs = [("b", "10.0.0.0/8"), ("a", "10.0.0.0/8"), ("a", "192.0.2.0/24"), ("a", "fd00::/8"), ("b", "fd00::/8")]
    assert grouped(pairs) == {("a", "b"): ["10.0.0.0/8", "fd00::/8"], ("a",): ["192.0.2.0/24"]}


@pytest.mark.root
@pytest.mark.parametrize(
    "pairs",
    [
        {("eth0", "10.200.0.0/16")},
        {("eth0", "10.200.0.0/16"), ("eth1", "10.200.0.0/16"), ("eth1", "2001:db8::/48"), ("lte.7", "192.0.2.1/32")},
        PAIRS,
    ],
)
def test_the_kernel_has_each_pair_and_no_other(pairs: set[tuple[str, str]]) -> None:
    with new_namespace():
        barrier = Barrier()
        barrier.keep(pairs)
        assert drops() == pairs
        barrier.close()


@pytest.mark.root
def test_it_stays_through_a_flush_changes_in_one_step_and_goes_with_its_owner() -> None:
    with new_namespace():
        barrier = Barrier()
        barrier.keep(PAIRS)
        listed("flush", "ruleset")
        assert drops() == PAIRS
        barrier.keep({("eth0", "10.0.0.0/8")})
        assert drops() == {("eth0", "10.0.0.0/8")}
        barrier.keep(())
        assert listed("list", "tables") == ""
        barrier.keep(PAIRS)
        barrier.close()
        assert listed("list", "tables") == ""


@pytest.mark.root
def test_what_the_kernel_refuses_is_an_error_and_leaves_what_was_there() -> None:
    with new_namespace():
        barrier = Barrier()
        barrier.keep({("eth0", "10.0.0.0/8")})
        with pytest.raises(OSError, match=NAME):
            barrier.keep({("a-name-that-is-too-long", "10.0.0.0/8")})
        assert drops() == {("eth0", "10.0.0.0/8")}
        barrier.close()
