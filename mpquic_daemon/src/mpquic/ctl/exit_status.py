"""Exit statuses of `mpquicctl`."""

FAILED = 1
"""A file is wrong, or a request was refused."""
UNUSABLE = 2
"""The command line is wrong, or a directory can't be listed."""
NOT_RUNNING = 3
"""An instance that was named is not running."""
UNKNOWN = 4
"""There is no instance of that name."""
