"""Names of the machines' devices: the reference's or another scheme's, the same for every command of a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from mpqlab import nics

if TYPE_CHECKING:
    from pathlib import Path


def test_a_scheme_that_counts_names_management_lans_and_wans_in_this_order() -> None:
    names = nics.named("ens")
    assert names.management == ("ens3", "ens4")
    assert names.lans == ("ens5", "ens6", "ens7", "ens8", "ens9", "ens10")
    assert names.wans == ("ens11", "ens12", "ens13", "ens14", "ens15", "ens16")
    assert names.vps == "ens3"


@pytest.mark.parametrize("scheme", nics.SCHEMES)
def test_no_two_devices_of_the_client_have_one_name(scheme: str) -> None:
    names = nics.named(scheme)
    devices = [*names.management, *names.lans, *names.wans]
    assert len(devices) == 14
    assert len(set(devices)) == len(devices)


def test_an_unknown_scheme_is_refused_with_those_that_exist() -> None:
    with pytest.raises(nics.UnknownSchemeError, match=r"MPQLAB_NICS=usb: .* choose one of reference, eth, ens"):
        nics.named("usb")


@pytest.mark.parametrize(
    ("environment", "record", "scheme"),
    [
        ({}, None, "reference"),
        ({"MPQLAB_NICS": "eth"}, None, "eth"),
        ({}, {"complete": True, "nics": "ens"}, "ens"),
        ({"MPQLAB_NICS": "eth"}, {"complete": True, "nics": "ens"}, "eth"),
        ({"MPQLAB_NICS": ""}, {"complete": True, "nics": "ens"}, "ens"),
        ({}, {"complete": False, "nics": "ens"}, "reference"),
    ],
)
def test_a_command_follows_its_environment_then_the_lab_that_runs(
    tmp_path: Path, environment: dict[str, str], record: dict[str, object] | None, scheme: str
) -> None:
    path = tmp_path / "lab.json"
    if record is not None:
        path.write_text(json.dumps(record))
    assert nics.chosen(environment, path) == scheme


def test_the_whole_topology_has_the_names_of_the_scheme() -> None:
    script = (
        "from mpqlab.topology import *; print(MANAGEMENT[0].device, find_lan(6).device, find_wan('wan4').device,"
        " find_wan('eth13').name, VPS_DEVICE)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"MPQLAB_NICS": "eth", "MPQLAB_NAME": "nolab"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["eth0", "eth7", "eth11", "wan6", "eth0"]
