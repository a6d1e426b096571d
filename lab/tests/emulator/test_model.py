import pytest
from mpqlab.emulator.model import ConfigError, DirectionConfig, describe_keys, parse_pairs


def test_values_are_read_from_text_and_from_json() -> None:
    config = DirectionConfig().changed(
        {"rate_mbit": "20.5", "delay_ms": 7, "mtu": "1400", "mtu_icmp": "off", "blackhole": True, "seed": 2.0}
    )
    assert config == DirectionConfig(rate_mbit=20.5, delay_ms=7.0, mtu=1400, mtu_icmp=False, blackhole=True, seed=2)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"delay": "5"}, "Unknown key delay: did you mean delay_ms?"),
        ({"delay_ms": "5ms"}, "delay_ms=5ms: expected a number from 0 to 60000."),
        ({"delay_ms": "nan"}, "delay_ms=nan: expected a number from 0 to 60000."),
        ({"delay_ms": True}, "delay_ms=True: expected a number from 0 to 60000."),
        ({"delay_ms": None}, "delay_ms=None: expected a number from 0 to 60000."),
        ({"loss_percent": "101"}, "loss_percent=101: expected a number from 0 to 100."),
        ({"rate_mbit": "-1"}, "rate_mbit=-1: expected a number from 0 to 100000."),
        ({"mtu": "1400.5"}, "mtu=1400.5: expected a whole number from 0 to 65535."),
        ({"mtu": 1400.5}, "mtu=1400.5: expected a whole number from 0 to 65535."),
        ({"mtu": "60"}, "mtu=60 must be 0 or at least 68 (RFC 791)."),
        ({"leo": "maybe"}, "leo=maybe: expected on or off."),
        ({"jitter_ms": "5"}, "jitter_ms=5 must not exceed delay_ms=0."),
        (
            {"burst_enter_percent": "1"},
            "burst_enter_percent needs burst_leave_percent above 0, or a burst never ends.",
        ),
        ({"leo_min_mbit": "80"}, "leo_min_mbit=80 must not exceed leo_max_mbit=75."),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DirectionConfig().changed(values)
    assert caught.value.problems == [problem]


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DirectionConfig().changed({"delay": 1, "mtu": "x", "rate_mbit": 5})
    assert len(caught.value.problems) == 2


def test_pairs_are_for_both_directions_unless_they_say_one() -> None:
    assert parse_pairs(["delay_ms=5", "up.rate_mbit=20", "down.rate_mbit=200"]) == {
        "up": {"delay_ms": "5", "rate_mbit": "20"},
        "down": {"delay_ms": "5", "rate_mbit": "200"},
    }


@pytest.mark.parametrize("pair", ["delay_ms", "=5", "left.delay_ms=5", "up.=5"])
def test_what_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key=value, up\.key=value or down\.key=value"):
        parse_pairs([pair])


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="rate_mbit is given twice for the direction up"):
        parse_pairs(["rate_mbit=5", "up.rate_mbit=6"])


def test_the_help_names_every_key() -> None:
    text = describe_keys()
    for key in DirectionConfig().as_dict():
        assert f"  {key}=" in text
