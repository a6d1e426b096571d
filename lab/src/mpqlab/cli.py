"""The command `mpqlab`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any, Protocol

from mpqlab import access, comparison, links, nics, preflight, ssh, status, topology, tunnels
from mpqlab.emulator.client import EmulatorError
from mpqlab.emulator.model import describe_keys
from mpqlab.errors import LabError
from mpqlab.foreign import programs
from mpqlab.image import Image
from mpqlab.lab import CLIENTS, NSPAWN, QEMU, Lab
from mpqlab.progress import Progress
from mpqlab.speedtest import MAX_SECONDS, Speedtest
from mpqlab.topology import MACHINES, NODES, SUITES, WANS, find_lan, find_wan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpqlab.topology import Lan, Wan


VLAN = "vlan"
"""As the client, whichever has 802.1Q."""


class _Command(Protocol):
    def __call__(self, lab: Lab, options: argparse.Namespace) -> int: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 when it could not be done, 2 for wrong arguments."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    run: _Command = options.run
    try:
        preflight.check_system()
        if topology.NICS_SCHEME not in nics.SCHEMES:
            nics.named(topology.NICS_SCHEME)
        return run(Lab(Progress(quiet=options.quiet)), options)
    except (LabError, EmulatorError, nics.UnknownSchemeError) as error:
        print(f"mpqlab: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has seen enough; the interpreter would complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mpqlab: interrupted; `mpqlab down` removes what was begun", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    What follows the first `--` is a node's command and not argparse's business: Python's versions differ there.
    """
    words = list(arguments)
    if "--" not in words:
        options = parser().parse_args(words)
        if options.run is _up and options.umask is not None and not options.ssh:
            parser().error("--umask is that of the user who comes in by ssh: give --ssh, too")
        return options
    split = words.index("--")
    options = parser().parse_args(words[:split])
    if options.run not in {_exec, _ssh}:
        parser().error("only `exec NODE -- CMD` and `ssh MACHINE -- CMD` have words behind `--`")
    options.command += words[split + 1 :]
    return options


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="mpqlab", description="The reference site and its WANs on this machine.")
    top.add_argument("--quiet", action="store_true", help="no progress on standard error")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    up = _add(commands, "up", _up, "start the lab; what runs already keeps running")
    up.add_argument("--suite", choices=SUITES, help=f"Debian of the machines (default: {SUITES[0]})")
    up.add_argument(
        "--ssh",
        action="store_true",
        help=f"a user for sudo and ssh from the controller in mgmt; {ssh.INVENTORY} goes behind inventories/lab",
    )
    up.add_argument(
        "--client",
        choices=(*CLIENTS, VLAN),
        help=f"what runs the client: a machine of this kernel (default: {NSPAWN}), one with a kernel of its own, "
        f"which is slow and reached by ssh ({QEMU}), or that of both which has 802.1Q ({VLAN})",
    )
    up.add_argument("--umask", type=_umask, metavar="OCTAL", help="umask of that user and of sudo, as 077")
    _add(commands, "down", _down, "remove the lab without a trace")
    image = _add(commands, "image", _image, "build the machine image and keep it, without starting the lab")
    image.add_argument("--suite", choices=SUITES, default=SUITES[0])
    _add(commands, "status", _status, "show machines and links", shows=True)
    table = _add(commands, "table", _table, "show WANs and tunnels", shows=True)
    table.add_argument(
        "--measure",
        action="store_true",
        help="send TCP through each tunnel that is up, 2 s each way; status 1 when traffic fails",
    )

    execute = _add(commands, "exec", _exec, "run a command in a node; its exit status is the command's")
    execute.add_argument("node", metavar="NODE", choices=NODES, help=", ".join(NODES))
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="default: a shell")
    login = _add(commands, "ssh", _ssh, "a shell by ssh, or a command, as the controller opens it")
    login.add_argument("node", metavar="MACHINE", choices=MACHINES, help=", ".join(MACHINES))
    login.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="default: a shell")
    reboot = _add(commands, "reboot", _reboot, "shut a machine down and boot it again")
    reboot.add_argument("node", metavar="MACHINE", choices=MACHINES, help=", ".join(MACHINES))
    reboot.add_argument("--hard", action="store_true", help="pull the plug instead of shutting down")
    freeze = _add(commands, "freeze", _freeze, "stop machines where they are for some seconds, as a hypervisor does")
    freeze.add_argument("seconds", metavar="SECONDS", type=_seconds)
    freeze.add_argument("nodes", metavar="MACHINE", nargs="*", help="default: all")
    seed = _add(commands, "seed", _seed, "put onto a machine what another program leaves there, as a host may have it")
    seed.add_argument("node", metavar="MACHINE", choices=MACHINES, help=", ".join(MACHINES))
    seed.add_argument(
        "programs", metavar="PROGRAM", nargs="+", choices=programs.PROGRAMS, help=", ".join(programs.PROGRAMS)
    )
    seed.add_argument("--remove", action="store_true", help="take it away again (programs that run)")
    _add_link(commands)

    test = _add(commands, "speedtest", _speedtest, "measure a tunnel beside its bare link", shows=True)
    test.description = (
        "Measure a tunnel, from a host behind OpenWrt to the Internet, beside the bare link of its WAN: one and ten "
        "connections, both directions, with counters that prove the way. With one of the options marked (one) it is a "
        "single measurement through the tunnel. Each has a server of its own."
    )
    test.add_argument("--lan", type=_lan, default=find_lan(5), metavar="N", help="LAN of the host (default: 5)")
    test.add_argument("--reverse", action="store_true", help="(one) download instead of upload")
    test.add_argument("--udp", action="store_true", help="(one) UDP at --rate; shows loss and jitter")
    test.add_argument("--rate", type=_positive, default=10.0, metavar="MBIT", help="UDP rate in Mbit/s (default: 10)")
    test.add_argument("--streams", type=int, choices=range(1, 65), metavar="N", help="(one) parallel connections")
    test.add_argument("--ipv6", action="store_true", help="(one) IPv6 inside")
    test.add_argument("--runs", type=int, choices=range(1, 21), default=1, metavar="N", help="medians of so many")
    amount = test.add_mutually_exclusive_group()
    amount.add_argument("--seconds", type=_seconds, default=10.0, help="duration of each run (default: 10)")
    amount.add_argument("--bytes", type=int, help="(one) amount instead of a duration")
    return top


def _add_link(commands: Any) -> None:
    link = commands.add_parser("link", help="change a WAN", description="Change a WAN while traffic flows.")
    verbs = link.add_subparsers(required=True, metavar="VERB")
    change = _add(verbs, "set", _link_set, "change the emulated link; without keys, show it", shows=True)
    change.formatter_class = argparse.RawDescriptionHelpFormatter
    change.epilog = "keys (key=value for both directions, up.key=value or down.key=value for one):\n" + describe_keys()
    _add_wan(change)
    change.add_argument("pairs", nargs="*", metavar="key=value")
    cut = _add(verbs, "cut", _link_cut, "let everything vanish silently, beyond the client", shows=True)
    _add_wan(cut)
    cut.add_argument("direction", nargs="?", choices=("up", "down", "both"), default="both")
    _add_wan(_add(verbs, "heal", _link_heal, "end a cut", shows=True))
    unplug = _add(verbs, "unplug", _link_unplug, "take the client's device away, like a USB modem", shows=True)
    _add_wan(unplug)
    unplug.add_argument("--carrier", action="store_true", help="take only its carrier")
    _add_wan(_add(verbs, "plug", _link_plug, "bring the device and its carrier back", shows=True))
    renumber = _add(verbs, "renumber", _link_renumber, "the ISP moves to its other subnet and address", shows=True)
    _add_wan(renumber)
    renumber.add_argument(
        "--flap", action="store_true", help="and drops the carrier for a moment, which tells the client"
    )
    renumber.add_argument(
        "--lease",
        type=IPv4Interface,
        metavar="ADDRESS/LENGTH",
        help="the client's new address and subnet, behind the same public address; also one that equals another",
    )


def _add(commands: Any, name: str, run: _Command, text: str, *, shows: bool = False) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    command.set_defaults(run=run, json=False)
    if shows:
        command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _add_wan(command: argparse.ArgumentParser) -> None:
    names = ", ".join(wan.name for wan in WANS)
    command.add_argument("wan", type=_wan, metavar="WAN", help=names)


def _wan(text: str) -> Wan:
    try:
        return find_wan(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _lan(text: str) -> Lan:
    try:
        return find_lan(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _umask(text: str) -> str:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"{text}: expected three octal digits, as 077")
    return text[-3:]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def _seconds(text: str) -> float:
    value = _positive(text)
    if value > MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text}: expected at most {MAX_SECONDS:g} seconds")
    return value


def _up(lab: Lab, options: argparse.Namespace) -> int:
    wanted = ssh.Access(options.umask) if options.ssh else None
    with lab.exclusively():
        client = options.client
        if client == VLAN:
            client = NSPAWN if preflight.has_8021q() else QEMU
        if not lab.complete:
            preflight.check()
            if client == QEMU:
                preflight.check_qemu()
        started = lab.up(options.suite, access=wanted, client=client)
    # On standard output, for whoever wants to know whether the command changed anything.
    print(f"{'started' if started else 'running already'} (Debian {lab.suite})")
    return 0


def _down(lab: Lab, options: argparse.Namespace) -> int:
    del options
    with lab.exclusively():
        stopped = lab.down()
    print("stopped" if stopped else "nothing to stop")
    return 0


def _image(lab: Lab, options: argparse.Namespace) -> int:
    preflight.check()
    Image(options.suite).build(lab.progress)
    return 0


def _status(lab: Lab, options: argparse.Namespace) -> int:
    facts = status.gather(lab)
    print(json.dumps(facts, indent=2) if options.json else status.render(facts))
    return 0 if facts["up"] else 1


def _table(lab: Lab, options: argparse.Namespace) -> int:
    facts = tunnels.gather(lab, measure=options.measure)
    print(json.dumps(facts, indent=2) if options.json else tunnels.render(facts))
    problems = tunnels.problems(facts) if options.measure else []
    for problem in problems:
        print(f"mpqlab: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _exec(lab: Lab, options: argparse.Namespace) -> int:
    command = access.command(lab, options.node, options.command or ["/bin/sh"])
    os.execvp(command[0], command)


def _ssh(lab: Lab, options: argparse.Namespace) -> int:
    lab.require()
    command = ssh.login(options.node, options.command)
    os.execvp(command[0], command)


def _reboot(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        lab.require()
        lab.reboot(options.node, pull_the_plug=options.hard)
    return 0


def _freeze(lab: Lab, options: argparse.Namespace) -> int:
    unknown = set(options.nodes) - set(MACHINES)
    if unknown:
        raise LabError(f"there is no machine {', '.join(sorted(unknown))}: choose of {', '.join(MACHINES)}")
    with lab.exclusively():
        lab.require()
        lab.freeze(options.nodes or MACHINES, options.seconds)
    return 0


def _seed(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        lab.require()
        change = programs.remove if options.remove else programs.install
        for name in options.programs:
            change(lab.machines[options.node], name)
    return 0


def _speedtest(lab: Lab, options: argparse.Namespace) -> int:
    lab.require()
    if not any((options.reverse, options.udp, options.streams, options.ipv6, options.bytes is not None)):
        return _compare(lab, options)
    test = Speedtest(
        options.lan,
        options.seconds,
        options.bytes,
        options.reverse,
        options.udp,
        options.rate,
        options.streams or 1,
        options.ipv6,
    )
    facts = test.run()
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"LAN{facts['lan']} {facts['direction']}: {facts['mbit']} Mbit/s of {facts['protocol'].upper()}", end="")
        print(f", {facts['loss_percent']} % lost, jitter {facts['jitter_ms']} ms" if options.udp else "")
    return 0


def _compare(lab: Lab, options: argparse.Namespace) -> int:
    if options.seconds > comparison.MAX_SECONDS:
        raise LabError(f"runs of more than {comparison.MAX_SECONDS:g} s aren't in the same minute: they don't compare")
    facts = comparison.compare(lab, options.lan, options.seconds, options.runs)
    print(json.dumps(facts, indent=2) if options.json else comparison.render(facts))
    problems = comparison.problems(facts)
    for problem in problems:
        print(f"mpqlab: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _link_set(lab: Lab, options: argparse.Namespace) -> int:
    if not options.pairs:
        return _show(lab, options)
    with lab.exclusively():
        links.configure(lab, options.wan, options.pairs)
    return _show(lab, options)


def _link_cut(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        links.cut(lab, options.wan, options.direction)
    return _show(lab, options)


def _link_heal(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        links.heal(lab, options.wan)
    return _show(lab, options)


def _link_unplug(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        links.unplug(lab, options.wan, carrier=options.carrier)
    return _show(lab, options)


def _link_plug(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        links.plug(lab, options.wan)
    return _show(lab, options)


def _link_renumber(lab: Lab, options: argparse.Namespace) -> int:
    with lab.exclusively():
        links.renumber(lab, options.wan, flap=options.flap, lease=options.lease)
    return _show(lab, options)


def _show(lab: Lab, options: argparse.Namespace) -> int:
    lab.require()
    facts = links.describe(lab, options.wan)
    print(json.dumps(facts, indent=2) if options.json else links.render(facts))
    return 0
