"""What the lab asks of the controller: each lack is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mpqlab import cgroup, preflight
from mpqlab.errors import LabError
from mpqlab.run import run

needs_root = pytest.mark.root
OVERLAY = "lowerdir={0}/l,upperdir={0}/u,workdir={0}/w"


@needs_root
def test_this_machine_has_all_of_it_and_nothing_is_left() -> None:
    preflight.check()
    for folder in (Path("/run/netns"), preflight.CACHE.parent, preflight.STORAGE.parent):
        assert not (folder / preflight._PROBE).exists()


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("masquerade", "the kernel has no nftables with masquerade: try `modprobe nft_masq`"),
        ("fib saddr", "the kernel has no nftables with fib: try `modprobe nft_fib_inet`"),
        ("ct state", "the kernel has no nftables with connection tracking: try `modprobe nft_ct`"),
        ("-6", "the kernel has no IPv6, which the lab's networks use"),
        ("netns add", "no network namespace can be made"),
    ],
)
@needs_root
def test_a_missing_feature_of_the_kernel_is_named(monkeypatch: pytest.MonkeyPatch, marker: str, sentence: str) -> None:
    def kernel(argv: list[str], *, stdin: str = "") -> str:
        if marker in f"{' '.join(argv)} {stdin}":
            raise LabError("Operation not supported")
        return run(argv, stdin=stdin)

    monkeypatch.setattr(preflight, "run", kernel)
    with pytest.raises(LabError, match="^" + sentence.replace("`", ".")):
        preflight.check()
    assert not Path("/run/netns", preflight._PROBE).exists()


def test_a_control_group_that_cannot_be_made_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroup, "_hierarchies", lambda: [tmp_path / "read-only"])
    with pytest.raises(LabError, match=r"can't be made \(No such file or directory\): the lab needs writable"):
        cgroup.joining("services", ["true"])
    monkeypatch.setattr(cgroup, "_hierarchies", list)
    with pytest.raises(LabError, match="no control groups are mounted"):
        cgroup.joining("services", ["true"])


@needs_root
def test_a_folder_whose_file_system_is_an_overlay_is_refused() -> None:
    # A mount namespace of its own: nothing stays mounted when the test is killed.
    script = (
        "import sys; from pathlib import Path; from mpqlab import preflight;"
        "preflight.check_overlay_layers(Path(sys.argv[1]))"
    )
    mounts = (
        "mount -t tmpfs x /mnt; mkdir /mnt/l /mnt/u /mnt/w /mnt/m;"
        f"mount -t overlay x -o {OVERLAY.format('/mnt')} /mnt/m;"
    )
    private = ["unshare", "--mount", "--propagation", "private"]
    for folder, works in (("/mnt/m/probe", False), ("/mnt/probe", True)):
        done = subprocess.run(
            [*private, "sh", "-ec", mounts + 'exec "$@"', "sh", sys.executable, "-c", script, folder],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode == 0) == works, done.stderr
        if not works:
            assert "LabError: /mnt/m can't hold the machines' file systems" in done.stderr
