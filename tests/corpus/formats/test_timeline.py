"""Dates of a timeline, as exact as they are given."""

import pytest

from corpus.formats.timeline import day
from corpus.modality import UnusableError


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2021", "2021"),
        ("2021-03", "2021-03"),
        ("2021-03-04", "2021-03-04"),
        ("20210304", "2021-03-04"),
        ("2021.03.04", "2021-03-04"),
        (" 2021/03/04 ", "2021-03-04"),
        ("2021-03-04T05:06:07.089+09:00", "2021-03-04T05:06:07"),
        ("2021-03-04 05:06:07", "2021-03-04T05:06:07"),
        ("2021-03-04T05:06Z", "2021-03-04T05:06"),
    ],
)
def test_a_date_is_read_as_exact_as_it_is(given: str, read: str) -> None:
    assert day(given) == read


@pytest.mark.parametrize("given", ["", "someday", "4.3.2021", "2021-3-4", "21", "2021-03-04T5"])
def test_what_is_no_date_is_refused(given: str) -> None:
    with pytest.raises(UnusableError, match="must be a date such as 2021-03-04, but is"):
        day(given)


@pytest.mark.parametrize("given", ["0000", "2021-13", "2021-02-30", "2021-03-04T25:00:00"])
def test_a_day_that_never_was_is_refused(given: str) -> None:
    with pytest.raises(UnusableError, match="must be a day of the calendar, but is"):
        day(given)
