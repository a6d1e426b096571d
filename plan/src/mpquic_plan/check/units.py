"""Units run steadily, and what runs is what comes back after a boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.check.finding import Finding, Result, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "units"
RECENT: Final = 600.0
"""Seconds after which a restart is nothing to speak of."""
AFTER_RUN: Final = 60.0
"""Seconds after the last change by a run in which what it restarted is there again."""
AFTER_BOOT: Final = 120.0
"""Seconds after a boot in which everything is started."""
LATER: Final = "an operator, or what systemctl list-dependencies --reverse tells, has started it"


def units_run_steadily(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield units that were started lately, by something else than a boot or a run of site.yml, and failed ones."""
    look = host.second
    booted = look["monotonic"] - look["uptime"]
    for name, unit in sorted(look["units"].items()):
        if unit.get("ActiveState") == "failed":
            text = f"{name} has failed ({unit.get('Result')})"
            yield problem(CHECK, text, f"journalctl -u {name}; systemctl reset-failed {name} when it's mended")
            continue
        started = int(unit.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        ago = look["monotonic"] - started
        if unit.get("ActiveState") != "active" or not started or ago > RECENT:
            continue
        by_itself = int(unit.get("NRestarts") or 0)
        by_run = look["applied"] is not None and look["time"] - ago <= look["applied"] + AFTER_RUN
        if by_itself:
            text = f"{name} was started {ago:.0f} s ago; systemd has restarted it {by_itself} times after it ended"
            yield problem(CHECK, text, f"journalctl -u {name}")
        elif started - booted > AFTER_BOOT and not by_run:
            text = f"{name} was started {ago:.0f} s ago, by neither a boot nor a run"
            yield problem(CHECK, text, f"journalctl -u {name} -u mpquic-linkd tells why; wait, and check again")


def what_runs_comes_back(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield units that run and wouldn't after a boot, and those that would and don't run."""
    for name, unit in sorted(host.second["units"].items()):
        active, enabled = unit.get("ActiveState") in ("active", "activating", "reloading"), _enabled(unit)
        if name.startswith("mpquic@"):
            yield from _instance(host, name, active=active)
        elif active and enabled is False:
            yield problem(
                CHECK,
                f"{name} runs, and isn't enabled: it would not come back after a boot",
                f"systemctl enable {name}",
            )
        elif enabled and not active:
            text = f"{name} is enabled and is {unit.get('ActiveState')}: after a boot it would run"
            yield problem(CHECK, text, f"systemctl start {name}, or run site.yml")
        if unit.get("NeedDaemonReload") == "yes":
            text = f"the file of {name} was changed after systemd has read it"
            yield problem(CHECK, text, "systemctl daemon-reload; the next boot would use what is on disk")


def _instance(host: Host, unit: str, *, active: bool) -> Iterator[Finding]:
    """An instance is enabled by its file: linkd starts those that have one and a WAN that can be used."""
    name = unit.removeprefix("mpquic@").removesuffix(".service")
    if active and name not in host.survey["instances"]:
        text = f"{unit} runs without a file /etc/mpquic/instances/{name}.yml: it would not come back after a boot"
        yield problem(CHECK, text, f"run site.yml, or systemctl stop {unit}")
    elif active and host.configs.get(name, {}).get("enabled") is False:
        text = f"{unit} runs although the variables have it disabled"
        yield problem(CHECK, text, f"run site.yml, or systemctl stop {unit}")


def _enabled(unit: Mapping[str, Any]) -> bool | None:
    """Return whether a boot starts a unit by itself; None for those that others start."""
    state = str(unit.get("UnitFileState", ""))
    return {"enabled": True, "enabled-runtime": True, "disabled": False, "masked": False}.get(state)


def boot_was_lately(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield if the host was booted lately, which explains why everything was started."""
    uptime = host.second["uptime"]
    if uptime < RECENT:
        yield Finding(
            CHECK, Result.SKIPPED, f"the host was booted {uptime:.0f} s ago: restarts before that aren't known"
        )
