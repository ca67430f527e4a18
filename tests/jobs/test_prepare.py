"""The prepare stage: from raw files to records, rejects and counts."""

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from corpus.merging import FILES
from jobs._journal import Journal, read_entries
from jobs._run import ROOT, load
from jobs._stage import Context, Outcome, Progress, Stage
from jobs.prepare import PrepareConfig, run
from slurm.files import read_json, sha256_file
from slurm.site import Site

LAPTOP = Site.model_validate(yaml.safe_load((ROOT / "slurm/sites/laptop.yaml").read_text()))
MOLECULES = "smiles,label\nOCC,1\nC(C)O,1\nc1ccccc1,0\nC[C@H](N)C(=O)O,1\nC[C@@H](N)C(=O)O,0\nbad(,1\nCl,\n"


def _stage(folder: Path) -> Stage:
    return Stage(
        name="prepare",
        run="test",
        site=LAPTOP,
        folder=folder,
        root=folder.parent,
        parents={},
        sections={},
        journal=Journal(folder / "journal.jsonl"),
        progress=Progress(path=folder / "progress.json"),
        seed=3,
    )


def _config(tmp_path: Path, **settings: Any) -> PrepareConfig:
    (tmp_path / "m.csv").write_text(MOLECULES)
    (tmp_path / "p.fasta").write_text(">a\nMKT\n>b\nMKV*\n")
    answers = {"column": "label", "values": {"0": "no", "1": "yes"}}
    sources = [
        {
            "name": "mols",
            "modality": "molecule",
            "path": str(tmp_path / "m.csv"),
            "license": "CC-BY-4.0",
            "options": {"properties": {"active": answers}},
        },
        {"name": "prots", "modality": "protein", "path": str(tmp_path / "p.fasta"), "license": "MIT"},
    ]
    return PrepareConfig.model_validate({"sources": sources, "valid_fraction": 0.5, **settings})


def _records(folder: Path, stream: str) -> list[dict[str, Any]]:
    files = [folder / "records" / f"{stream}.{split}.jsonl" for split in ("train", "valid")]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_sources_become_records_with_counts_and_digests(tmp_path: Path) -> None:
    config, folder = _config(tmp_path), tmp_path / "prepare"
    outcome = run(config, _stage(folder))
    assert {key: outcome.metrics[key] for key in ("records", "rejects", "duplicates")} == {
        "records": 7,
        "rejects": 1,
        "duplicates": 1,
    }
    assert outcome.inputs == {str(tmp_path / name): sha256_file(tmp_path / name) for name in ("m.csv", "p.fasta")}
    assert outcome.outputs == {name: sha256_file(folder / name) for name in outcome.outputs}
    assert set(outcome.outputs) == {
        *FILES,
        *(f"records/{stream}.{split}.jsonl" for stream in ("molecule", "protein") for split in ("train", "valid")),
    }
    first, second = outcome.details["sources"]
    assert (first["records"], first["duplicates"], first["rejects"], first["commercial"]) == (
        5,
        1,
        {"unparsable": 1},
        True,
    )
    assert (second["records"], second["commercial"], second["license"]) == (2, True, "MIT")
    splits = {record["content"]["smiles"]: record["group"] for record in _records(folder, "molecule")}
    assert splits["C[C@H](N)C(=O)O"] == splits["C[C@@H](N)C(=O)O"]
    kinds = [entry["kind"] for entry, _ in read_entries(folder / "journal.jsonl")]
    assert kinds == ["dataset", "dataset"]
    progress = read_json(folder / "progress.json")
    assert (progress["done"], progress["total"]) == (2, 2)


def test_running_twice_gives_the_same_digests(tmp_path: Path) -> None:
    config = _config(tmp_path)
    first, second = (run(config, _stage(tmp_path / name)) for name in ("a", "b"))
    again = run(config, _stage(tmp_path / "a"))
    assert first.outputs == second.outputs == again.outputs


def test_every_bad_source_is_named_and_rejects_stay_to_be_read(tmp_path: Path) -> None:
    config = _config(tmp_path, max_reject_fraction=0.1)
    (tmp_path / "p.fasta").write_bytes(b"")
    advice = "see rejects.jsonl, mend the file or raise max_reject_fraction"
    first = f"mols ({tmp_path}/m.csv): at most 10% may be rejected, but 14.3% are (1 unparsable); {advice}"
    second = f"prots ({tmp_path}/p.fasta): must hold data, but is empty; fetch it again"
    with pytest.raises(ValueError, match=re.escape(f"{first}\n{second}")):
        run(config, _stage(tmp_path / "prepare"))
    rejects = [json.loads(line) for line in (tmp_path / "prepare" / "rejects.jsonl").read_text().splitlines()]
    assert [(item["source"], item["code"]) for item in rejects] == [("mols", "unparsable"), ("prots", "empty_file")]


def test_planning_finds_what_is_not_there(tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "p.fasta").unlink()
    context = Context(sections={}, root=tmp_path)
    assert list(config.problems(context)) == [
        f"sources.1.path: must be a file, but {tmp_path}/p.fasta is not there; fetch it or mend the path"
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"license": None}, "license: must be given, but is not; find it out or leave the data out"),
        ({"license": "CC-BY-NC-4.0"}, "license: must allow commercial use, but CC-BY-NC-4.0 does not; leave it out or"),
        ({"license": "CC-BY-SA-4.0"}, "license: must not bind the result, but CC-BY-SA-4.0 is share-alike; leave it"),
        ({"license": "CC BY 4.0"}, "license: must be an SPDX expression, but 'CC BY 4.0' goes on after its end; mend"),
        (
            {
                "license": "LicenseRef-Contract",
                "terms": {"commercial": True, "derivatives": True, "expires": "2026-01-31", "basis": "a contract"},
            },
            "license: must be in force on ",
        ),
    ],
)
def test_a_licence_that_does_not_allow_the_use_is_refused_before_and_while_running(
    tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    good = _config(tmp_path)
    sources = [good.sources[0].model_dump(), {**good.sources[1].model_dump(), **change}]
    config = PrepareConfig.model_validate({"sources": sources})
    (found,) = config.problems(Context(sections={}, root=tmp_path))
    assert found.startswith(f"sources.1.{line}")
    with pytest.raises(ValueError, match=re.escape(f"sources.1.{line}")):
        run(config, _stage(tmp_path / "prepare"))


def test_settings_for_sources_that_do_not_exist_are_found(tmp_path: Path) -> None:
    config = _config(tmp_path, gates={"quality": {"sources": {"mol": ["too_short"]}}})
    (found,) = config.problems(Context(sections={}, root=tmp_path))
    assert found.startswith("gates.quality.sources.mol: must be the name of a source, but none has it")


def test_several_nodes_write_what_one_writes(tmp_path: Path) -> None:
    config, results = _config(tmp_path), dict[int, Outcome]()
    alone = run(config, _stage(tmp_path / "alone"))
    (tmp_path / "meeting").mkdir()

    def node(rank: int) -> None:
        stage = replace(_stage(tmp_path / "nodes"), rank=rank, world_size=2, meeting=tmp_path / "meeting")
        results[rank] = run(config, stage)

    threads = [threading.Thread(target=node, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0].outputs == alone.outputs
    assert results[1].metrics == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": []}, "at least 1 item"),
        ({"valid_fraction": 0}, "greater than 0"),
        ({"max_reject_fraction": 1.5}, "less than or equal to 1"),
        ({"valid_fracton": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _config(tmp_path, **settings)


def test_a_name_is_used_once(tmp_path: Path) -> None:
    twice = [_config(tmp_path).sources[0].model_dump()] * 2
    with pytest.raises(ValidationError, match="must have names of their own, but 'mols' occurs twice; rename one"):
        PrepareConfig.model_validate({"sources": twice})


def test_the_demo_names_sources_of_every_modality() -> None:
    sources = load("demo", "laptop")[0].sections["prepare"].sources  # type: ignore[attr-defined]
    assert {source.modality for source in sources} == {"omics", "molecule", "protein", "text", "trial"}
    assert all(not Path(source.path).is_absolute() for source in sources)
    assert (ROOT / "corpus/samples").is_dir()


def test_a_file_that_an_option_names_is_read_too(tmp_path: Path) -> None:
    for name in ("a.csv", "wild.fasta"):
        (tmp_path / name).write_text("")
    options = {"wild_type": "wild.fasta"}
    source = {"name": "a", "modality": "protein", "path": "a.csv", "license": "MIT", "options": options}
    found = PrepareConfig.model_validate({"sources": [source]}).files(tmp_path)
    assert list(found) == [tmp_path / "a.csv", tmp_path / "wild.fasta"]
