"""Sources: every mistake is found before anything is read, in one line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.source import Source

GOOD: dict[str, Any] = {"name": "a", "modality": "molecule", "path": "a.csv", "license": "MIT"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"modality": "molecules"},
            r"modality: must be one of drug, .*, trial, but is 'molecules'; change it",
        ),
        ({"path": "a.xlsx"}, r"path: must end in \.csv, .*, but is 'a.xlsx'; convert it"),
        ({"modality": "omics"}, r"path: must end in \.h5ad, .*, but is 'a.csv'; convert it"),
        ({"date": "March 2021"}, "String should match pattern"),
        ({"terms": {"commercial": True}}, "Field required"),
        ({"member": "*.csv"}, r"path: must end in \.zip, .* for member:, but is 'a.csv'; change one"),
        ({"path": "a.zip", "member": "*.xlsx"}, r"member: must end in \.csv, .*, but is '\*.xlsx'; convert it"),
        ({"name": "Name with blanks"}, "String should match pattern"),
        ({"max_records": 0}, "greater than or equal to 1"),
        ({"sha256": "abc"}, "String should match pattern"),
        ({"optoins": {}}, "Extra inputs are not permitted"),
        ({"options": {"colum": "x"}}, r"options\.colum: no such option; did you mean column\?"),
        (
            {"options": {"encoding": "utf-9"}},
            r"options\.encoding: must be an encoding that Python knows",
        ),
        ({"options": {"delimiter": "::"}}, r"options\.delimiter: must string should have at most 1 character"),
        ({"options": {"zzz": "x"}}, r"options\.zzz: no such option; choose one of column, delimiter, "),
        (
            {"options": {"header": "perhaps"}},
            r"options\.header: must be a .*, but is 'perhaps'; change it",
        ),
        ({"options": {"properties": {"a:b": "c"}}}, r"options\.properties.*: must .*match pattern"),
        ({"modality": "trial", "options": {"fields": {"a": "b"}}}, r"must have study, fields and outcome .* add it"),
        (
            {"modality": "protein", "options": {"header_pattern": "("}},
            r"options\.header_pattern: must be a regular expression, but missing \), .*; mend '\('$",
        ),
    ],
)
def test_every_mistake_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as caught:
        Source.model_validate({**GOOD, **change})
    (error,) = caught.value.errors()
    assert "\n" not in error["msg"]
    with pytest.raises(ValidationError, match=message.rstrip("$")):
        Source.model_validate({**GOOD, **change})


def test_paths_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source.model_validate({**GOOD, "path": "${MEDSCALE_DATA}/a.csv"})
    monkeypatch.delenv("MEDSCALE_DATA", raising=False)
    assert list(source.problems(tmp_path)) == [
        "path: must name set variables, but ${MEDSCALE_DATA} is not set; export it or write the path"
    ]
    monkeypatch.setenv("MEDSCALE_DATA", "data")
    expected = f"path: must be a file, but {tmp_path}/data/a.csv is not there; fetch it or mend the path"
    assert list(source.problems(tmp_path)) == [expected]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").touch()
    assert list(source.problems(tmp_path)) == []


def test_patterns_folders_and_stores_are_found(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.pdf", "below/d.csv", ".hidden.csv", "store.zarr/0/x.h5ad", "mtx/matrix.mtx"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()

    def labels(path: str, modality: str = "molecule") -> list[str]:
        source = Source.model_validate({**GOOD, "modality": modality, "path": path})
        assert list(source.problems(tmp_path)) == []
        return [source.label(found, tmp_path) for found in source.files(tmp_path)]

    assert labels("data/*.csv") == ["data/a.csv", "data/b.csv"]
    assert labels("data/**/*") == ["data/a.csv", "data/b.csv", "data/below/d.csv"]
    assert labels("data/") == ["data/a.csv", "data/b.csv", "data/below/d.csv"]
    assert labels("data/a.csv") == ["data/a.csv"]
    assert labels("data/", "omics") == ["data/mtx", "data/store.zarr"]
    assert labels("data/mtx/*.mtx", "omics") == ["data/mtx/matrix.mtx"]
    assert labels("data/store.zarr", "omics") == ["data/store.zarr"]
    for path in ("data/x*.csv", "data/mtx"):
        (problem,) = Source.model_validate({**GOOD, "path": path}).problems(tmp_path)
        assert problem.startswith("path: must hold or match a file that molecule reads (.csv, .tsv,")
        assert problem.endswith(f"but {tmp_path}/{path} does not; mend it")


@pytest.mark.parametrize(
    ("spdx", "commercial"),
    [
        ("MIT", True),
        ("CC-BY-SA-4.0", True),
        ("MIT AND BSD-3-Clause", True),
        ("CC-BY-NC-4.0", False),
        ("CC-BY-NC-SA-3.0-IGO", False),
        ("LicenseRef-DrugBank", False),
        ("LicenseRef-MIMIC-DUA", False),
        ("LicenseRef-Unknown", False),
        (None, False),
        ("PolyForm-Noncommercial-1.0.0", False),
    ],
)
def test_licences_that_forbid_commercial_use_are_flagged(spdx: str | None, commercial: bool) -> None:
    assert Source.model_validate({**GOOD, "license": spdx}).commercial is commercial
