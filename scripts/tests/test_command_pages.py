"""Man pages and completions in the tree are those of the parsers, are what hosts get, and work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from command_pages import COMMANDS, pages

ROOT = Path(__file__).parents[2]
SHARE = ROOT / "mpquic_daemon/share"


def test_the_files_in_the_tree_are_up_to_date() -> None:
    present = {str(path.relative_to(SHARE)): path.read_text() for path in SHARE.rglob("*") if path.is_file()}
    assert present == pages(), "run make docs"


def test_the_release_links_all_of_them_on_hosts() -> None:
    tasks = yaml.safe_load((ROOT / "roles/daemon/tasks/release.yml").read_text())
    (release,) = [task["venv_release"] for each in tasks for task in each.get("block", []) if "venv_release" in task]
    assert sorted(release["shared"]) == sorted(pages())


@pytest.mark.parametrize(("section", "make", "manual"), COMMANDS, ids=[make().prog for _, make, _ in COMMANDS])
def test_a_man_page_says_what_the_parser_and_the_manual_say(section: int, make, manual) -> None:  # type: ignore[no-untyped-def]
    text = pages()[f"man/man{section}/{make().prog}.{section}"].replace("\\-", "-")
    for heading in (".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXIT STATUS", ".SH EXAMPLES", ".SH SEE ALSO"):
        assert heading in text
    for status, meaning in manual.exit_statuses:
        assert f".B {status}\n{meaning}".replace("'", r"\(aq") in text


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
@pytest.mark.parametrize("page", [name for name in pages() if name.startswith("man/")])
def test_a_man_page_has_no_fault_of_markup(page: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", str(SHARE / page)],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def complete(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`; instances are those of `folder`."""
    script = (SHARE / "bash-completion/completions/mpquicctl").read_text().replace("/etc/mpquic/instances", str(folder))
    quoted = " ".join(f"'{word}'" for word in words)
    script += f"""
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_shtab_mpquicctl mpquicctl '{words[-1]}' '{words[-2]}'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_the_names_of_instances(tmp_path: Path) -> None:
    for name in ("mpq4", "mpq5", "other"):
        (tmp_path / f"{name}.yml").touch()
    assert set(complete(tmp_path, "mpquicctl", "rec")) == {"reconnect"}
    assert {"status", "watch", "paths"} <= set(complete(tmp_path, "mpquicctl", ""))
    assert set(complete(tmp_path, "mpquicctl", "status", "mpq")) == {"mpq4", "mpq5"}
    assert "--json" in complete(tmp_path, "mpquicctl", "reconnect", "--")
    assert complete(tmp_path / "none", "mpquicctl", "status", "mpq") == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_reads_its_completion() -> None:
    path = SHARE / "zsh/site-functions/_mpquicctl"
    assert path.read_text().startswith("#compdef mpquicctl\n")
    subprocess.run(["zsh", "-n", str(path)], check=True)


def test_bash_reads_its_completion() -> None:
    subprocess.run(["bash", "-n", str(SHARE / "bash-completion/completions/mpquicctl")], check=True)
