"""Writes the man pages and shell completions of the daemon's commands, which follow from their parsers.

python scripts/command_pages.py FOLDER    FOLDER is laid out as /usr/local/share is
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import shtab
from argparse_manpage.manpage import Manpage
from mpquic import cli, ctl, guard, linkd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpquic.manual import Manual

COMMANDS: tuple[tuple[int, Callable[[], argparse.ArgumentParser], Manual], ...] = (
    (1, ctl.parser, ctl.MANUAL),
    (8, cli.parser, cli.MANUAL),
    (8, linkd.parser, linkd.MANUAL),
    (8, guard.parser, guard.MANUAL),
)
"""Section of the manual, parser, and what else the page says."""
USERS = 1
"""The section of commands that people type: they have completions."""
TITLE = "mpquic multi-WAN appliance"
INSTANCES = {
    "bash": """
_mpquic_instances() {
  local file names=()
  for file in /etc/mpquic/instances/*.yml; do
    [ -e "$file" ] || continue
    file=${file##*/}
    names+=("${file%.yml}")
  done
  compgen -W "${names[*]}" -- "$1"
}
""",
    "zsh": """
_mpquic_instances() {
  local -a names
  names=(/etc/mpquic/instances/*.yml(N:t:r))
  compadd -a names
}
""",
}
"""Functions that complete the name of an instance."""
COMPLETIONS = {"NAME": dict.fromkeys(INSTANCES, "_mpquic_instances"), "FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
"""What completes an argument, by its metavar."""


def pages() -> dict[str, str]:
    """Return the content of each file by its path below the folder."""
    # argparse wraps at the width of the terminal.
    os.environ["COLUMNS"] = "100"
    found = {}
    for section, make, manual in COMMANDS:
        prog = make().prog
        found[f"man/man{section}/{prog}.{section}"] = man_page(make(), section, manual)
        if section == USERS:
            found[f"bash-completion/completions/{prog}"] = completion(make(), "bash")
            found[f"zsh/site-functions/_{prog}"] = completion(make(), "zsh")
    return found


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a completion for bash or zsh."""
    for action in _actions(parser):
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if metavar in COMPLETIONS:
            action.complete = COMPLETIONS[metavar]  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell, preamble=INSTANCES)
    return text.rstrip() + "\n"


def man_page(parser: argparse.ArgumentParser, section: int, manual: Manual) -> str:
    """Return a man page."""
    parser.epilog = None
    # The date of a build would make each one differ, and says less than the version.
    data = {
        "manual_section": section,
        "manual_title": TITLE,
        "project_name": "mpquic",
        "date": "\u200b",
        "description": (parser.description or "").split(":")[0].split(",")[0].rstrip("."),
    }
    page = Manpage(parser, data)
    for heading, pairs in (
        ("exit status", manual.exit_statuses),
        ("examples", manual.examples),
        ("files", manual.files),
    ):
        if pairs:
            page.add_section(heading, "=", "\n".join(f".TP\n.B {_roff(left)}\n{_roff(right)}" for left, right in pairs))
    if manual.see_also:
        page.add_section("see also", "=", ", ".join(f"{_roff(name)}" for name in manual.see_also))
    return str(page).replace("\u200b", "")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)


def _roff(text: str) -> str:
    return text.replace("\\", "\\\\").replace("-", r"\-").replace("'", r"\(aq")


def main() -> None:
    """Write the files of `pages`, and remove others."""
    (folder,) = (Path(argument) for argument in sys.argv[1:])
    found = pages()
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in found:
            path.unlink()
    for name, text in found.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
