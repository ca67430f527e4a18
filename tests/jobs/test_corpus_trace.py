"""A token of a real store is traced to the line it comes from."""

import json
from pathlib import Path

import pytest
import yaml

from jobs import __main__ as cli
from jobs._journal import Journal
from jobs._run import ROOT
from jobs._stage import Outcome, Progress, Stage
from jobs.prepare import PrepareConfig
from jobs.prepare import run as prepare
from jobs.tokenize import TokenizeConfig
from jobs.tokenize import run as tokenize
from slurm.files import write_json
from slurm.site import Site

LAPTOP = Site.model_validate(yaml.safe_load((ROOT / "slurm/sites/laptop.yaml").read_text()))


def _stage(root: Path, name: str) -> Stage:
    folder = root / name
    return Stage(
        name=name,
        run="mine",
        site=LAPTOP,
        folder=folder,
        root=root,
        parents={},
        sections={},
        journal=Journal(folder / "journal.jsonl"),
        progress=Progress(path=folder / "progress.json"),
        seed=5,
    )


def _record(root: Path, stage: str, outcome: Outcome) -> None:
    write_json(root / stage / "record.json", {"inputs": dict(outcome.inputs), "details": dict(outcome.details)})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with proteins only, prepared and tokenized."""
    folder = tmp_path_factory.mktemp("results")
    raw = folder / "p.fasta"
    raw.write_text("".join(f">p{number}\nMK{'ACDEFGHIKL'[number % 10] * (number + 1)}T\n" for number in range(40)))
    source = {"name": "p", "modality": "protein", "path": str(raw), "license": "MIT"}
    config = PrepareConfig.model_validate({"sources": [source], "valid_fraction": 0.2})
    root = folder / "mine"
    _record(root, "prepare", prepare(config, _stage(root, "prepare")))
    _record(root, "tokenize", tokenize(TokenizeConfig(vocab_size=704), _stage(root, "tokenize")))
    return root


def _trace(root: Path, *arguments: str) -> int:
    return cli.main(["corpus", "trace", "mine", "protein", *arguments, "--results", str(root.parent)])


def test_a_token_is_traced_to_its_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (root / "prepare/records/protein.train.jsonl").read_text().splitlines()
    assert _trace(root, "0") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("token 0 of protein (train), ")
    assert "'<|protein|>'" in shown.splitlines()[0]
    identity = next(line.removeprefix("record ") for line in shown.splitlines() if line.startswith("record "))
    number, record = next((n, json.loads(line)) for n, line in enumerate(lines, start=1) if identity in line)
    assert f"line {number} of {root}/prepare/records/protein.train.jsonl" in shown
    assert f"  source: p\n  file: {root.parent}/p.fasta\n" in shown
    assert f"  place in it: {record['location']['record']}\n" in shown
    assert "  licence: MIT\n" in shown


def test_a_document_and_its_first_token_are_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _trace(root, "3", "--document", "--split", "valid") == 0
    by_document = capsys.readouterr().out
    token = by_document.split()[1].replace(",", "")
    assert _trace(root, token, "--split", "valid") == 0
    assert capsys.readouterr().out == by_document


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("999999",), "must be a token of 0 to "),
        (("999999", "--document"), "document 999999: must be one of 0 to "),
    ],
)
def test_an_unknown_token_is_one_line(
    arguments: tuple[str, ...], told: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _trace(root, *arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_an_unknown_stream_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpus", "trace", "mine", "text.zz", "0", "--results", str(root.parent)]) == 2
    assert "text.zz: must be a stream of the run: protein; change it" in capsys.readouterr().err
