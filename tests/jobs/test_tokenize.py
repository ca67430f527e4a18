"""The tokenize stage: from records to committed shards, and what a kill leaves behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from corpus import shardwork
from corpus.modality import modalities
from corpus.shards import Content, open_shards, write_shard
from jobs._journal import Journal
from jobs._run import ROOT
from jobs._stage import STOPPED, Context, Progress, Stage
from jobs.prepare import PrepareConfig
from jobs.prepare import run as prepare
from jobs.pretrain import PretrainConfig
from jobs.tokenize import TokenizeConfig, run
from slurm.files import sha256_file
from slurm.site import Site

LAPTOP = Site.model_validate(yaml.safe_load((ROOT / "slurm/sites/laptop.yaml").read_text()))
CONFIG = TokenizeConfig(vocab_size=704, shard_tokens=1 << 16)


def _stage(root: Path, name: str) -> Stage:
    folder = root / name
    return Stage(
        name=name,
        run="test",
        site=LAPTOP,
        folder=folder,
        root=root,
        parents={},
        sections={},
        journal=Journal(folder / "journal.jsonl"),
        progress=Progress(path=folder / "progress.json"),
        seed=5,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run whose prepare stage is done: proteins and paired text."""
    proteins = "".join(f">p{number}\nMK{'ACDEFGHIKL'[number % 10] * (number % 7 + 1)}T\n" for number in range(60))
    (tmp_path / "p.fasta").write_text(proteins)
    pairs = [{"en": f"Patient {number} has a fever.", "ko": f"환자 {number}번은 열이 있다."} for number in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    sources = [
        {"name": "p", "modality": "protein", "path": str(tmp_path / "p.fasta"), "license": "MIT"},
        {"name": "t", "modality": "text", "path": str(tmp_path / "t.jsonl"), "license": "MIT"},
    ]
    config = PrepareConfig.model_validate({"sources": sources, "valid_fraction": 0.2})
    prepare(config, _stage(tmp_path / "run", "prepare"))
    return tmp_path / "run"


def test_records_become_shards_that_hold_them_all(root: Path) -> None:
    from tokenizers import Tokenizer

    outcome = run(CONFIG, _stage(root, "tokenize"))
    folder = root / "tokenize"
    shards = open_shards(folder)
    assert outcome.outputs == {name: sha256_file(folder / name) for name in outcome.outputs}
    assert (shards.vocab_size, outcome.metrics["vocab_size"]) == (704, 704)
    assert set(shards.mixture) == {"protein", "text.en", "text.ko"}
    assert sum(shards.mixture.values()) == pytest.approx(1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    stream = shards.stream("text.ko", "valid")
    written = tokenizer.decode(stream.tokens(0, len(stream)).tolist(), skip_special_tokens=False)
    lines = (root / "prepare/records/text.ko.valid.jsonl").read_text().splitlines()
    expected = "".join(f"<|text|>{json.loads(line)['content']['text']}<|/text|><|eod|>" for line in lines)
    assert written == expected
    ends = stream.doc_offsets()[1:] - 1
    assert {int(stream.tokens(end, end + 1)[0]) for end in ends} == {shards.eod_id}
    table = outcome.details["streams"]["text.ko"]
    assert table["valid_tokens"] == len(stream) == outcome.metrics["tokens/valid/text.ko"]
    assert table["unigram_entropy"] == stream.unigram_entropy() > 0
    assert not (folder / ".partial").exists()


def test_running_twice_gives_the_same_digests(root: Path) -> None:
    first = run(CONFIG, _stage(root, "tokenize"))
    second = run(CONFIG, _stage(root, "tokenize"))
    assert first.outputs == second.outputs


def test_a_trained_tokenizer_may_be_loaded(root: Path) -> None:
    run(CONFIG, _stage(root, "tokenize"))
    base = str(root / "tokenize" / "tokenizer")
    copy = root / "base"
    Path(base).rename(copy)
    outcome = run(TokenizeConfig(tokenizer=str(copy)), _stage(root, "tokenize"))
    assert outcome.metrics["vocab_size"] == 768  # 704, rounded up to a multiple of 128


def test_a_run_that_was_stopped_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(CONFIG, _stage(root, "tokenize"))
    done: list[str] = []

    def stopping(path: Path, content: Content) -> dict[str, Any]:
        if len(done) == 3:
            raise SystemExit(STOPPED)
        done.append(str(path))
        return write_shard(path, content)

    shutil.rmtree(root / "tokenize")
    monkeypatch.setattr(shardwork, "write_shard", stopping)
    with pytest.raises(SystemExit, match="85"):
        run(CONFIG, _stage(root, "tokenize"))
    with pytest.raises(ValueError, match=r"must hold a committed manifest.json, but has none; run tokenize again"):
        open_shards(root / "tokenize")
    written = {path: Path(path).stat().st_ino for path in done}
    monkeypatch.setattr(shardwork, "write_shard", write_shard)
    assert run(CONFIG, _stage(root, "tokenize")).outputs == whole.outputs
    assert {path: Path(path).stat().st_ino for path in written} == written


def test_documents_are_packed_and_mixed_by_phase(root: Path) -> None:
    settings = {"vocab_size": 704, "pack_length": 32, "upsample": {"ko": 2}, "max_epochs": 4}
    phases = {"annealing": {"mixture": {"text.ko": 3, "text.en": 1}}}
    outcome = run(TokenizeConfig.model_validate({**settings, "phases": phases}), _stage(root, "tokenize"))
    shards = open_shards(root / "tokenize")
    assert shards.pack_length == 32
    table = outcome.details["streams"]
    assert all(len(shards.stream(name, "train")) % 32 == 0 for name in table)
    assert 0 < table["text.ko"]["padding"] < 0.3
    told = outcome.details["phases"]
    assert told["main"]["max_epochs"] == 4
    assert told["main"]["mixture"]["text.ko"] > told["main"]["mixture"]["text.en"] > 0
    assert told["annealing"] == {"mixture": {"text.ko": 0.75, "text.en": 0.25}, "max_epochs": None, "notes": []}
    sources = outcome.details["sources"]
    assert sum(source["share"] for source in sources.values()) == pytest.approx(1)
    assert sources["p"]["tokens"] == outcome.details["languages"]["none"] == outcome.details["scales"]["L3"]
    assert sum(source["tokens"] for source in sources.values()) == outcome.metrics["tokens"]


def test_a_tokenizer_that_loses_text_is_refused(root: Path) -> None:
    from tokenizers import Tokenizer, models

    lossy = Tokenizer(models.WordLevel({"fever": 0, "[UNK]": 1}, unk_token="[UNK]"))
    lossy.save(str(root / "lossy.json"))
    with pytest.raises(ValueError, match=r"every record must come back from its tokens, but \d+ did not and \d+"):
        run(TokenizeConfig(tokenizer=str(root / "lossy.json")), _stage(root, "tokenize"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "vocab_size: must be given where no tokenizer is loaded, but is not; add it"),
        ({"vocab_size": 100}, "greater than or equal to 512"),
        ({"vocab_size": 512, "shard_tokens": 70_000}, "multiple of 65536"),
        ({"vocab_size": 512, "mixture": {"a": -1}}, "greater than or equal to 0"),
        ({"vocab_size": 512, "phases": {"main": {}}}, "phases.main: must not be given, as the section itself is that"),
        (
            {"vocab_size": 512, "phases": {"late": {"mixture": {"a": 1}, "temperature": 1}}},
            "temperature: must be left out",
        ),
        ({"vocab_size": 512, "mixture": {"a": 0}}, "mixture: must have a weight above 0, but has none; add one"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizeConfig.model_validate(settings)


def test_planning_finds_what_is_not_there(tmp_path: Path) -> None:
    given = {"tokenizer": "nowhere", "genes": "genes.csv", "mixture": {"text.en": 1, "genes": 1}, "pack_length": 64}
    config = TokenizeConfig.model_validate({**given, "phases": {"late": {"upsample": {"genes": 2}}}})
    training = PretrainConfig(model="demo", seq_length=128, global_batch_size=4, train_iters=4, lr=0.1)
    known = ", ".join(modalities())
    assert list(config.problems(Context(sections={"pretrain": training}, root=tmp_path))) == [
        f"tokenizer: must be a tokenizer.json or its folder, but {tmp_path}/nowhere is not there; mend the path",
        f"genes: must be a table of genes, but {tmp_path}/genes.csv is not there; mend the path",
        f"mixture.genes: must be a modality of {known}, with .en or so for text, but is not; change it",
        f"phases.late.upsample.genes: must be a stream, a language or a modality of {known}, but is not; change it",
        (
            "pack_length: must be pretrain.seq_length 128, or windows would cut what was packed, but is 64; make them "
            "equal, or leave it out"
        ),
    ]
    assert "pack_length" not in "".join(config.problems(Context(sections={}, root=tmp_path)))


def test_a_tokenizer_of_two_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "old" / name).write_text("")
    found = list(TokenizeConfig(tokenizer="old").files(tmp_path))
    assert found == [tmp_path / "old" / "vocab.json", tmp_path / "old" / "merges.txt"]
