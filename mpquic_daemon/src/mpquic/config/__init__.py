"""The configuration of one instance: one YAML file, a strict schema, and what a reload applies of it."""

from mpquic.config.file import check_files, load, parse
from mpquic.config.model import (
    ROLES,
    ClientConfig,
    ClientPath,
    ClientTls,
    InstanceConfig,
    Peer,
    ServerConfig,
    ServerTls,
)

__all__ = [
    "ROLES",
    "ClientConfig",
    "ClientPath",
    "ClientTls",
    "InstanceConfig",
    "Peer",
    "ServerConfig",
    "ServerTls",
    "check_files",
    "load",
    "parse",
]
