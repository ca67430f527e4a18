"""Shards: what was committed is what is read, and nothing else is."""

import math
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from corpus.shards import CHUNK, ShardWriter, TokenStream, open_shards
from slurm.files import sha256_file, write_atomic, write_json

DOCUMENTS = [list(range(start, start + 5000)) for start in range(0, 60_000, 400)]  # 750,000 tokens, 3 shards


def _write(folder: Path, documents: list[list[int]], *, vocab_size: int = 65_000) -> dict[str, Any]:
    entries = {}
    for split, part in (("train", documents), ("valid", documents[:1])):
        writer = ShardWriter(folder / "shards" / split / "a", vocab_size=vocab_size, shard_tokens=4 * CHUNK)
        for document in part:
            writer.add(document)
        entries[split] = {"path": f"shards/{split}/a", "chars": 0, **writer.close()}
    write_atomic(folder / "tokenizer" / "tokenizer.json", "{}")
    manifest = {
        "format": 1,
        "tokenizer_digest": sha256_file(folder / "tokenizer" / "tokenizer.json"),
        "vocab_size": vocab_size,
        "eod_id": 0,
        "pad_id": 1,
        "streams": {"a": entries},
        "mixture": {"a": 1.0},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path, DOCUMENTS)
    return tmp_path


def test_tokens_come_back_from_any_place(folder: Path) -> None:
    shards = open_shards(folder)
    stream = shards.stream("a", "train")
    whole = np.concatenate([np.array(document) for document in DOCUMENTS])
    assert (shards.vocab_size, shards.eod_id, shards.mixture) == (65_000, 0, {"a": 1.0})
    assert len(stream) == len(whole)
    assert len(list((folder / "shards/train/a/tokens/c").iterdir())) == 3
    edges = [0, 1, CHUNK - 1, CHUNK, 4 * CHUNK, 4 * CHUNK + 1, len(whole)]
    for start in edges:
        for stop in edges:
            if start <= stop:
                found = stream.tokens(start, stop)
                assert found.dtype == np.int64
                assert np.array_equal(found, whole[start:stop])
    assert np.array_equal(np.diff(stream.doc_offsets()), [len(document) for document in DOCUMENTS])


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_the_least_room(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    _write(tmp_path, [[0, vocab_size - 1]], vocab_size=vocab_size)
    assert open_shards(tmp_path).stream("a", "train").tokens(0, 2).tolist() == [0, vocab_size - 1]
    assert zarr.open_array(tmp_path / "shards/train/a/tokens", mode="r").dtype == dtype


def test_an_empty_stream_is_a_stream(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a", vocab_size=10, shard_tokens=CHUNK)
    assert writer.close()["tokens"] == 0
    stream = TokenStream(path=tmp_path / "a", length=0)
    assert (len(stream), stream.tokens(0, 0).tolist(), stream.unigram_entropy()) == (0, [], 0.0)


def test_entropy_is_that_of_the_frequencies(tmp_path: Path) -> None:
    _write(tmp_path, [[1, 1, 2, 3]])
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert open_shards(tmp_path).stream("a", "train").unigram_entropy() == pytest.approx(expected)


def test_places_outside_are_refused(folder: Path) -> None:
    stream = open_shards(folder).stream("a", "train")
    with pytest.raises(IndexError, match="must read within 0 to 750000, but asked for 749999 to 750001"):
        stream.tokens(749_999, 750_001)
    with pytest.raises(IndexError, match="but asked for -1 to 2"):
        stream.tokens(-1, 2)
    with pytest.raises(ValueError, match="must hold b train, but has a, train and valid"):
        open_shards(folder).stream("b", "train")


def _sum(stream: TokenStream, queue: Any) -> None:
    queue.put(int(stream.tokens(CHUNK - 10, CHUNK + 10).sum()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_stream_survives_pickle_and_fork(folder: Path) -> None:
    stream = open_shards(folder).stream("a", "train")
    expected = int(stream.tokens(CHUNK - 10, CHUNK + 10).sum())
    copied = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
    assert int(copied.tokens(CHUNK - 10, CHUNK + 10).sum()) == expected
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_sum, args=(stream, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_every_flipped_byte_is_found(folder: Path) -> None:
    path = folder / "shards/train/a/tokens/c/1"
    content = path.read_bytes()
    whole = open_shards(folder).stream("a", "train")
    generator = np.random.default_rng(0)
    for place in generator.integers(len(content), size=10):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="must be as committed, but tokens/c/1 is missing or changed"):
            open_shards(folder)
        stream = TokenStream(path=whole.path, length=len(whole))
        with pytest.raises((ValueError, RuntimeError), match=r"(?i)checksum|corrupt|invalid|match|frame|error"):
            stream.tokens(4 * CHUNK, 8 * CHUNK)  # the checksum in each chunk finds it too


def test_a_file_that_goes_while_it_is_read_is_not_zeros(folder: Path) -> None:
    stream = open_shards(folder).stream("a", "train")
    (folder / "shards/train/a/tokens/c/1").unlink()
    with pytest.raises(ValueError, match="must hold tokens, but is missing; run tokenize again"):
        stream.tokens(4 * CHUNK, 8 * CHUNK)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("uncommitted", "must hold a committed manifest.json, but has none; run tokenize again"),
        ("missing", "must be as committed, but tokens/c/2 is missing or changed"),
        ("added", "must be as committed, but tokens/c/9 is missing or changed"),
        ("format", "must have format 1, but has 2; run tokenize again"),
        ("tokenizer", "the tokenizer must be the one the shards were made with; run tokenize again"),
        ("torn", "must be strict JSON"),
    ],
)
def test_anything_but_the_commit_is_refused(folder: Path, damage: str, message: str) -> None:
    manifest = folder / "manifest.json"
    chunk = folder / "shards/train/a/tokens/c"
    blows: dict[str, Callable[[], object]] = {
        "uncommitted": manifest.unlink,
        "missing": (chunk / "2").unlink,
        "added": lambda: (chunk / "9").write_bytes(b"x"),
        "format": lambda: manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2')),
        "tokenizer": lambda: (folder / "tokenizer/tokenizer.json").write_text("{ }"),
        "torn": lambda: manifest.write_bytes(manifest.read_bytes()[:-9]),
    }
    blows[damage]()
    with pytest.raises(ValueError, match=message):
        open_shards(folder, share=(1, 1 << 20))
