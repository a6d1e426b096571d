"""What is read from a host for a check."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from host_check import carriers, last_stamp, read, running_release, saved_tables, unit_blocks, unit_names
from module_process import run_module

if TYPE_CHECKING:
    from pathlib import Path

RELEASES = "/opt/mpquic/releases"


def test_the_release_of_a_process_is_that_of_the_files_that_it_has_mapped() -> None:
    maps = (
        "7f00-7f01 r-xp 0 00:1 9 /usr/lib/libc.so.6\n"
        "7f01-7f02 r-xp 0 00:1 9 /opt/mpquic/releases/0.1.0-ab/venv/lib/python3.11/site-packages/msgspec.so (deleted)\n"
    )
    assert running_release(maps, RELEASES) == "0.1.0-ab"
    assert running_release("7f00-7f01 r-xp 0 00:1 9 /opt/mpquic/current\n", RELEASES) is None


def test_units_that_do_not_exist_are_left_out() -> None:
    text = "Id=a.service\nLoadState=loaded\nActiveState=active\n\nId=b.service\nLoadState=not-found\n\n"
    assert unit_blocks(text) == {"a.service": {"Id": "a.service", "LoadState": "loaded", "ActiveState": "active"}}
    assert unit_blocks("") == {}


def test_a_template_is_no_unit() -> None:
    listing = "mpquic@.service static -\nmpquic-linkd.service enabled enabled\n\nmpquic-linkd.service loaded active\n"
    assert unit_names(listing) == ["mpquic-linkd.service"]


def test_the_last_change_by_a_run_is_that_of_the_newest_file(tmp_path: Path) -> None:
    for name, time in (("a", 100.0), ("b", 300.0), ("c", 200.0)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time, time))
    assert last_stamp((f"{tmp_path}/[ac]", f"{tmp_path}/b")) == 300.0
    assert last_stamp((f"{tmp_path}/nothing",)) is None


def test_a_file_with_a_copy_of_our_tables_is_found(tmp_path: Path) -> None:
    texts = {
        "all": "flush ruleset\ntable inet mpquic_guard { # progname mpquic-guard\n\tflags owner\n}\n"
        "table inet mpquic {\n}\ntable inet admin {\n}\n",
        "added": "  add table inet mpquic\n",
        "others": "table ip mpquic {\n}\ntable inet mpquic2 {\n}\n# table inet mpquic {\n",
        "deletes": 'delete table inet mpquic\ninclude "/etc/mpquic/nftables.nft"\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert saved_tables((f"{tmp_path}/nothing", f"{tmp_path}/*")) == {
        str(tmp_path / "added"): ["mpquic"],
        str(tmp_path / "all"): ["mpquic", "mpquic_guard"],
    }


def test_a_link_that_is_down_has_no_carrier_to_read(tmp_path: Path) -> None:
    for name, text in (("up", "1\n"), ("out", "0\n"), ("down", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "carrier").write_text(text)
    assert carriers(str(tmp_path)) == {"up": True, "out": False, "down": False}


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read(tmp_path / "pipe") is None
    assert read(tmp_path / "nothing") is None


def test_a_host_without_any_of_our_programs_is_looked_at(tmp_path: Path) -> None:
    """systemctl and nft may fail; the module says what there is."""
    for name in ("systemctl", "nft"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    nowhere = str(tmp_path / "nowhere")
    look = run_module("host_check", {"releases": nowhere, "pki": nowhere, "mpquicctl": nowhere}, path=str(tmp_path))[
        "look"
    ]
    assert look["units"] == {}
    assert look["rules"]["ipv4"][0] == {"priority": 0, "src": "all", "table": "255"}
    assert (look["current_release"], look["revoked"], look["filter"], look["versions"]) == (None, None, "", [])
    assert look["monotonic"] > 0
    assert look["links"]["lo"] is True


def test_units_are_asked_for_with_the_release_of_their_process(tmp_path: Path) -> None:
    (tmp_path / "systemctl").write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "list-unit-files) echo 'mpquic-linkd.service enabled enabled';;\n"
        "list-units) echo 'mpquic@mpq5.service loaded active running x';;\n"
        'show) shift 2; for unit; do echo "Id=$unit"; echo LoadState=loaded; echo MainPID=0; echo; done;;\n'
        "esac\n"
    )
    (tmp_path / "systemctl").chmod(0o755)
    units = run_module("host_check", {"mpquicctl": str(tmp_path / "nowhere")}, path=str(tmp_path))["look"]["units"]
    assert {name: unit["Release"] for name, unit in units.items()} == {
        "mpquic-linkd.service": None,
        "mpquic@mpq5.service": None,
    }
