"""Records: split by group, without duplicates, with every reject written down, and the same whoever reads them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus import records
from corpus.gates.config import GatesConfig
from corpus.merging import FILES, Merged, merge, prepare, write_lists
from corpus.modality import Record, Reject
from corpus.records import SourceReport, read_records, read_sources, streams
from corpus.source import Source
from corpus.units import Settings, split_of
from corpus.workers import Crew
from slurm.files import sha256_file, sha256_files
from tests.corpus.deeds import Crashing

ROOT = Path(__file__).parents[2]


def _source(path: Path, **settings: Any) -> Source:
    given_settings = {"name": "a", "modality": "text", "path": str(path), "license": "MIT", **settings}
    return Source.model_validate(given_settings)


def _settings(folder: Path, **gates: Any) -> Settings:
    return Settings(root=folder, seed=1, valid_fraction=0.5, gates=GatesConfig.model_validate(gates))


def _read(folder: Path, *sources: Source, **gates: Any) -> list[SourceReport]:
    settings = _settings(folder, **gates)
    reports = read_sources(sources, folder, settings=settings, crew=Crew(isolate=False))
    write_lists(reports, folder)
    if all(report.problem(most=1) is None for report in reports):
        merge(reports, folder, settings=settings)
    return reports


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _all(folder: Path, stream: str) -> list[dict[str, Any]]:
    return [record for split in ("train", "valid") for record in read_records(folder, stream, split)]


def _samples() -> list[str]:
    return [text for row in _lines(ROOT / "corpus/samples/science.jsonl") for text in row.values() if text.isascii()]


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
    (report,) = _read(tmp_path / "out", _source(pairs, date="2021-03"))
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
    assert first["digest"].startswith(first["id"])
    wanted = {"modality": "text", "scale": "L1", "stream": "text.ko", "language": "ko", "source": "a", "ids": []}
    assert {**first, **wanted, "license": "MIT", "date": "2021-03"} == first
    (reject,) = _lines(tmp_path / "out" / "rejects.jsonl")
    assert reject == {
        "source": "a",
        "where": f"{pairs}, line 42, ko",
        "code": "language",
        "reason": "Korean text must hold Hangul, but holds none",
        "excerpt": "'no'",
    }


def test_a_record_leads_back_to_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("smiles\nCCO\nc1ccccc1\n")
    _read(tmp_path / "out", _source(path, modality="molecule"))
    for record in _all(tmp_path / "out", "molecule"):
        place, line = record["location"], 2 if record["content"]["smiles"] == "CCO" else 3
        assert (place["file"], place["record"]) == (str(path), f"line {line}")
        assert path.read_bytes()[slice(*place["offsets"])].decode().strip() == record["content"]["smiles"]


def test_duplicates_are_listed_with_what_is_kept_instead(tmp_path: Path) -> None:
    words = next(text for text in _samples() if len(text.split()) > 60)
    for name, rows in {
        "a": ["alone in here", words],
        "b": ["alone in here", f"{words} More is known.", "another one"],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    first, second = _read(tmp_path / "out", *(_source(tmp_path / f"{name}.jsonl", name=name) for name in ("a", "b")))
    assert (first.records, second.records, second.duplicates, second.near_duplicates) == (2, 1, 1, 1)
    kept = {record["content"]["text"]: record["id"] for record in _all(tmp_path / "out", "text.en")}
    exact, near = sorted(_lines(tmp_path / "out" / "duplicates.jsonl"), key=lambda found: not found["exact"])
    assert (exact["kept"], exact["source"], exact["location"]["record"]) == (kept["alone in here"], "b", "line 1")
    assert (near["kept"], near["exact"]) == (kept[words], False)
    assert 0.8 < near["similarity"] < 1


def test_personal_data_stands_in_quarantine_and_nowhere_else(tmp_path: Path) -> None:
    number, path, out = "900101-1234568", tmp_path / "a.jsonl", tmp_path / "out"
    texts = (f"The number of the patient is {number}.", f"{number} \x07 damaged", "A fever.")
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (report,) = _read(out, _source(path))
    assert (report.records, dict(report.kept_out), report.rejects.total()) == (1, {"quarantined": 1}, 1)
    files = [found for found in out.rglob("*") if found.is_file()]
    holding = {str(found.relative_to(out)) for found in files if number.encode() in found.read_bytes()}
    assert holding == {"quarantine.jsonl", "parts/a/000000/quarantine.jsonl"}
    assert all((out / name).stat().st_mode & 0o077 == 0 for name in [*holding, "parts"])
    (found,) = _lines(out / "quarantine.jsonl")
    assert found["record"]["content"]["text"].endswith(f"{number}.")
    assert "may hold personal data" in (out / "rejects.jsonl").read_text()


def test_a_text_of_no_worth_is_filtered_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("x", "A fever is a symptom.")))
    (report,) = _read(tmp_path / "out", _source(path))
    assert (report.records, dict(report.kept_out)) == (1, {"filtered": 1})
    (found,) = _lines(tmp_path / "out" / "filtered.jsonl")
    assert (found["gate"], found["code"], found["location"]["record"]) == ("quality", "too_short", "line 1")
    assert "content" not in found


def test_a_benchmark_question_is_set_aside(tmp_path: Path) -> None:
    question = "Which of the following drugs is the first choice for a patient with a fever of unknown origin?"
    (tmp_path / "bench.csv").write_text(f"question\n{question}\n")
    path, texts = tmp_path / "a.jsonl", (f"He asked: {question} Nobody knew.", "A fever.")
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    benchmark = {"name": "exam", "path": str(tmp_path / "bench.csv"), "columns": ["question"]}
    (report,) = _read(tmp_path / "out", _source(path), contamination={"benchmarks": [benchmark]})
    assert (report.records, dict(report.kept_out)) == (1, {"contaminated": 1})
    assert _lines(tmp_path / "out" / "contaminated.jsonl")[0]["gate"] == "contamination"


def test_max_records_stops_early_and_says_so(tmp_path: Path, pairs: Path) -> None:
    (report,) = _read(tmp_path / "out", _source(pairs, max_records=10))
    assert (report.records, report.notes) == (10, ["stopped after max_records = 10"])


def test_a_file_with_another_digest_is_not_read(tmp_path: Path, pairs: Path) -> None:
    wrong, good = _source(pairs, name="wrong", sha256="0" * 64), _source(pairs, sha256=sha256_file(pairs))
    report, other = _read(tmp_path / "out", wrong, good)
    assert report.problem(most=1) == (
        f"must have the SHA-256 {'0' * 64}, but has {sha256_file(pairs)}; fetch it again or mend sha256:"
    )
    assert other.problem(most=0.1) is None


def test_a_source_without_records_or_with_many_rejects_is_a_problem(tmp_path: Path) -> None:
    header, half = tmp_path / "header.csv", tmp_path / "half.csv"
    header.write_text("text\n")
    half.write_text("text\ngood words\nbad \x07\nbad \x08\n")
    first, second = _read(tmp_path / "out", _source(header), _source(half, name="b"))
    assert first.problem(most=1) == (
        "must hold a usable record, but has none (no items); see rejects.jsonl, mend the file or its options"
    )
    assert second.problem(most=0.5) == (
        "at most 50% may be rejected, but 66.7% are (2 control_character); "
        "see rejects.jsonl, mend the file or raise max_reject_fraction"
    )
    assert second.problem(most=0.7) is None


def test_one_bad_file_of_many_is_told_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.csv").write_text(f"text\nfile {number}\n")
    (tmp_path / "5.csv").write_bytes(b'text\nkept out\n"never closed\n')
    (report,) = _read(tmp_path / "out", _source(tmp_path / "*.csv"))
    assert (report.records, dict(report.rejects), len(report.files)) == (8, {"damaged": 1}, 9)
    assert report.problem(most=0.2) is None
    told = report.problem(most=0.05)
    assert told
    assert told.startswith(f"at most 5% of the files may be unusable, but 1 of 9 are, the first {tmp_path}/5.csv: line")
    assert "kept out" not in (tmp_path / "out/records/text.en.train.jsonl").read_text()
    with pytest.raises(ValueError, match="a: must have the SHA-256 0"):
        prepare([_source(tmp_path / "*.csv", sha256="0" * 64)], tmp_path / "x", settings=_settings(tmp_path))


def test_members_of_an_archive_are_read(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("x/one.csv", "x/two.csv", "readme.md", "__MACOSX/x/._one.csv"):
            file.writestr(name, f"text\n{name}\n")
    source = _source(tmp_path / "a.zip", member="x/*.csv")
    (report,) = _read(tmp_path / "out", source)
    records = sorted(_all(tmp_path / "out", "text.en"), key=lambda record: record["content"]["text"])
    assert [record["location"]["file"] for record in records] == [f"{tmp_path}/a.zip!x/{n}.csv" for n in ("one", "two")]
    assert report.sha256 == sha256_file(tmp_path / "a.zip")
    (nothing,) = _read(tmp_path / "none", _source(tmp_path / "a.zip", member="y/*.csv"))
    assert nothing.problem(most=1) == ("must hold a member 'y/*.csv' that text reads, but holds none; mend member:")


def _many(folder: Path, *, words: int = 3) -> list[Source]:
    for number in range(4):
        rows = [f"text {number % 3} {row} {'of the file ' * words}" for row in range(60)]
        (folder / f"{number}.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in [*rows, "bad \x07"]))
    return [_source(folder / f"{number}.jsonl", name=f"s{number}") for number in range(4)]


def _kept(folder: Path) -> dict[str, str]:
    found = sha256_files(folder)
    return {name: found[name] for name in found if name in FILES or name.startswith("records/")}


def test_any_crew_writes_the_same_bytes_and_resumes_what_another_left(tmp_path: Path) -> None:
    sources, settings = _many(tmp_path), _settings(tmp_path)
    merged: list[Merged] = []
    for workers in (0, 1, 2, 4):
        crew = Crew(workers=workers) if workers else Crew(isolate=False)
        merged.append(prepare(sources, tmp_path / f"out{workers}", settings=settings, crew=crew))
    kept = [_kept(tmp_path / f"out{workers}") for workers in (0, 1, 2, 4)]
    assert kept[0] == kept[1] == kept[2] == kept[3]
    assert all(each == merged[0] for each in merged)
    assert merged[0].counts.total() == 180
    assert {len(found) for found in merged[0].samples.values()} == {3}


def test_samples_hold_no_patient(tmp_path: Path) -> None:
    path = tmp_path / "p.ndjson"
    rows = [{"resourceType": "Patient", "id": f"p{number}", "gender": "female"} for number in range(20)]
    seen = [
        {
            "resourceType": "Condition",
            "id": f"c{number}",
            "subject": {"reference": f"Patient/p{number}"},
            "code": {"text": f"fever {number}"},
        }
        for number in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *seen]))
    merged = prepare(
        [_source(path, modality="patient")], tmp_path / "out", settings=_settings(tmp_path), crew=Crew(isolate=False)
    )
    assert merged.counts.total() == 20
    assert merged.samples == {}


def test_a_source_that_kills_its_reader_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "Reading", Crashing)
    sources, out = _many(tmp_path)[:2], tmp_path / "out"
    sources[0] = _source(tmp_path / "0.jsonl", name="crash")
    reports = read_sources(sources, out, settings=_settings(tmp_path), crew=Crew(workers=2))
    write_lists(reports, out)
    assert reports[0].problem(most=1) == (
        f"must be readable, but its worker died of SIGSEGV at {tmp_path}/0.jsonl; fetch it again, or raise mem_gb"
    )
    assert (reports[1].problem(most=0.1), reports[1].usable) == (None, 60)
    first, *_ = _lines(out / "rejects.jsonl")
    assert (first["source"], first["code"]) == ("crash", "reader_died")


def test_an_error_that_no_reader_may_raise_condemns_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Any:
        raise KeyError("oops")

    monkeypatch.setattr("corpus.modalities.text.read", broken)
    report, *_ = _read(tmp_path / "out", *_many(tmp_path)[:1])
    told = "must be readable, but its reader failed with KeyError: 'oops'; look into the log and report it"
    assert report.problem(most=1) == told
    assert "in broken" in capfd.readouterr().err


def test_what_is_no_json_or_too_large_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_: object) -> Any:
        for value in (float("nan"), "\ud800", "x" * 200, "good words"):
            yield Record(content={"text": value}, group="g", language="en", where=f"item {value!r:.9}")

    monkeypatch.setattr("corpus.modalities.text.read", odd)
    monkeypatch.setattr("corpus.reading.LARGEST", 100)
    (report,) = _read(tmp_path / "out", *_many(tmp_path)[:1])
    assert (report.records, dict(report.rejects)) == (1, {"not_json": 2, "too_large": 1})
    reasons = [found["reason"] for found in _lines(tmp_path / "out" / "rejects.jsonl")]
    assert reasons[0].startswith("must hold JSON values in whole characters, but ")
    assert reasons[2] == "must have at most 100 characters, but has 200"


def test_a_reject_tells_no_personal_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = "900101-1234568"

    def read(*_: object) -> Any:
        yield Record(content={"text": "good words"}, group="g", language="en", where="item 1")
        yield Reject(where=f"patient {number}", code="odd", reason=f"must be odd, but is {number}", excerpt=number)

    monkeypatch.setattr("corpus.modalities.text.read", read)
    _read(tmp_path / "out", *_many(tmp_path)[:1])
    assert number not in (tmp_path / "out" / "rejects.jsonl").read_text()


def test_what_tokenize_could_not_read_back_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(rendered: str) -> dict[str, str]:
        return {"text": "other words"} if "lost" in rendered else {"text": rendered[8:-9]}

    def read(*_: object) -> Any:
        for value in ("good words", "lost words"):
            yield Record(content={"text": value}, group="g", language="en", where=value)

    monkeypatch.setattr("corpus.modalities.text.read", read)
    monkeypatch.setattr("corpus.modalities.text.parse", failing)
    (report,) = _read(tmp_path / "out", *_many(tmp_path)[:1])
    assert (report.records, dict(report.rejects)) == (1, {"not_reversible": 1})
    (told,) = _lines(tmp_path / "out" / "rejects.jsonl")
    assert told["reason"] == "must come back from what it is written as, but does not; report it"


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    sources, out, settings = _many(tmp_path), tmp_path / "out", _settings(tmp_path)
    prepare(sources, out, settings=settings)
    before, kept = {part: part.stat().st_ino for part in out.glob("parts/*/*")}, _kept(out)
    (tmp_path / "0.jsonl").touch()  # its time, not its bytes
    (tmp_path / "1.jsonl").write_text(json.dumps({"text": "all new in here"}))
    rejects = out / "parts/s2/000000/rejects.jsonl"
    rejects.write_text(rejects.read_text() + "{}\n")  # damaged
    prepare(sources[:3], out, settings=settings)
    after = {part: part.stat().st_ino for part in out.glob("parts/*/*")}
    changed = {part.parent.name for part in before if before[part] != after.get(part)}
    assert changed == {"s1", "s2", "s3"}
    assert not (out / "parts/s3").exists() or not list((out / "parts/s3").iterdir())
    prepare(_many(tmp_path), out, settings=settings)
    assert _kept(out) == kept
    prepare(sources, out, settings=Settings(root=tmp_path, seed=2, valid_fraction=0.5))
    assert _kept(out) != kept


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    sources, settings = _many(tmp_path, words=300), _settings(tmp_path)
    prepare(sources, tmp_path / "whole", settings=settings)
    (tmp_path / "sources.json").write_text(json.dumps([source.model_dump() for source in sources]))
    code = f"""
import json
from pathlib import Path
from corpus.merging import prepare
from corpus.source import Source
from corpus.units import Settings
from corpus.workers import Crew
folder = Path({str(tmp_path)!r})
sources = [Source.model_validate(source) for source in json.loads((folder / "sources.json").read_text())]
settings = Settings(root=folder, seed=1, valid_fraction=0.5)
prepare(sources, folder / "killed", settings=settings, crew=Crew(workers=2))
"""
    killed = tmp_path / "killed"
    for pattern in ("parts/*/.0*", "parts/*/0*"):  # while the first parts are written, and when one is done
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        while process.poll() is None and not list(killed.glob(pattern)):
            time.sleep(0.002)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert psutil.wait_procs(children, timeout=10)[1] == []
    done = {part: part.stat().st_ino for part in killed.glob("parts/*/0*")}
    assert 0 < len(done) < 4
    prepare(sources, killed, settings=settings, crew=Crew(workers=2))
    assert _kept(killed) == _kept(tmp_path / "whole")
    assert {part: part.stat().st_ino for part in done} == done
    assert not list(killed.glob("parts/*/.*"))
