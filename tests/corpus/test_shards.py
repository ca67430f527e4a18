"""Shards: what was committed is what is read, and nothing else is."""

import json
import math
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from corpus.shardfile import CHUNK, open_array
from corpus.shards import Content, commit, open_shards, token_type, write_shard
from corpus.tokenstream import TokenStream, token_stream
from slurm.files import sha256_file, write_atomic

DOCUMENTS = [list(range(start, start + 5000)) for start in range(0, 60_000, 400)]  # 750,000 tokens
FIRST = 90  # of them in the first shard


def _shard(folder: Path, path: str, documents: list[list[int]], *, vocab_size: int = 65_000) -> dict[str, Any]:
    lengths = [len(document) for document in documents]
    content = Content(
        tokens=np.concatenate([np.empty(0), *documents]).astype(token_type(vocab_size)),
        offsets=np.append(0, np.cumsum(lengths, dtype=np.int64)),
        records=np.arange(12 * len(documents)).astype(np.uint8).reshape(-1, 12),
    )
    return {"path": path, "documents": len(documents), **write_shard(folder / path, content)}


def _write(folder: Path, documents: list[list[int]], *, vocab_size: int = 65_000) -> dict[str, Any]:
    entries = {}
    for split, parts in (("train", (documents[:FIRST], documents[FIRST:])), ("valid", (documents[:1],))):
        shards = [
            _shard(folder, f"shards/{split}/a/{number:05d}", part, vocab_size=vocab_size)
            for number, part in enumerate(parts)
        ]
        entries[split] = {"tokens": sum(shard["tokens"] for shard in shards), "padding": 0, "shards": shards}
    write_atomic(folder / "tokenizer" / "tokenizer.json", "{}")
    told = {"vocab_size": vocab_size, "eod_id": 0, "pad_id": 1, "pack_length": None}
    phases: dict[str, Any] = {"main": {"mixture": {"a": 1.0}, "max_epochs": None, "notes": []}}
    return commit(folder, {**told, "streams": {"a": entries}, "mixture": {"a": 1.0}, "phases": phases})


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    _write(folder, DOCUMENTS)
    return folder


@pytest.fixture
def folder(committed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(committed, tmp_path / "copy")


def test_tokens_come_back_from_any_place(committed: Path) -> None:
    shards = open_shards(committed)
    stream = shards.stream("a", "train")
    whole = np.concatenate([np.array(document) for document in DOCUMENTS])
    assert (shards.vocab_size, shards.eod_id, shards.mixture, shards.pack_length) == (65_000, 0, {"a": 1.0}, None)
    assert shards.train_tokens == {"a": len(whole)}
    assert len(stream) == len(whole)
    seam = FIRST * 5000
    edges = [0, 1, CHUNK - 1, CHUNK, 4 * CHUNK + 1, seam - 1, seam, seam + 1, seam + CHUNK, len(whole)]
    for start in edges:
        for stop in edges:
            if start <= stop:
                found = stream.tokens(start, stop)
                assert found.dtype == np.int64
                assert np.array_equal(found, whole[start:stop])
    assert np.array_equal(np.diff(stream.doc_offsets()), [len(document) for document in DOCUMENTS])
    assert stream.counted(0, whole[:10]) is None
    ids = stream.ids(seam - 7, seam + 5001)
    assert ids[0].tolist() == [FIRST - 1] * 7 + [FIRST] * 5000 + [FIRST + 1]
    assert np.array_equal(ids[0], ids[1])
    assert not ids[2].any()


def test_zarr_reads_what_is_mapped(committed: Path) -> None:
    for name in ("tokens", "doc_offsets", "doc_ids"):
        path = committed / "shards/train/a/00000" / name
        stored, mapped = zarr.open_array(path, mode="r"), open_array(path)
        assert np.array_equal(stored[:], mapped.rows(0, len(mapped)))
        assert (stored.dtype, stored.shape) == (mapped.dtype, mapped.shape)
    assert [path.name for path in (committed / "shards/train/a/00000/tokens/c").iterdir()] == ["0"]


def test_a_token_is_traced_to_its_record(committed: Path) -> None:
    stream = open_shards(committed).stream("a", "train")
    for index in (0, 4999, 5000, FIRST * 5000 - 1, FIRST * 5000, len(stream) - 1):
        place, shard = index // 5000, int(index >= FIRST * 5000)
        document = place - FIRST * shard
        found = stream.locate(index)
        assert (found.shard, found.document) == (f"shards/train/a/0000{shard}", document)
        assert found.record == np.arange(document * 12, document * 12 + 12).astype(np.uint8).tobytes().hex()
    with pytest.raises(IndexError, match=r"must be a token of 0 to 749999, but is 750000"):
        stream.locate(len(stream))


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_the_least_room(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    entry = _shard(tmp_path, "a", [[0, vocab_size - 1]], vocab_size=vocab_size)
    stream = token_stream(tmp_path, {"shards": [entry]}, pad_id=1)
    assert stream.tokens(0, 2).tolist() == [0, vocab_size - 1]
    assert open_array(tmp_path / "a/tokens").dtype == dtype


def test_an_empty_stream_is_a_stream(tmp_path: Path) -> None:
    entry = _shard(tmp_path, "a", [])
    assert entry["tokens"] == 0
    stream = token_stream(tmp_path, {"shards": [entry]}, pad_id=1)
    assert (len(stream), stream.tokens(0, 0).tolist(), stream.unigram_entropy()) == (0, [], 0.0)
    assert (stream.doc_offsets().tolist(), stream.ids(0, 0).shape) == ([0], (3, 0))
    assert len(TokenStream(folder=tmp_path, shards=(), pad_id=1)) == 0


def test_entropy_is_that_of_the_frequencies(tmp_path: Path) -> None:
    entry = _shard(tmp_path, "a", [[1, 1, 2, 3]])
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert token_stream(tmp_path, {"shards": [entry]}, pad_id=1).unigram_entropy() == pytest.approx(expected)


def test_reading_outside_or_an_unknown_stream_is_refused(committed: Path) -> None:
    stream = open_shards(committed).stream("a", "train")
    with pytest.raises(IndexError, match="must read within 0 to 750000, but asked for 749999 to 750001"):
        stream.tokens(749_999, 750_001)
    with pytest.raises(IndexError, match="must read within 0 to 750000, but asked for -1 to 4"):
        stream.ids(-1, 4)
    with pytest.raises(ValueError, match="must hold b train, but has a, train and valid"):
        open_shards(committed).stream("b", "train")


def _sum(stream: TokenStream, queue: Any) -> None:
    queue.put(int(stream.tokens(CHUNK - 10, CHUNK + 10).sum()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_holds_no_more_files_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [_shard(tmp_path, f"shards/{number:02d}", [[number, 1]]) for number in range(40)]
    monkeypatch.setattr("corpus.shardfile.resource.getrlimit", lambda _: (40, 40))
    stream = token_stream(tmp_path, {"shards": shards}, pad_id=9)
    for _ in range(2):
        assert stream.tokens(0, 80)[::2].tolist() == list(range(40))
        assert len(stream._opened) <= 20


def test_a_stream_survives_pickle_and_fork(committed: Path) -> None:
    stream = open_shards(committed).stream("a", "train")
    expected = int(stream.tokens(CHUNK - 10, CHUNK + 10).sum())
    copied = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
    assert int(copied.tokens(CHUNK - 10, CHUNK + 10).sum()) == expected
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_sum, args=(stream, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_a_shard_that_was_not_finished_is_written_anew(tmp_path: Path) -> None:
    first = _shard(tmp_path, "s/a", [[1, 2, 3]])
    torn = tmp_path / "s/.a.new/tokens/c"
    torn.mkdir(parents=True)
    (torn / "9").write_bytes(b"x")
    assert _shard(tmp_path, "s/a", [[1, 2, 3]]) == first
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["a"]


def _flip(path: Path, place: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] ^= 1 << place % 8
    path.write_bytes(damaged)


def _swap(path: Path, other: Path) -> None:
    one, two = path.read_bytes(), other.read_bytes()
    if one == two:
        path.write_bytes(one[::-1])
        return
    path.write_bytes(two)
    other.write_bytes(one)


BLOWS: dict[str, Callable[[Path, Path, int], object]] = {
    "flip": lambda path, _, place: _flip(path, place),
    "truncate": lambda path, _, place: path.write_bytes(path.read_bytes()[: place % path.stat().st_size]),
    "delete": lambda path, _, __: path.unlink(),
    "half": lambda path, _, __: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2].ljust(1 << 17, b"\0")),
    "swap": lambda path, other, _: _swap(path, other),
    "add": lambda path, _, __: (path.parent / "added").write_bytes(b"x"),
    "longer": lambda path, _, __: path.write_bytes(path.read_bytes() + b"\0"),
}


@pytest.mark.parametrize("blow", list(BLOWS))
def test_damages_of_every_kind_to_any_file_are_refused(blow: str, tmp_path: Path) -> None:
    """Small shards, so that opening them is quick; one file after the other is damaged, refused and mended."""
    _write(tmp_path, [list(range(2, 40 + number)) for number in range(FIRST + 9)])
    open_shards(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    if blow == "add":  # beside the manifest, stages keep their own files
        files = [path for path in files if path.parent != tmp_path]
    draws = np.random.default_rng(5)
    for path in draws.permutation(np.array(files, object)).tolist() * (2 if blow in ("flip", "truncate") else 1):
        other = files[int(draws.integers(len(files)))]
        kept = {each: each.read_bytes() for each in (path, other)}
        BLOWS[blow](path, other, int(draws.integers(1 << 30)))
        with pytest.raises(ValueError, match=r"; (run tokenize again|restore it or make it again)$"):
            open_shards(tmp_path)
        (path.parent / "added").unlink(missing_ok=True)
        for each, content in kept.items():
            each.write_bytes(content)
    open_shards(tmp_path)


def test_every_flipped_byte_of_tokens_is_found_when_it_is_read(folder: Path) -> None:
    """The checksums in the file find what happens after the shards were opened."""
    path = folder / "shards/train/a/00001/tokens/c/0"
    content, size = path.read_bytes(), 2 * CHUNK + 4
    whole = open_shards(folder).stream("a", "train")
    for place in np.random.default_rng(0).integers(size, size=10).tolist():
        _flip(path, place)
        stream = pickle.loads(pickle.dumps(whole))  # noqa: S301 - our own bytes
        with pytest.raises(ValueError, match=r"chunk 0 must match its CRC-32C, but does not; run tokenize again"):
            stream.tokens(FIRST * 5000, FIRST * 5000 + 10)
        stream.tokens(FIRST * 5000 + CHUNK, FIRST * 5000 + CHUNK + 10)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.joinpath("c/0").unlink(), r"its file must have \d+ bytes, but has 0"),
        (lambda path: path.joinpath("c/0").write_bytes(b"x"), r"its file must have \d+ bytes, but has 1"),
        (lambda path: _flip(path / "c/0", path.joinpath("c/0").stat().st_size - 9), "its index must match its CRC-32C"),
        (
            lambda path: path.joinpath("zarr.json").write_text("{}"),
            r"its zarr.json must describe a sharded array \(Key",
        ),
        (
            lambda path: path.joinpath("zarr.json").write_text(
                path.joinpath("zarr.json").read_text().replace('"crc32c"', '"zstd"')
            ),
            "its chunks must be bytes and crc32c, with the index at the end, but are",
        ),
    ],
    ids=["missing", "short", "index", "form", "codec"],
)
def test_an_array_in_another_form_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    _shard(tmp_path, "a", [[1, 2, 3]])
    damage(tmp_path / "a/tokens")
    with pytest.raises(ValueError, match=message):
        open_array(tmp_path / "a/tokens")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("uncommitted", "must hold a committed manifest.json, but has none; run tokenize again"),
        ("missing", "must be as committed, but tokens/c/0 is missing or changed"),
        ("added", "must be as committed, but shards/train/a/00002 was added"),
        ("stream", "must be as committed, but shards/train/b was added"),
        ("format", "must have format 2, but has 1; run tokenize again"),
        ("told", "must match its own digest, but does not; run tokenize again"),
        ("tokenizer", "the tokenizer must be the one the shards were made with; run tokenize again"),
        ("torn", "must be strict JSON"),
    ],
)
def test_anything_but_the_commit_is_refused(folder: Path, damage: str, message: str) -> None:
    manifest, shards = folder / "manifest.json", folder / "shards/train"
    told = json.loads(manifest.read_text())
    blows: dict[str, Callable[[], object]] = {
        "uncommitted": manifest.unlink,
        "missing": (shards / "a/00001/tokens/c/0").unlink,
        "added": lambda: shutil.copytree(shards / "a/00001", shards / "a/00002"),
        "stream": lambda: shutil.copytree(shards / "a", shards / "b"),
        "format": lambda: manifest.write_text(json.dumps({**told, "format": 1})),
        "told": lambda: manifest.write_text(json.dumps({**told, "vocab_size": 64_999})),
        "tokenizer": lambda: (folder / "tokenizer/tokenizer.json").write_text("{ }"),
        "torn": lambda: manifest.write_bytes(manifest.read_bytes()[:-9]),
    }
    blows[damage]()
    with pytest.raises(ValueError, match=message):
        open_shards(folder)


def test_those_who_open_together_hash_all_of_it(folder: Path) -> None:
    _flip(folder / "shards/train/a/00001/tokens/c/0", 77)
    found = []
    for rank in range(3):
        try:
            open_shards(folder, share=(rank, 3))
        except ValueError as error:
            found.append(str(error))
    assert len(found) == 1
    assert sha256_file(folder / "manifest.json")
