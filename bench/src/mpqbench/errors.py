"""What can go wrong in a measurement."""


class BenchError(Exception):
    """A system couldn't be installed, started or measured; the text says which and why."""
