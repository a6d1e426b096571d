"""Makes text of a peer fit to be shown."""


def printable(text: str) -> str:
    """Return `text` on one line, with what a terminal could take for a command escaped: some of it comes from peers."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
