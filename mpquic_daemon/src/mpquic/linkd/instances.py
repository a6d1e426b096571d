"""The instance files: which WANs each instance needs. A file is parsed again only when it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.config import ClientConfig, InstanceConfig, load
from mpquic.config.schema import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Wan = tuple[str, int]
"""Device and address family (socket.AF_INET, AF_INET6) that an instance needs."""

_Version = tuple[int, int, int]
_Found = tuple[Wan, ...] | ConfigError | None
"""What a file says; None: the instance is out of service (`enabled: false`), and isn't to run."""


class InstanceFiles:
    """The `*.yml` files of a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._parsed: dict[str, tuple[_Version, _Found]] = {}
        self.changed: set[str] = set()
        """The instances whose file was found to be new, or another than before. Whoever has used it clears it."""
        self.disabled: set[str] = set()
        """The instances that their file puts out of service."""

    def read(self) -> tuple[dict[str, tuple[Wan, ...]], dict[str, str]]:
        """Return the WANs of each instance that is in service, and the problem of each whose file is wrong.

        Raises:
            OSError: the directory can't be read.
        """
        wanted: dict[str, tuple[Wan, ...]] = {}
        broken: dict[str, str] = {}
        paths = sorted(path for path in self.directory.iterdir() if path.suffix == ".yml")
        names = {path.stem for path in paths}
        for path in paths:
            found = self._one(path)
            if isinstance(found, ConfigError):
                broken[path.stem] = str(found)
            elif found is not None:
                wanted[path.stem] = found
        for name in self._parsed.keys() - names:
            del self._parsed[name]
        self.disabled = names - wanted.keys() - broken.keys()
        return wanted, broken

    def _one(self, path: Path) -> _Found:
        try:
            # Before the reading: what is written after it has another version and is read next time.
            status = path.stat()
        except OSError:
            return _load(path)
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._parsed.get(path.stem)
        if known is not None and known[0] == version:
            return known[1]
        found = _load(path)
        self._parsed[path.stem] = version, found
        self.changed.add(path.stem)
        return found


def _load(path: Path) -> _Found:
    try:
        config = load(path)
        return _wans(config) if not isinstance(config, ClientConfig) or config.enabled else None
    except ConfigError as error:
        return error


def _wans(config: InstanceConfig) -> tuple[Wan, ...]:
    if not isinstance(config, ClientConfig):
        return ()
    return tuple((path.bind_device, path.family) for path in config.paths if path.bind_device is not None)
