"""A host as the check sees it, and what is found there."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence


class Result(Enum):
    """What a finding means for monitoring: `PROBLEM` alone is a failure."""

    OK = "ok"
    PROBLEM = "problem"
    HELD = "held"
    """Out of service on purpose."""
    SKIPPED = "skipped"
    """There was nothing to look at, or the other end isn't in the run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: by which check, in a sentence, and what a person does about it."""

    check: str
    result: Result
    text: str
    remedy: str = ""


def problem(check: str, text: str, remedy: str) -> Finding:
    """Return a finding that makes the check fail."""
    return Finding(check, Result.PROBLEM, text, remedy)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate: SHA-256 of itself and serial number as hexadecimal digits, and from when to when it counts."""

    fingerprint: str
    serial: str
    not_before: dt.datetime
    not_after: dt.datetime
    issued_by_ca: bool = True
    """Whether the controller's CA has signed it."""


@dataclass(frozen=True, slots=True)
class Controller:
    """What the controller has, and its time (aware)."""

    now: dt.datetime
    ca: Certificate | None = None
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What a host's slice of the plan says, and what was found there.

    `survey` is that of `host_survey`; `first` and `second` are two looks of `host_check` some seconds apart, and
    `health` what `site_health` returned beside each. `replies` are those of `tunnel_ping`, `forwarding` the result of
    `forwarding_probe`. `files` maps paths to what a run would do to them. `release` is that of this checkout for the
    host's Python and machine.
    """

    name: str
    plan: Mapping[str, Any]
    survey: Mapping[str, Any]
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    health: Sequence[Mapping[str, Any]] = ()
    replies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    forwarding: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    ca: Certificate | None = None
    certificate: Certificate | None = None

    @property
    def is_client(self) -> bool:
        """Whether it is the client of a site."""
        return bool(self.plan["role"] == "client")

    @property
    def looks(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Both looks in their order."""
        return self.first, self.second

    @property
    def rows(self) -> dict[str, Mapping[str, Any]]:
        """The latest rows of `mpquicctl status` by instance; none when it couldn't be asked."""
        tunnels = self.health[-1].get("tunnels", []) if self.health else []
        return {str(row["name"]): row for row in tunnels}

    @property
    def configs(self) -> dict[str, Mapping[str, Any]]:
        """Configurations of the instances that the plan names."""
        return {str(each["name"]): each["config"] for each in self.plan["instances"]}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a host is compared with.

    `vps` is the VPS of a site if it was looked at, `identities` are those of all sites that were.
    """

    controller: Controller
    vps: Host | None = None
    identities: frozenset[str] = frozenset()


def identity_of(plan: Mapping[str, Any]) -> str:
    """Return by what a VPS knows a site, given the site's slice of the plan."""
    return str(plan["pki"]["subject_alt_names"][0]).removeprefix("URI:")


def listener_of(vps: Host, config: Mapping[str, Any]) -> str | None:
    """Return the instance of a VPS to whose port a client's instance connects."""
    servers = ((name, each) for name, each in vps.configs.items() if each["role"] == "server")
    return next((name for name, each in servers if each["bind_port"] == port_of(config)), None)


def port_of(config: Mapping[str, Any]) -> int:
    """Return the port of the VPS to which a client's instance connects, by whatever WAN."""
    return int(next(iter(config.get("multipath_paths", [config])))["remote_port"])
