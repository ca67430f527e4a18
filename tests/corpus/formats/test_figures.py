"""Figures: what a number is, how it is written, and which columns hold them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.formats.figures import figure, figure_columns, is_blank, number
from corpus.modality import UnusableError


@pytest.mark.parametrize(
    ("written", "found"),
    [
        *(("1", 1.0), ("-0.5", -0.5), ("+3", 3.0), ("1,234.5", 1234.5), ("1e-3", 0.001), (".5", 0.5), ("5.", 5.0)),
        *(("\u22122", -2.0), (True, 1.0), ("FALSE", 0.0), (7, 7.0), ("1,2", None), ("x", None), ("1 2", None)),
        *(("1e", None), ("e5", None), (".", None), ("", None), ("0x1", None), ("1_0", None), ("१", None)),
    ],
)
def test_what_a_number_is(written: object, found: float | None) -> None:
    assert number(written) == found


@pytest.mark.parametrize("written", ["inf", "-Infinity", "1e999", "9" * 350])
def test_an_infinite_number_is_refused(written: str) -> None:
    with pytest.raises(UnusableError, match="not_finite: must be a"):
        number(written)


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        *(("1.30103000388", 6, "1.30103"), ("37172386", 3, "37172386"), ("37172386.4", 3, "37172386")),
        *(("-0.50", 6, "-0.50"), ("2.0", 6, "2"), ("-0.4178398", 3, "-0.418"), ("1.23456789e-9", 3, "1.23e-09")),
        *((0.1 + 0.2, 6, "0.3"), ("1,234.56789", 6, "1234.57"), ("-3.620000000000001e-05", 6, "-0.0000362")),
        *(
            (True, 6, "1"),
            ("+4.5", 6, "4.5"),
            ("1.5e300", 1, "2e+300"),
            ("0.000000000", 3, "0"),
            ("99.9999999", 3, "100"),
        ),
    ],
)
def test_a_fraction_is_shortened_and_nothing_else(value: object, digits: int, written: str) -> None:
    assert figure("x", value, digits=digits) == written


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 17))
def test_a_shortened_number_is_close(value: float, digits: int) -> None:
    written = figure("x", value, digits=digits)
    assert float(written) == pytest.approx(value, rel=10.0 ** (1 - digits))
    assert figure("x", written, digits=digits) == written


def test_what_is_no_figure_is_said() -> None:
    with pytest.raises(UnusableError, match="score must be a number, but is 'high'"):
        figure("score", "high", digits=6)
    assert all(map(is_blank, ["", "NA", "..", "-", ":", None, float("nan"), "#N/A"]))
    assert not is_blank("0")


def test_columns_of_figures() -> None:
    rows = [{"id": 1, "a": "1", "b": "x", "c": "", "d": "2"}, {"id": 2, "a": "NA", "b": "2", "c": "", "d": "inf"}]
    assert figure_columns(rows) == ["a", "d"]
    assert figure_columns(rows, besides=["a"], share=0.5) == ["b", "d"]
