"""`python -m mpqlab.emulator`: emulate one link until SIGTERM."""

import argparse
import sys
from pathlib import Path

from mpqlab.emulator.model import DIRECTIONS, ConfigError, DirectionConfig, describe_keys, parse_pairs
from mpqlab.emulator.shell import Emulator
from mpqlab.emulator.tun import SetupError, check_host


def _device(text: str) -> tuple[str, str]:
    namespace, colon, device = text.partition(":")
    if not colon or not namespace or "/" in namespace or not device:
        raise argparse.ArgumentTypeError(f"{text}: expected NETNS:DEVICE")
    return namespace, device


def main(arguments: list[str] | None = None) -> int:
    """Run an emulator; return the exit status (2 for wrong arguments, 1 for what the machine lacks)."""
    parser = argparse.ArgumentParser(
        prog="python -m mpqlab.emulator",
        description="Emulate a link between two TUN devices; 'up' is from the site to the internet.",
        epilog="Keys (key=value for both directions, up.key=value or down.key=value for one):\n" + describe_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="the link's name in answers")
    parser.add_argument("--control", required=True, type=Path, metavar="PATH", help="control socket to make")
    for name, side in (("up", "site"), ("down", "internet")):
        parser.add_argument(
            f"--{name}", required=True, type=_device, metavar="NETNS:DEV", help=f"TUN on the {side}'s side"
        )
    parser.add_argument("values", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    try:
        values = parse_pairs(options.values)
        configs = {name: DirectionConfig().changed(values[name]) for name in DIRECTIONS}
    except ConfigError as error:
        for problem in dict.fromkeys(error.problems):
            print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 2
    try:
        check_host()
        Emulator(options.name, options.control, {"up": options.up, "down": options.down}, configs).run()
    except SetupError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
