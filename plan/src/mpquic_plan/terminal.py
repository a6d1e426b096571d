"""Texts that come from hosts, on the terminal of whoever runs a playbook."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` on one line, with what a terminal could take for a command escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
