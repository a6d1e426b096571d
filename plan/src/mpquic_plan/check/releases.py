"""Which release runs: that of the processes, not of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic_plan.check.finding import Finding, Result, listener_of, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "release"


def same_release_runs(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield where another release than this checkout's is installed or runs."""
    look = host.second
    if look["current_release"] != host.release:
        found = f"release {look['current_release']}" if look["current_release"] else "no release"
        yield problem(
            CHECK,
            f"{found} is installed, this checkout is {host.release}",
            "run site.yml, or use the checkout that the fleet runs",
        )
    others: dict[str, list[str]] = {}
    for name, unit in sorted(look["units"].items()):
        release = unit.get("Release")
        if release and release != host.release:
            others.setdefault(release, []).append(name.removesuffix(".service"))
    for release, names in sorted(others.items()):
        runs = "runs" if len(names) == 1 else "run"
        yield problem(
            CHECK,
            f"{', '.join(names)} {runs} release {release}, this checkout is {host.release}",
            f"run site.yml; if it's still so afterwards: systemctl restart {' '.join(names)}",
        )


def release_is_known(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield processes of ours of which no file tells the release: then the one that they state counts."""
    wanted = _build(host.release)
    stated = {str(row["name"]): row.get("release") for row in host.second["versions"]}
    for unit, state in sorted(host.second["units"].items()):
        name = unit.removesuffix(".service")
        if state.get("MainPID", "0") == "0" or state.get("Release"):
            continue
        release = stated.get(name.removeprefix("mpquic@"))
        if release is None:
            yield Finding(CHECK, Result.SKIPPED, f"which release {name} runs can't be told")
        elif release != wanted:
            yield problem(CHECK, f"{name} runs release {release}, this checkout is {host.release}", "run site.yml")


def both_ends_run_the_same(host: Host, fleet: Fleet) -> Iterator[Finding]:
    """Yield tunnels of a site whose ends run different releases."""
    peer = fleet.vps
    if not host.is_client or peer is None:
        return
    for name, config in host.configs.items():
        listener = listener_of(peer, config)
        own, other = _running(host, name), _running(peer, listener) if listener else None
        if own and other and _build(own) != _build(other):
            yield problem(
                CHECK,
                f"{name} runs release {own} here and {other} on {peer.name}",
                f"run site.yml for {host.name} and {peer.name}",
            )


def _build(release: str) -> str:
    """Return version and build hash of an installed release, which names a Python and a machine as well."""
    return "-".join(release.split("-")[:2])


def _running(host: Host, instance: str) -> str | None:
    release = host.second["units"].get(f"mpquic@{instance}.service", {}).get("Release")
    return str(release) if release else None
