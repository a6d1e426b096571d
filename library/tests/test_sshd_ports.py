from module_process import run_module
from sshd_ports import configured_ports, listening_ports, socket_unit_ports


def test_ports_of_the_effective_configuration() -> None:
    assert configured_ports("port 22\nport 2222\nlistenaddress [::]:2200\nx11displayoffset 10\n") == {22, 2222, 2200}


def test_only_sockets_of_sshd_count() -> None:
    listing = (
        'LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* users:(("sshd",pid=1,fd=3))\n'
        'LISTEN 0 128 [::]:2222 [::]:* users:(("sshd",pid=1,fd=4))\n'
        'LISTEN 0 128 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=2,fd=3))\n'
    )
    assert listening_ports(listing) == {2222}


def test_what_a_session_forwards_is_no_port_of_sshd() -> None:
    """The process of a session is called sshd as well: a proxy lent by `ssh -R`, X11."""
    listing = (
        'LISTEN 0 128 127.0.0.1:3128 0.0.0.0:* users:(("sshd",pid=9,fd=9))\n'
        'LISTEN 0 128 [::1]:3128 [::]:* users:(("sshd",pid=9,fd=7))\n'
        'LISTEN 0 128 127.0.0.1%lo:6010 0.0.0.0:* users:(("sshd",pid=9,fd=8))\n'
        'LISTEN 0 128 198.51.100.7%enp1s0:2200 0.0.0.0:* users:(("sshd",pid=1,fd=3))\n'
        'LISTEN 0 128 [fe80::1]%enp1s0:2201 [::]:* users:(("sshd",pid=1,fd=5))\n'
        'LISTEN 0 128 *:2222 *:* users:(("sshd",pid=1,fd=4))\n'
    )
    assert listening_ports(listing) == {2200, 2201, 2222}


def test_ports_of_a_socket_unit() -> None:
    assert socket_unit_ports("Listen=0.0.0.0:22 (Stream)\nListen=[::]:2022 (Stream)\n") == {22, 2022}


def test_the_port_that_the_run_came_in_by_stays_open_whichever_program_serves_it() -> None:
    """Under sudo nothing in the environment tells it, and dropbear isn't among the sockets of sshd."""
    assert 2022 in run_module("sshd_ports", {"connection": 2022})["ports"]
    assert 2022 not in run_module("sshd_ports", {})["ports"]
