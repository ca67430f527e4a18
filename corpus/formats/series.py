"""Series: which columns of a statistics table hold place, time, measure and value, and what each row says."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

from corpus.annotations import Column, bare, find_column
from corpus.clean import clean_line, is_missing
from corpus.entities import first_column
from corpus.formats.figures import figure, is_blank, number
from corpus.modality import SourceError, UnusableError

ENTITIES = (
    *(
        "entity",
        "country",
        "countryname",
        "countryorarea",
        "location",
        "locationname",
        "geo",
        "geoname",
        "referencearea",
    ),
    *(
        "country/region",
        "region",
        "regionname",
        "area",
        "areaname",
        "place",
        "state",
        "province",
        "territory",
        "county",
        "city",
        "name",
    ),
    *("국가", "국가별", "지역", "시도", "시도별", "시도별(1)", "시군구", "시군구별", "행정구역", "행정구역별"),
    *("행정구역별(1)", "행정구역(시도)별", "행정구역(시군구)별"),
)
CODES = (
    *("code", "countrycode", "iso3", "isocode", "iso", "alpha3", "iso3code", "locationcode", "spatialdim", "refarea"),
    *("geoid", "fips"),
)
TIMES = (
    *("year", "date", "time", "period", "timeperiod", "timedim", "month", "quarter", "week", "yearmonth", "yearweek"),
    *("시점", "연도", "년도", "기간", "연월"),
)
INDICATORS = (
    "indicator",
    "indicatorname",
    "measurename",
    "measure",
    "variable",
    "series",
    "seriesname",
    "항목",
    "지표",
)
SURE_VALUES = ("factvaluenumeric", "numericvalue", "obsvalue", "datavalue")
VALUES = (*SURE_VALUES, "value", "val", "cases", "count", "값", "수치", "데이터")
UNITS = ("unit", "units", "unitmeasure", "unitofmeasure", "단위")
BY = (
    *("sex", "gender", "sexname", "age", "agegroup", "agename", "ageband", "dim1", "dim2", "dim3", "subgroup"),
    *("subject", "measure"),  # OECD's: which beds or persons, and per what
    *("cause", "causename", "metricname", "reiname", "race", "ethnicity", "province/state"),
    *("성별", "연령별", "연령대", "연령"),
)
_PERSONS = (
    *("subjectid", "patientid", "personid", "usubjid", "mrn", "firstname", "lastname", "fakefirstname", "ssn"),
    *("birthdate", "dateofbirth", "dob", "patientname", "주민등록번호", "주민번호", "환자번호", "환자명", "성명"),
)
_YEAR_COLUMN = re.compile(
    r"(?:x|y)?((?:1[5-9]|20|21)\d\d)(?:\s*\[YR\d{4}\]|\s*년)?|(\d{1,2}/\d{1,2}/\d{2,4}|\d{4}-\d\d(?:-\d\d)?|\d{4}-?[QWM]\d{1,2})",
    re.IGNORECASE | re.ASCII,
)
_TIME = re.compile(
    r"-?\d{1,5}|\d{8}|\d{4}[-./ ]?[QWMSH]\d{1,2}|\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{1,4})?(?:[T ][\d:.,+Z-]*)?"
    r"|\d{4}\s?[-–/]\s?\d{2,4}|\d{4}년(?:\s?\d{1,2}월)?(?:\s?\d{1,2}일)?",
    re.IGNORECASE | re.ASCII,
)
_SIZE = re.compile(r"[\d.,]+", re.ASCII)
_BOUND = re.compile(r"[<>≤≥]\s?\d+(\.\d+)?")


_clean = lru_cache(maxsize=1 << 14)(clean_line)  # places, years and measures come again and again


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of one source, as it writes them; a wide table has `years` in place of a time and values."""

    entity: str
    code: str | None = None
    time: str | None = None
    years: dict[str, str] = field(default_factory=dict)
    indicator: str | None = None
    unit: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    facts: dict[str, Column] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a value may be, and how many digits of a fraction are written."""

    least: float | None
    most: float | None
    digits: int


def refuse_persons(found: Sequence[str]) -> None:
    """Refuses a table that has a row for each person.

    Raises:
        SourceError: a column names persons.
    """
    person = first_column(found, _PERSONS)
    if person is not None:
        told = f"must be statistics of places, but has a row for each person ({person})"
        raise SourceError("person_rows", f"{told}; set count_by: to count them, or read it with the modality trial")


def sizes(cells: Mapping[str, Any]) -> list[str]:
    """Returns the columns of a first row that say how large an area is, where others name it by the same word."""
    return [name for name, value in cells.items() if bare(name) == "area" and _SIZE.fullmatch(str(value).strip())]


def places(
    found: list[str], wanted: Mapping[str, str | int | None], *, sizes: Sequence[str] = ()
) -> dict[str, str | None]:
    """Returns {role: column} of entity, code, time, indicator and unit: those wanted, else the usual ones but `sizes`.

    Raises:
        SourceError: a column is not there, or nothing says which place a row is about.
    """
    usual = {"entity": ENTITIES, "code": CODES, "time": TIMES, "indicator": INDICATORS, "unit": UNITS}
    chosen: dict[str, str | None] = {}
    for role, names in usual.items():
        given = wanted.get(role)
        rest = [name for name in found if name not in (*chosen.values(), *sizes)]
        chosen[role] = find_column(given, found) if given is not None else first_column(rest, names)
    if chosen["entity"] is None and chosen["code"] is not None:
        chosen["entity"], chosen["code"] = chosen["code"], None
    if chosen["entity"] is None:
        told = f"must have a column {', '.join(ENTITIES[:3])} or so, but has {', '.join(found)[:300]}"
        raise SourceError("wrong_columns", f"{told}; set entity:, or count_by: for a table with a row for each case")
    return chosen


def year_columns(found: Sequence[str]) -> dict[str, str]:
    """Returns {column: year or date} of a wide table, such as 1960, 1960 [YR1960] or 1/22/20; nothing below two."""
    years = {name: match[1] or match[2] for name in found if (match := _YEAR_COLUMN.fullmatch(name.strip()))}
    return years if len(years) > 1 else {}


def dimensions(found: Sequence[str], wanted: Sequence[str | int] | None) -> tuple[str, ...]:
    """Returns the columns that part a measure, such as sex and age: those wanted, else the usual ones.

    Raises:
        SourceError: a column is not there.
    """
    if wanted is not None:
        return tuple(find_column(name, list(found)) for name in wanted)
    return tuple(name for name in found if bare(name) in BY)


def cells(row: Mapping[str, Any], layout: Layout, *, bounds: Bounds) -> Iterator[tuple[str, str, str]]:
    """Yields (measure, time, value) of every value of a row; missing ones are left out.

    Raises:
        UnusableError: its time is none, or a value is no number or out of bounds.
    """
    if layout.years:
        measure = _measure(row, layout, "")
        pairs = [(measure, year, row.get(column)) for column, year in layout.years.items()]
    else:
        time = _time(row.get(layout.time or ""))
        pairs = [(_measure(row, layout, name), time, row.get(column)) for name, column in layout.values.items()]
    for measure, time, value in pairs:
        if not is_blank(value) and str(value).strip() != "*":
            yield measure, time, _value(measure, value, bounds)


def place(row: Mapping[str, Any], layout: Layout) -> tuple[str, str]:
    """Returns the place a row is about, and its code or nothing.

    Raises:
        UnusableError: it names none.
    """
    entity = row.get(layout.entity)
    if is_missing(entity):
        raise UnusableError("no_place", f"must name a place ({layout.entity}), but does not")
    code = row.get(layout.code) if layout.code is not None else None
    return _clean(str(entity)), "" if is_missing(code) else _clean(str(code))


def _measure(row: Mapping[str, Any], layout: Layout, name: str) -> str:
    """Writes a measure with what it is parted by: `Life expectancy (years), female`."""
    indicator = row.get(layout.indicator) if layout.indicator is not None else None
    title = name if is_missing(indicator) else _clean(str(indicator))
    unit = row.get(layout.unit) if layout.unit is not None else None
    title = title or "Value"
    title += "" if is_missing(unit) else f" ({_clean(str(unit))})"
    parts = [_clean(str(row[column])) for column in layout.by if not is_missing(row.get(column))]
    return ", ".join([title, *parts])


def _time(value: object) -> str:
    if is_missing(value):
        raise UnusableError("no_time", "must have a time, but has none")
    return _time_written(value.isoformat() if isinstance(value, date) else str(value))


@lru_cache(maxsize=1 << 14)
def _time_written(given: str) -> str:
    written = _clean(given)
    written = written.removesuffix("T00:00:00").removesuffix(" 00:00:00")
    written = re.sub(r"(-?\d{1,5})\.0+", r"\1", written) if re.fullmatch(r"-?\d{1,5}\.0+", written) else written
    if not _TIME.fullmatch(written):
        raise UnusableError("time", f"must be a year or a date, but is {written[:40]!r}")
    return written


def _value(measure: str, value: object, bounds: Bounds) -> str:
    text = str(value).strip()
    if _BOUND.fullmatch(text):
        return _clean(text)
    written = figure(measure[:80], value, digits=bounds.digits)
    if bounds.least is None and bounds.most is None:
        return written
    found = number(value)
    if found is not None and bounds.least is not None and found < bounds.least:
        raise UnusableError("out_of_range", f"{measure[:80]} must be at least {bounds.least:g}, but is {text[:40]}")
    if found is not None and bounds.most is not None and found > bounds.most:
        raise UnusableError("out_of_range", f"{measure[:80]} must be at most {bounds.most:g}, but is {text[:40]}")
    return written
