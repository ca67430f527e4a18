"""Records: split by group, without duplicates, with every reject written down."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.records import SourceReport, Writer, read_records, read_source, split_of, streams
from corpus.source import Source
from slurm.files import sha256_file, sha256_files


def _source(path: Path, **settings: Any) -> Source:
    given_settings = {"name": "a", "modality": "text", "path": str(path), "license": "MIT", **settings}
    return Source.model_validate(given_settings)


def _read(folder: Path, *sources: Source) -> list[SourceReport]:
    with Writer(folder, seed=1, valid_fraction=0.5) as writer:
        return [read_source(source, writer, root=folder, progress=lambda _: None) for source in sources]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"en": f"disease {number}", "ko": f"질병 {number}"} for number in range(40)]
    rows += [rows[0], {"en": "no Korean", "ko": "no"}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@given(st.text(), st.integers(min_value=0, max_value=9))
def test_a_split_depends_on_group_and_seed_only(group: str, seed: int) -> None:
    if group.isprintable():
        assert split_of(group, seed=seed, valid_fraction=0.3) == split_of(group, seed=seed, valid_fraction=0.3)
        assert split_of(group, seed=seed, valid_fraction=1.0) == "valid"


def test_the_share_held_out_is_about_what_was_asked() -> None:
    drawn = [split_of(str(number), seed=7, valid_fraction=0.1) for number in range(10_000)]
    assert 900 < drawn.count("valid") < 1100


def test_records_are_split_counted_and_kept_together(tmp_path: Path, pairs: Path) -> None:
    (report,) = _read(tmp_path / "out", _source(pairs))
    assert (report.records, report.duplicates, dict(report.rejects)) == (81, 2, {"language": 1})
    assert streams(tmp_path / "out") == ["text.en", "text.ko"]
    groups = {
        (stream, split): {record["group"] for record in read_records(tmp_path / "out", stream, split)}
        for stream in ("text.en", "text.ko")
        for split in ("train", "valid")
    }
    assert groups["text.ko", "train"] <= groups["text.en", "train"]
    assert not groups["text.en", "train"] & groups["text.en", "valid"]
    first = next(read_records(tmp_path / "out", "text.ko", "train"))
    assert first.keys() == {"id", "modality", "stream", "source", "license", "group", "language", "content", "pair"}
    assert (first["modality"], first["stream"], first["language"]) == ("text", "text.ko", "ko")
    (reject,) = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert reject == {
        "source": "a",
        "where": f"{pairs}, line 42, ko",
        "code": "language",
        "reason": "Korean text must hold Hangul, but holds none",
        "excerpt": "'no'",
    }


def test_reading_again_writes_the_same_bytes(tmp_path: Path, pairs: Path) -> None:
    _read(tmp_path / "first", _source(pairs))
    _read(tmp_path / "second", _source(pairs))
    assert sha256_files(tmp_path / "first") == sha256_files(tmp_path / "second")


def test_max_records_stops_early_and_says_so(tmp_path: Path, pairs: Path) -> None:
    (report,) = _read(tmp_path / "out", _source(pairs, max_records=10))
    assert (report.records, report.notes) == (10, ["stopped after max_records = 10"])


def test_a_file_with_another_digest_is_not_read(tmp_path: Path, pairs: Path) -> None:
    report, good = _read(tmp_path / "out", _source(pairs, sha256="0" * 64), _source(pairs, sha256=sha256_file(pairs)))
    assert report.problem(most=1) == (
        f"must have the SHA-256 {'0' * 64}, but has {sha256_file(pairs)}; fetch it again or mend sha256:"
    )
    assert good.problem(most=0.1) is None


def test_a_source_without_records_or_with_many_rejects_is_a_problem(tmp_path: Path) -> None:
    header, half = tmp_path / "header.csv", tmp_path / "half.csv"
    header.write_text("text\n")
    half.write_text("text\ngood\nbad \x07\nbad \x08\n")
    first, second = _read(tmp_path / "out", _source(header), _source(half))
    assert first.problem(most=1) == (
        "must hold a usable record, but has none (no items); see rejects.jsonl, mend the file or its options"
    )
    assert second.problem(most=0.5) == (
        "at most 50% may be rejected, but 66.7% are (2 control_character); "
        "see rejects.jsonl, mend the file or raise max_reject_fraction"
    )
    assert second.problem(most=0.7) is None
