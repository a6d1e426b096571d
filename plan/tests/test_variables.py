"""Misspelt variables at the top level, which no schema sees."""

from __future__ import annotations

import pytest
from mpquic_plan.variables import misspelt


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sites", "unknown variable; did you mean 'site'?"),
        ("Site", "unknown variable; did you mean 'site'?"),
        ("vsp", "unknown variable; did you mean 'vps'?"),
        ("lane_count", None),
        ("vpss", "unknown variable; did you mean 'vps'?"),
        ("site_idd", "unknown variable; did you mean 'site.site_id'?"),
        ("tunnels", "is a key of site; write it as site.tunnels"),
        ("listners", "unknown variable; did you mean 'vps.listeners'?"),
        ("ansible_host", None),
        ("group_names", None),
        ("mpquic_anything", None),
    ],
)
def test_a_misspelt_variable_is_told_of(name: str, message: str | None) -> None:
    found = [(problem.host, problem.path, problem.message) for problem in misspelt("host1", ["site", name])]
    assert found == ([] if message is None else [("host1", name, message)])


def test_variables_of_the_suite_are_known_by_name() -> None:
    names = ["mpquic_pki_dri", "mpquic_pki_dir", "mpquic_zzz"]
    assert [str(problem) for problem in misspelt("host1", names, ["mpquic_pki_dir", "mpquic_log"])] == [
        "host1: mpquic_pki_dri: unknown variable; did you mean 'mpquic_pki_dir'?",
        "host1: mpquic_zzz: unknown variable; there are mpquic_log, mpquic_pki_dir",
    ]
