import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.durations import UNITS_NS, parse_duration_ns, show_duration
from ebbflow.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("250ms", 250_000_000),
        ("5s", 5_000_000_000),
        ("10m", 600_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1.5 s", 1_500_000_000),
        ("2D", 172_800_000_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("7ns", 7),
        ("0", 0),
    ],
)
def test_parse_duration_numbers_with_units_are_added(text, nanoseconds):
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "5x", "5s!", "-5s", "5s5", "1e3s", "s5"])
def test_parse_duration_anything_else_is_refused(text):
    with pytest.raises(ConfigError) as error:
        parse_duration_ns(text)
    assert "250ms" in error.value.hint


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS_NS)))
def test_parse_duration_one_number_is_number_times_unit(number, unit):
    assert parse_duration_ns(f"{number}{unit}") == number * UNITS_NS[unit]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (999.6, "1.00 µs"),
        (1_000, "1.00 µs"),
        (850_000, "850 µs"),
        (12_340_000, "12.3 ms"),
        (999_960_000, "1.00 s"),
        (1_200_000_000, "1.20 s"),
        (9_996_000_000, "10.0 s"),
        (125_000_000_000, "125 s"),
    ],
)
def test_show_duration_has_three_digits_and_a_unit(nanoseconds, text):
    assert show_duration(nanoseconds) == text
