"""Structured log lines for the journal: `<5>path.up peer=203.0.113.10:45005 rtt_ms=13.2`.

The `<N>` prefix is the syslog priority that systemd reads from standard error (sd-daemon(3)). Values are quoted
as JSON strings when they hold anything but plain characters, so that nothing from the network can start a line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,\[\]-]+\Z")
_FIELDS = "fields"


class JournalFormatter(logging.Formatter):
    """Formats a record as priority, event and fields on one line; with a time when it isn't the journal that reads."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`."""
        fields: dict[str, object] = dict(getattr(record, _FIELDS, None) or {})
        if record.exc_info is not None and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        parts = [_text(record.getMessage()), *(f"{key}={_value(value)}" for key, value in fields.items())]
        line = " ".join(parts)
        if self._journal:
            return f"<{_priority(record.levelno)}>{line}"
        return f"{self.formatTime(record)} {record.levelname.lower()} {line}"


class Journal:
    """Events of one instance, each with a name and fields.

    `limited` is for what can repeat as fast as the network likes: an event is written at most once in `interval`
    seconds for each `key`, with the number of those left out since then.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._quiet_until: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def debug(self, event: str, **fields: object) -> None:
        """Write what helps a developer."""
        self._logger.debug(event, extra={_FIELDS: fields})

    def info(self, event: str, **fields: object) -> None:
        """Write a change of state that is normal."""
        self._logger.info(event, extra={_FIELDS: fields})

    def warning(self, event: str, **fields: object) -> None:
        """Write what an operator may want to look at."""
        self._logger.warning(event, extra={_FIELDS: fields})

    def error(self, event: str, **fields: object) -> None:
        """Write what an operator must act upon."""
        self._logger.error(event, extra={_FIELDS: fields})

    def fault(self, event: str, error: BaseException | None, **fields: object) -> None:
        """Write a fault of the program with its traceback."""
        self._logger.error(event, exc_info=error, extra={_FIELDS: fields})

    def limited(self, key: str, now: float, event: str, interval: float = 60.0, **fields: object) -> None:
        """Write a warning unless one of the same `key` was written less than `interval` seconds ago."""
        if now < self._quiet_until.get(key, now):
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        if len(self._quiet_until) > 256:
            self._quiet_until = {known: until for known, until in self._quiet_until.items() if until > now}
        left_out = self._left_out.pop(key, 0)
        if left_out:
            fields["left_out"] = left_out
        self._quiet_until[key] = now + interval
        self.warning(event, **fields)


def open_journal(level: str, stream: TextIO | None = None) -> Journal:
    """Send this process's log to `stream` (standard error) and return the journal of the daemon."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JournalFormatter(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    # aioquic logs what unregistered peers send at INFO and WARNING: whoever can reach the port could fill the disk.
    logging.getLogger("quic").setLevel(logging.ERROR)
    set_level(level)
    return Journal(logging.getLogger("mpquic"))


def set_level(level: str) -> None:
    """Set what is written from now on: debug, info, warning or error."""
    logging.getLogger("mpquic").setLevel(LEVELS[level])


def _priority(level: int) -> int:
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    # A normal but significant condition (syslog(3)). Below it lies what the service manager says of each start and
    # stop, which the unit of an instance leaves out.
    return 5 if level >= logging.INFO else 7


def _text(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    return text if _PLAIN.match(text) else json.dumps(text)
