"""Populations: tidy, long and wide tables, facts of places, counts; what is refused, and that no person is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]


def test_a_tidy_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Entity,Code,Year,Life expectancy (years),Deaths,Continent\n"
        'South Korea,KOR,1990,71.512345678,,Asia\nNamibia,NAM,1990,,7,Africa\nSouth Korea,KOR,1991,72,"1,234",Asia\n'
    )
    found = read("population", path, facts={"continent": "continent"}, about={"source": "OWID"})
    assert [(record.content, record.group) for record in found.records] == [
        (
            {
                "facts": {"place": "South Korea", "code": "KOR", "continent": "Asia", "source": "OWID"},
                "sections": [["Life expectancy (years)", "1990: 71.5123\n1991: 72"], ["Deaths", "1991: 1234"]],
            },
            "place South Korea",
        ),
        (
            {
                "facts": {"place": "Namibia", "code": "NAM", "continent": "Africa", "source": "OWID"},
                "sections": [["Deaths", "1990: 7"]],
            },
            "place Namibia",
        ),
    ]
    assert found.records[0].where == "line 2 and further ones of South Korea"
    assert found.notes[-1].text == "3 rows of 2 places"


def test_what_is_refused_in_a_tidy_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    rows = ["a,2000,1", "a,2000,2", "a,soon,1", "a,,1", ",2001,1", "a,2001,inf", "a,2002,-1", "a,2003,101", "b,2000,.."]
    path.write_text("\n".join(["country,year,share", *rows]))
    found = read("population", path, values=["share"], minimum=0, maximum=100)
    assert [(item.where.partition(" and")[0], item.code) for item in found.rejects] == [
        ("line 4", "time"),
        ("line 5", "no_time"),
        ("line 6", "no_place"),
        ("line 7", "not_finite"),
        ("line 8", "out_of_range"),
        ("line 9", "out_of_range"),
        ("line 3", "duplicate"),
        ("line 10", "no_values"),
    ]
    reasons = [item.reason for item in found.rejects]
    assert reasons[0] == "must be a year or a date, but is 'soon'"
    assert reasons[4:7] == [
        "share must be at least 0, but is -1",
        "share must be at most 100, but is 101",
        "must have one value of share for a and 2000, but has another before",
    ]


@pytest.mark.parametrize(
    "time",
    [
        *(
            "1990",
            "-10000",
            "2020-01-31",
            "2020-01",
            "2020Q1",
            "2020-W05",
            "2020M01",
            "2015-2019",
            "20200131",
            "1/22/20",
        ),
        *("31.01.2020", "2020년", "2020년 1월", "2020-01-31T00:00:00Z", "2019/20", "2020.0"),
    ],
)
def test_times_of_all_kinds(tmp_path: Path, read: Read, time: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"place\tperiod\tn\nx\t{time}\t1\n")
    (record,) = read("population", path).records
    assert record.content["sections"] == [["n", f"{time.removesuffix('.0')}: 1"]]


def test_a_long_table_with_measures_and_groups(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Indicator,Location,SpatialDim,Period,Dim1,FactValueNumeric,FactValueNumericLow,Unit\n"
        "Life expectancy,Korea,KOR,2019,Female,86.1,85,years\nLife expectancy,Korea,KOR,2019,Male,79.7,79,years\n"
        "Deaths,Korea,KOR,2019,,<5,,\n"
    )
    found = read("population", path)
    assert found.records[0].content["sections"] == [
        ["Life expectancy (years), Female", "2019: 86.1"],
        ["Life expectancy (years), Male", "2019: 79.7"],
        ["Deaths", "2019: <5"],
    ]
    assert found.notes[0].text == "columns that are not read: FactValueNumericLow"


def test_a_wide_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        '"Data Source","World Bank"\n\n'
        '"Country Name","Country Code","Indicator Name","Indicator Code","1990","1991 [YR1991]"\n'
        '"Korea","KOR","Births","SP","5","4.5"\n"Korea","KOR","Deaths","SD","",".."\n"World","WLD","Births","SP","","3"\n'
    )
    found = read("population", path, skip_lines=2)
    assert [(record.content["facts"], record.content["sections"]) for record in found.records] == [
        ({"place": "Korea", "code": "KOR"}, [["Births", "1990: 5\n1991: 4.5"]]),
        ({"place": "World", "code": "WLD"}, [["Births", "1991: 3"]]),
    ]


def test_a_wide_table_of_dates_and_parts(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Province/State,Country/Region,Lat,1/22/20,1/23/20\nHubei,China,30.9,444,500\n,Korea,36,1,2\n")
    found = read("population", path)
    assert [(record.content["facts"]["place"], record.content["sections"]) for record in found.records] == [
        ("China", [["Value, Hubei", "1/22/20: 444\n1/23/20: 500"]]),
        ("Korea", [["Value", "1/22/20: 1\n1/23/20: 2"]]),
    ]


def test_a_table_of_sdmx_has_one_column_of_values(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("unit,sex,geo,TIME_PERIOD,OBS_VALUE,DECIMALS\nYR,F,KR,2019,86.3,1\n")
    (record,) = read("population", path).records
    assert record.content == {"facts": {"place": "KR"}, "sections": [["OBS_VALUE (YR), F", "2019: 86.3"]]}


def test_a_korean_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('행정구역별,성별,시점,인구\n서울,남,2020,100\n서울,여,2020,"1,100"\n'.encode("cp949"))
    (record,) = read("population", path).records
    assert record.content == {
        "facts": {"place": "서울"},
        "sections": [["인구, 남", "2020: 100"], ["인구, 여", "2020: 1100"]],
    }


def test_facts_of_places(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("rownames\tname\tpopulation\tICU_beds\tnote\n1\tKorea\t5\t\tx\n2\tKorea\t6\t1\ty\n3\tNA\t2\t1\tz\n")
    found = read("population", path)
    assert [record.content["facts"] for record in found.records] == [
        {"place": "Korea", "population": "5", "note": "x"},
    ]
    assert [(item.where, item.code) for item in found.rejects] == [("line 3", "duplicate"), ("line 4", "no_place")]
    found = read("population", path, facts={"beds": "icubeds"}, group="note")
    assert (found.records[0].content["facts"], found.records[0].group) == ({"place": "Korea"}, "x")


def test_an_area_with_a_size_is_no_place(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("area,state,population\n50708,Alabama,3615\n")
    (record,) = read("population", path).records
    assert record.content["facts"] == {"place": "Alabama", "area": "50708", "population": "3615"}
    path.write_text("Population,Area\n3615,50708\n")
    with pytest.raises(SourceError, match="must have a column entity, country, countryname or so"):
        read("population", path)
    path.write_text("area,population\nAlabama,3615\n")
    assert read("population", path).records[0].content["facts"]["place"] == "Alabama"


def test_a_table_of_persons_is_only_counted(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    rows = ["1,Ann,icu,pos"] * 12 + ["2,Bob,icu,neg"] * 11 + ["3,Eve,icu,"] * 10 + ["4,Kim,ward,neg"] * 3
    path.write_text("\n".join(["subject_id,first_name,clinic,result", *rows]))
    with pytest.raises(SourceError, match=r"but has a row for each person \(subject_id\); set count_by: to count them"):
        read("population", path, entity="clinic")
    found = read("population", path, count_by=["clinic", "result"], about={"what": "tests"})
    assert [record.content for record in found.records] == [
        {
            "facts": {"kind": "counts", "what": "tests", "clinic": "icu"},
            "sections": [["Number by result", "neg: 11\npos: 12"]],
        }
    ]
    assert found.notes[0].text == "2 groups of fewer than 11 rows are left out"
    found = read("population", path, count_by=["result"], minimum_count=1)
    assert found.records[0].content["sections"] == [["Number by result", "neg: 14\nnot stated: 10\npos: 12"]]
    with pytest.raises(SourceError, match="must have a column 'ward', but has"):
        read("population", path, count_by=["ward"])


def test_what_is_no_statistics_table(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"must have a column entity, country, .*; set entity:, or count_by:"):
        read("population", path)
    path.write_text("country,year,word\nx,2000,high\n")
    with pytest.raises(SourceError, match="must have a column with numbers, but has country, year, word; set values:"):
        read("population", path)
    path.write_text("country,year,a b,a  b\nx,2000,1,2\n")
    with pytest.raises(SourceError, match="must name each column once, but two differ only in blanks; rename one"):
        read("population", path)
    path.write_text("country,year,<|eod|>\nx,2000,1\n")
    with pytest.raises(SourceError, match=r"must have columns whose names can be written, but '<\|eod\|>'"):
        read("population", path)
    monkeypatch.setattr("corpus.formats.counts._MOST_GROUPS", 1)
    path.write_text("a\n1\n2\n")
    with pytest.raises(SourceError, match="count_by: must give at most 1 groups; leave a column out"):
        read("population", path, count_by=["a"])


def test_an_empty_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("country,year,n\n")
    assert read("population", path).records == []


@pytest.mark.parametrize(
    ("name", "options", "records"),
    [
        ("owid_Life_expectancy_OECD.csv", {}, 44),
        ("covid19_scenarios_populationData.tsv", {}, 451),
        ("medicaldata_covid_testing.csv", {"count_by": ["demo_group", "result"]}, 4),
    ],
)
def test_the_shared_tables(
    name: str, options: dict[str, Any], records: int, read: Read, real: Callable[[str], Path]
) -> None:
    found = read("population", real(f"../shared/data/population/{name}"), **options)
    assert (len(found.records), found.rejects) == (records, [])


def test_what_and_per_what_part_a_measure(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "oecd.csv"
    path.write_text(
        "LOCATION,INDICATOR,SUBJECT,MEASURE,FREQUENCY,TIME,Value,Flag Codes\n"
        "AUS,HOSPITALBED,TOT,1000HAB,A,2000,9.65,\n"
        "AUS,HOSPITALBED,ACUTE,1000HAB,A,2000,3.13,\n"
    )
    found = read("population", path)
    assert not found.rejects
    titles = [title for title, _ in found.records[0].content["sections"]]
    assert titles == ["HOSPITALBED, TOT, 1000HAB", "HOSPITALBED, ACUTE, 1000HAB"]
