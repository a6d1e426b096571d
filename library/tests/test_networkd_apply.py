from pathlib import Path

from networkd_apply import absent, complaints, matching, sum_of

NAMES = ["05-mpquic-50-mpq5.netdev"]


def test_an_unknown_key_of_our_file_is_a_complaint() -> None:
    journal = (
        "/etc/systemd/network/05-mpquic-50-mpq5.netdev:9: Unknown key name 'VNetHeadre' in section 'Tun', ignoring.\n"
    )
    assert complaints(journal, NAMES) == [journal.strip()]


def test_complaints_about_files_of_others_and_states_of_links_are_left_out() -> None:
    journal = (
        "/etc/systemd/network/10-theirs.network:3: Unknown key name 'Adress' in section 'Network', ignoring.\n"
        "enp7s7: ignoring DHCP packet, 05-mpquic-50-mpq5.netdev\n"
        "enp7s7: Reconfiguring with /etc/systemd/network/05-mpquic-50-mpq5.netdev.\n"
    )
    assert complaints(journal, NAMES) == []


def test_a_vlan_is_missed_only_where_the_link_below_it_is(tmp_path: Path) -> None:
    for name in ("mpq4", "enp6s21", "enp6s21.21"):
        (tmp_path / name).mkdir()
    vlans = {"enp6s21.21": "enp6s21", "enp6s21.22": "enp6s21", "enp7s9.7": "enp7s9"}
    assert absent(["mpq4", "mpq5"], vlans, tmp_path) == ["mpq5", "enp6s21.22"]


def test_the_sum_follows_names_and_contents(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.write_text("x")
    before = sum_of([first])
    second = first.rename(tmp_path / "b")
    assert sum_of([second]) != before
    second.rename(first)
    assert sum_of([first]) == before
    first.write_text("y")
    assert sum_of([first]) != before


def test_files_of_all_patterns_count_each_once(tmp_path: Path) -> None:
    for name in ("05-mpquic-20-enp7s3.network", "30-mpquic-enp7s3.network", "10-netplan-all-en.network"):
        (tmp_path / name).touch()
    found = matching(tmp_path, ["05-mpquic-*", "30-mpquic-*", "*-mpquic-*"])
    assert [path.name for path in found] == ["05-mpquic-20-enp7s3.network", "30-mpquic-enp7s3.network"]


def test_the_sum_follows_who_may_enter_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "95-mpquic.conf"
    file.write_text("[Network]\n")
    before = sum_of([file])
    tmp_path.chmod(0o700)
    closed = sum_of([file])
    tmp_path.chmod(0o755)
    assert len({before, closed, sum_of([file])}) == 2
