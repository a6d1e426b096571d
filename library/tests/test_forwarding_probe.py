import json
import subprocess
import sys
from pathlib import Path

import pytest
from forwarding_probe import (
    ECHO_REPLY,
    ECHO_REQUEST,
    Echo,
    asks_for,
    checksum,
    decode,
    dropping_chains,
    encode,
    somebody,
)
from hypothesis import given
from hypothesis import strategies as st

MODULE = Path(__file__).parent.parent / "forwarding_probe.py"
ADDRESSES = st.ip_addresses(v=4).map(str)
ECHOES = st.builds(
    Echo,
    st.sampled_from([ECHO_REQUEST, ECHO_REPLY]),
    ADDRESSES,
    ADDRESSES,
    st.integers(0, 0xFFFF),
    st.binary(max_size=64),
)


@given(ECHOES)
def test_a_message_is_read_as_it_was_written_and_its_checksums_hold(echo: Echo) -> None:
    packet = encode(echo)
    assert decode(packet) == echo
    assert checksum(packet[:20]) == checksum(packet[20:]) == 0


@given(st.binary(max_size=80))
def test_other_packets_are_no_messages(data: bytes) -> None:
    echo = decode(data)
    assert echo is None or data[9] == 1


def test_an_arp_request_for_the_source_shows_that_the_reply_is_on_its_way() -> None:
    request = bytes.fromhex("0001080006040001" + "024c00000001" + "ac100501" + "000000000000" + "ac100502")
    assert asks_for(request, "172.16.5.2")
    assert not asks_for(request, "172.16.5.1")
    assert not asks_for(request[:20], "172.16.5.2")


def test_the_source_is_another_address_than_the_hosts_own() -> None:
    assert somebody("172.16.5.1/30", {"172.16.5.1"}) == "172.16.5.2"
    assert somebody("10.200.5.0/30", {"10.200.5.1"}) == "10.200.5.2"
    assert somebody("192.0.2.1/32", {"192.0.2.1"}) is None


def test_chains_of_others_that_drop_are_named() -> None:
    def chain(family: str, table: str, name: str, **rest: str) -> dict[str, dict[str, str]]:
        return {"chain": {"family": family, "table": table, "name": name, **rest}}

    listing = {
        "nftables": [
            {"metainfo": {}},
            chain("inet", "mpquic", "forward", hook="forward", policy="drop"),
            chain("ip", "filter", "FORWARD", hook="forward", policy="drop"),
            chain("ip", "filter", "INPUT", hook="input", policy="drop"),
            chain("ip6", "filter", "FORWARD", hook="forward", policy="accept"),
            chain("ip", "filter", "DOCKER"),
        ]
    }
    assert dropping_chains(listing) == ["table ip filter chain FORWARD has policy drop"]


def in_namespace(rules: str) -> dict[str, object]:
    """What the module says in a namespace that forwards from lan0 (without anybody there) to out0, masqueraded."""
    arguments = {"passages": [{"from": "lan0", "to": ["out0"], "network": "172.16.5.1/30"}], "timeout": 1.5}
    script = f"""
        set -e
        mount -t sysfs none /sys  # that of this namespace
        ip link set lo up
        for name in lan out; do ip link add ${{name}}0 type veth peer name ${{name}}1; done
        for name in lan0 lan1 out0 out1; do ip link set $name up; done
        ip address add 172.16.5.1/30 dev lan0
        ip address add 198.51.100.2/24 dev out0
        ip route add default via 198.51.100.1
        ip neighbour add 198.51.100.1 lladdr 02:00:00:00:00:09 dev out0
        echo 1 >/proc/sys/net/ipv4/ip_forward
        nft -f - <<'END'
        table ip nat {{ chain post {{ type nat hook postrouting priority srcnat; oifname "out0" masquerade; }}; }}
        {rules}
END
        exec {sys.executable} {MODULE}
    """
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.root
def test_a_packet_and_its_reply_pass_although_nobody_is_there() -> None:
    answer = in_namespace("")
    assert (answer["passed"], answer["untried"]) == (["lan0 to out0"], []), answer


@pytest.mark.root
def test_another_table_that_drops_is_the_cause() -> None:
    answer = in_namespace("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
    assert answer["msg"] == (
        "a packet from 172.16.5.2 that comes in by lan0 does not leave by out0: "
        "table ip filter chain FORWARD has policy drop"
    )


@pytest.mark.root
def test_a_reply_that_is_dropped_is_told_apart() -> None:
    answer = in_namespace(
        'table ip x { chain f { type filter hook forward priority 0; iifname "out0" oifname "lan0" drop; }; }'
    )
    assert str(answer["msg"]).startswith("the reply to 172.16.5.2 that comes in by out0 does not leave by lan0: ")
