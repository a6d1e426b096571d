"""Fixtures that every scenario with a provisioned lab uses; a scenario's conftest.py imports those that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import testinfra

from mpqlab.testing import Download, Lab, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The running lab."""
    return Lab()


@pytest.fixture(scope="session")
def client() -> Host:
    """The client machine, for testinfra's questions."""
    return testinfra.get_host("mpqlab://client")


@pytest.fixture(scope="session")
def vps() -> Host:
    """The VPS machine, for testinfra's questions."""
    return testinfra.get_host("mpqlab://vps")


@pytest.fixture
def probe(lab: Lab) -> Iterator[Callable[..., Probe]]:
    """Starts probes, by LAN number and what else `Probe` takes; ends them after the test."""
    probes: list[Probe] = []

    def start(lan: int, **how: Any) -> Probe:
        probes.append(Probe(lab, lan, **how))
        probes[-1].wait_replies(10, within=20)
        return probes[-1]

    yield start
    for running in probes:
        running.close()


@pytest.fixture
def download(lab: Lab) -> Iterator[Callable[..., Download]]:
    """Starts downloads, with the arguments of `Download`; ends them after the test."""
    downloads: list[Download] = []

    def start(lan: int, size: int, rate: str | None = None) -> Download:
        downloads.append(Download(lab, lan, size, rate))
        return downloads[-1]

    yield start
    for running in downloads:
        running.close()


@pytest.fixture(autouse=True)
def healed(lab: Lab) -> Iterator[None]:
    """End whatever a test did to a WAN before the next one begins."""
    yield
    lab.heal()
