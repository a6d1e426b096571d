"""The configuration of one instance: one YAML file, a strict schema, and what a reload applies of it."""

from mpquic.config.file import check_files, load, parse
from mpquic.config.model import (
    ROLES,
    ClientConfig,
    ClientTls,
    InstanceConfig,
    PathConfig,
    Peer,
    ServerConfig,
    ServerTls,
)

__all__ = [
    "ROLES",
    "ClientConfig",
    "ClientTls",
    "InstanceConfig",
    "PathConfig",
    "Peer",
    "ServerConfig",
    "ServerTls",
    "check_files",
    "load",
    "parse",
]
