"""How numbers are told."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import numbers

INF = math.inf


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (6.58, 6.28, 6.9, ("6.58", "6.28", "6.90")),
        (71_893.4, 70_100, 73_000.6, ("71,893", "70,100", "73,001")),
        (37.52, 37.0, 38.0, ("37.5", "37.0", "38.0")),
        (0.0012, -0.8, 0.8024, ("0.001", "-0.800", "0.802")),  # its own three digits would claim far too much
        (4.6875, -INF, INF, ("4.69", "-∞", "∞")),
        (4.6875, None, None, ("4.69", "-∞", "∞")),
        (3.0, 2.0, INF, ("3.00", "2.00", "∞")),
        (9.999, 9.99, 10.01, ("10.00", "9.99", "10.01")),
        (0.0, 0.0, 0.0, ("0", "0", "0")),
    ],
)  # fmt: skip
def test_an_estimate_and_its_interval_have_the_same_decimals(
    value: float, low: float | None, high: float | None, told: tuple[str, str, str]
) -> None:
    """Trailing zeros stand, as they were measured; an open end is open."""
    assert numbers.estimate_texts(value, low, high) == told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1500.4, "1,500"),
        (10_000.5, "10,000"),
        (54.25, "54.25"),
        (0.9251, "0.9251"),
        (1e-6, "1e-06"),
        (650000, "650,000"),
    ],
)
def test_an_exact_number_keeps_the_zeros_before_its_point(value: float, text: str) -> None:
    assert numbers.number_text(value) == text


@given(st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-4))
def test_an_exact_number_is_told_to_four_digits(value: float) -> None:
    """Read back, it is off by less than half a unit of its fourth digit, or by less than a half."""
    told = float(numbers.number_text(value).replace(",", ""))
    assert abs(told - value) <= max(abs(value) * 5.1e-4, 0.5 * (abs(value) >= 1000))


ENDS = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(st.tuples(ENDS, ENDS, ENDS).map(sorted))
def test_what_is_told_is_within_half_a_percent_of_estimate_or_width(ends: list[float]) -> None:
    """Rounding moves none of the three by more than 1 in 200 of the estimate, or of half the interval's width."""
    low, value, high = ends
    allowed = max(abs(value), (high - low) / 2) / 200 + 1e-12
    for x, text in zip((value, low, high), numbers.estimate_texts(value, low, high), strict=True):
        assert abs(float(text.replace(",", "")) - x) <= max(allowed, 0.5 if abs(x) > 100 else 0)


@pytest.mark.parametrize(
    ("number", "value", "unit", "said"),
    [
        ("6", 6, "ratio", "6 times"),
        ("37.5", 37.5, "%", "37.5%"),
        ("1.40", 1.4, "points", "1.40 points"),
        ("0.0145", 0.0145184, "fraction of the parameters", "0.0145 of the parameters (1.45%)"),
        ("8", 8, "", "8"),
    ],
)
def test_a_number_stands_with_its_unit(number: str, value: float, unit: str, said: str) -> None:
    """Percent close up, words behind a space, and a share of something in percent, too."""
    assert numbers.in_full(number, value, unit) == said
