"""Encoding: the same bytes for any crew and after any kill, and every record back from its tokens."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from corpus.claims import Nodes
from corpus.encoding import Shaping, make_tokenizer, write_shards
from corpus.mixture import MAIN, Mixing
from corpus.shards import MANIFEST, open_shards
from corpus.survey import begin
from corpus.workers import Crew
from slurm.files import sha256_files

WORDS = {"text.en": ["fever", "cough", "dose", "of", "the", "heart"], "text.ko": ["열", "환자", "약을", "준다"]}
SHAPING = Shaping(shard_tokens=1 << 13, pack_length=64, pairs=0.5, seed=3)  # ranges of 32 kB
CODE = """
import sys
from pathlib import Path
from corpus import tokenizer
from corpus.encoding import Shaping, write_shards
from corpus.workers import Crew

records, folder, made, workers, rank, world = sys.argv[1:]
crew = Crew(workers=int(workers), rank=int(rank), world_size=int(world), meeting=Path(folder + ".met"), isolate=False)
shaping = Shaping(shard_tokens=1 << 13, pack_length=64, pairs=0.5, seed=3)
write_shards(Path(records), Path(folder), tokenizer=tokenizer.load(Path(made)), shaping=shaping, crew=crew)
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, write_records: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("encoding")
    draws = random.Random(1)
    for split, count in (("train", 260), ("valid", 30)):
        for stream, words in WORDS.items():
            texts = [
                (" ".join(draws.choices(words, k=draws.choice([1, 8, 30, 200]))) + f" {number}", f"p{number}")
                for number in range(count)
            ]
            write_records(folder / "prepare", stream, split, texts)
    tokenizer = make_tokenizer(folder / "prepare", base=None, vocab_size=704)
    (folder / "made").mkdir()
    tokenizer.save(str(folder / "made" / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def whole(records: Path) -> tuple[Path, dict[str, str]]:
    """What one worker writes."""
    folder = records / "one"
    write_shards(
        records / "prepare",
        folder,
        tokenizer=made(records),
        shaping=SHAPING,
    )
    return folder, sha256_files(folder)


def made(records: Path) -> Tokenizer:
    return Tokenizer.from_file(str(records / "made/tokenizer.json"))


def _start(records: Path, folder: Path, *, workers: int = 1, rank: int = 0, world: int = 1) -> subprocess.Popen[bytes]:
    arguments = [records / "prepare", folder, records / "made", workers, rank, world]
    return subprocess.Popen([sys.executable, "-c", CODE, *map(str, arguments)], start_new_session=True)


def test_records_become_shards_that_hold_them_all(records: Path, whole: tuple[Path, dict[str, str]]) -> None:
    shards = open_shards(whole[0])
    assert set(shards.mixture) == {"text.en", "text.en+ko", "text.ko"}
    tokenizer = Tokenizer.from_file(str(whole[0] / "tokenizer/tokenizer.json"))
    found = []
    for name, splits in shards.manifest["streams"].items():
        entry, stream = splits["train"], shards.stream(name, "train")
        assert len(entry["shards"]) > 1
        assert len(stream) % 64 == 0
        tokens, pad = stream.tokens(0, len(stream)), shards.manifest["pad_id"]
        real = len(tokens) - entry["padding"]
        assert (tokens == pad).sum() == entry["padding"] == sum(shard["padding"] for shard in entry["shards"])
        assert sum(entry["sources"].values()) == real == sum(entry["languages"].values())
        assert sum(entry["source_documents"].values()) == entry["documents"]
        assert entry["scales"] == {"L1": real}
        texts = tokenizer.decode(tokens[tokens != pad].tolist(), skip_special_tokens=False).split("<|eod|>")
        found += [text for text in texts if text.startswith("<|text|>") and text.endswith("<|/text|>")]
    assert len(found) > 400  # the rest is longer than a window, and its parts lie apart


def test_padding_is_no_document_and_counts_nothing(whole: tuple[Path, dict[str, str]]) -> None:
    stream = open_shards(whole[0]).stream("text.en+ko", "train")
    pad, ids = stream.pad_id, stream.ids(0, len(stream))
    tokens = stream.tokens(0, len(stream))
    counted = stream.counted(0, tokens)
    assert counted is not None
    fill = tokens == pad
    assert not counted[fill[1:]].any()
    assert not counted[fill[:-1]].any()
    left = ~counted & ~fill[1:] & ~fill[:-1]
    for place in np.flatnonzero(left).tolist():  # parts of long documents
        assert stream.locate(place).record != stream.locate(place + 1).record
    for window in range(len(tokens) // 64):
        here = slice(window * 64, window * 64 + 64)
        assert not set(ids[0, here][fill[here]]) & set(ids[0, here][~fill[here]])
        assert not set(ids[1, here][fill[here]]) & set(ids[1, here][~fill[here]])
        assert (np.diff(ids[:2, here]) >= 0).all()
        alone = stream.counted(here.start, tokens[here])
        assert alone is not None
        assert np.array_equal(alone, counted[here.start : here.stop - 1])
    assert stream.locate(int(np.flatnonzero(fill)[0])).record is None


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_writes_the_same_bytes(
    records: Path, whole: tuple[Path, dict[str, str]], tmp_path: Path, workers: int
) -> None:
    given: dict[str, Any] = {"tokenizer": made(records), "shaping": SHAPING, "crew": Crew(workers=workers)}
    write_shards(records / "prepare", tmp_path, **given)
    assert sha256_files(tmp_path) == whole[1]


def test_two_nodes_write_the_same_bytes(records: Path, whole: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    other = _start(records, folder, rank=1, world=2)
    crew = Crew(world_size=2, meeting=Path(f"{folder}.met"))
    write_shards(records / "prepare", folder, tokenizer=made(records), shaping=SHAPING, crew=crew)
    assert other.wait() == 0
    assert sha256_files(folder) == whole[1]


def test_killed_at_any_point_it_goes_on_to_the_same_bytes(
    records: Path, whole: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, draws, kept = tmp_path / "shards", random.Random(4), [0]
    entries = folder / ".partial" / "shards"
    for _ in range(2):
        run = _start(records, folder, workers=2)
        target = kept[-1] + draws.randint(1, 3)
        while run.poll() is None and len(list(entries.rglob("0*.json"))) < target:
            time.sleep(0.002)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        done = {path: path.stat().st_mtime_ns for path in entries.rglob("0*.json")}
        if (folder / MANIFEST).exists():
            break
        with pytest.raises(ValueError, match=r"must hold a committed manifest.json, but has none; run tokenize again"):
            open_shards(folder)
        kept.append(len(done))
    assert kept[1:] == sorted(kept[1:])
    assert kept[-1] > 1
    write_shards(records / "prepare", folder, tokenizer=made(records), shaping=SHAPING)
    assert sha256_files(folder) == whole[1]
    open_shards(folder)


def test_what_was_done_for_another_request_is_not_kept(tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "shards"
    for path in (work, other):
        path.mkdir()
    begin(work, {"a": 1}, nodes=Nodes(), clear=[other])
    assert not other.exists()
    (work / "done").touch()
    begin(work, {"a": 1}, nodes=Nodes())
    assert (work / "done").exists()
    begin(work, {"a": 2}, nodes=Nodes())
    assert not (work / "done").exists()


def test_another_tokenizer_in_the_same_place_is_another_request(records: Path, tmp_path: Path) -> None:
    base, work = tmp_path / "base.json", tmp_path / "work"
    made(records).save(str(base))
    given: dict[str, Any] = {"base": base, "vocab_size": None, "work": work}
    before = make_tokenizer(records / "prepare", **given).to_str()
    Tokenizer(models.BPE()).save(str(base))
    assert make_tokenizer(records / "prepare", **given).to_str() != before


def test_a_mixture_that_fails_costs_no_shard(records: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "tokenizer": made(records),
        "shaping": Shaping(shard_tokens=1 << 14),
    }
    bad = {MAIN: Mixing(), "annealing": Mixing(mixture={"genes": 1.0})}
    with pytest.raises(ValueError, match=r"^tokenize.phases.annealing.mixture: must name streams of"):
        write_shards(records / "prepare", tmp_path, mixing=bad, **given)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*") if path.is_file()}
    good = {MAIN: Mixing(), "annealing": Mixing(mixture={"text.ko": 1.0}, max_epochs=3)}
    manifest, _ = write_shards(records / "prepare", tmp_path, mixing=good, **given)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert manifest["phases"]["annealing"] == {"mixture": {"text.ko": 1.0}, "max_epochs": 3.0, "notes": []}


def test_a_tokenizer_that_loses_text_is_refused(records: Path, tmp_path: Path) -> None:
    lossy = Tokenizer(models.WordLevel({"fever": 0, "[UNK]": 1, "<|eod|>": 2, "<|pad|>": 3}, unk_token="[UNK]"))
    with pytest.raises(
        ValueError,
        match=r"every record must come back from its tokens, but \d+ did not and \d+ tokens .* \(record [0-9a-f]{24}\)",
    ):
        write_shards(records / "prepare", tmp_path, tokenizer=lossy, shaping=Shaping())


def test_padding_within_a_record_is_refused(records: Path, tmp_path: Path, write_records: Callable[..., None]) -> None:
    for split in ("train", "valid"):
        write_records(tmp_path / "prepare", "text.en", split, [("a <|pad|> b", None)])
    given: dict[str, Any] = {
        "tokenizer": made(records),
        "shaping": Shaping(),
    }
    with pytest.raises(
        ValueError, match=r"no record may hold <\|pad\|>, which is padding, but one does; run prepare again"
    ):
        write_shards(tmp_path / "prepare", tmp_path, **given)


def test_a_crew_of_one_needs_no_process(records: Path) -> None:
    one = make_tokenizer(records / "prepare", base=None, vocab_size=704)
    many = make_tokenizer(records / "prepare", base=None, vocab_size=704, crew=Crew(workers=2))
    assert one.to_str() == many.to_str()
