from pathlib import Path

from networkd_apply import complaints, sum_of

NAMES = ["30-mpquic-mpq5.netdev"]


def test_an_unknown_key_of_our_file_is_a_complaint() -> None:
    journal = (
        "/etc/systemd/network/30-mpquic-mpq5.netdev:9: Unknown key name 'VNetHeadre' in section 'Tun', ignoring.\n"
    )
    assert complaints(journal, NAMES) == [journal.strip()]


def test_complaints_about_files_of_others_and_states_of_links_are_left_out() -> None:
    journal = (
        "/etc/systemd/network/10-theirs.network:3: Unknown key name 'Adress' in section 'Network', ignoring.\n"
        "enp7s7: ignoring DHCP packet, 30-mpquic-mpq5.netdev\n"
        "enp7s7: Reconfiguring with /etc/systemd/network/30-mpquic-mpq5.netdev.\n"
    )
    assert complaints(journal, NAMES) == []


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
