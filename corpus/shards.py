"""Token shards: zarr stores with a checksum in every chunk, and a manifest that makes them one committed whole."""

import os
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from slurm.files import fsync_file, read_json, sha256_file, sha256_files

MANIFEST = "manifest.json"
CHUNK = 1 << 16
_CACHED_CHUNKS = 256  # of a stream: 32 MiB of uint16


class ShardWriter:
    """Appends documents to the store of one stream and split; `close` writes what is left and returns its entry."""

    def __init__(self, path: Path, *, vocab_size: int, shard_tokens: int) -> None:
        self._path, self._shard_tokens = path, shard_tokens
        self._group = zarr.create_group(path, zarr_format=3)
        dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
        self._tokens = self._create("tokens", dtype, shard_tokens)
        self._waiting: list[np.ndarray] = []
        self._waiting_tokens = 0
        self._offsets = array("q", [0])
        self._labels: list[tuple[int, int]] = []

    def add(self, ids: Iterable[int], *, label: tuple[int, int] | None = None) -> None:
        """Appends one document, its end token included; its label, of all documents or none, is group and language."""
        document = np.fromiter(ids, dtype=self._tokens.dtype)
        self._waiting.append(document)
        self._waiting_tokens += len(document)
        self._offsets.append(self._offsets[-1] + len(document))
        self._labels += [] if label is None else [label]
        if self._waiting_tokens >= self._shard_tokens:
            self._flush(whole_shards=True)

    def close(self) -> dict[str, Any]:
        """Writes the rest; returns tokens, documents and the digest of every file."""
        self._flush(whole_shards=False)
        offsets = self._create("doc_offsets", "int64", 1 << 20)
        _append(offsets, np.array(self._offsets))
        for name, values in zip(("doc_groups", "doc_languages"), zip(*self._labels, strict=True), strict=False):
            _append(self._create(name, "int32", 1 << 20), np.array(values, np.int32))
        files = sha256_files(self._path)
        for name in files:
            fsync_file(self._path / name)
        return {"tokens": self._offsets[-1], "documents": len(self._offsets) - 1, "files": files}

    def _create(self, name: str, dtype: str, shard: int) -> Any:
        checked = ZstdCodec(level=3, checksum=True)
        return self._group.create_array(
            name, shape=(0,), chunks=(CHUNK,), shards=(shard,), dtype=dtype, compressors=[checked]
        )

    def _flush(self, *, whole_shards: bool) -> None:
        tokens = np.concatenate([*self._waiting, np.empty(0, self._tokens.dtype)])
        ready = len(tokens) // self._shard_tokens * self._shard_tokens if whole_shards else len(tokens)
        _append(self._tokens, tokens[:ready])
        self._waiting, self._waiting_tokens = [tokens[ready:]], len(tokens) - ready


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """The tokens of one stream and split; safe to pickle and to use after a fork."""

    path: Path
    length: int
    _opened: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)
    _read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.length

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.length)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Returns tokens start to stop as int64 (stop - start,).

        Raises:
            IndexError: they do not lie within the stream.
        """
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"{self.path}: must read within 0 to {self.length}, but asked for {start} to {stop}")
        read = self._reader()
        first = start // CHUNK
        parts = [read(number) for number in range(first, -(-stop // CHUNK))] or [np.empty(0, np.uint16)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined[start - first * CHUNK : stop - first * CHUNK].astype(np.int64)

    def doc_offsets(self) -> np.ndarray:
        """Returns where documents begin, and where the last one ends, as int64 (documents + 1,)."""
        return np.asarray(zarr.open_array(self.path / "doc_offsets", mode="r")[:])

    def ids(self, start: int, stop: int) -> np.ndarray:
        """Returns document, group and language of tokens start to stop as int32 (3, stop - start).

        Documents are numbered through the stream. Where tokenize packed no pairs, each is a group of its own.
        """
        offsets, groups, languages = self._documents()
        documents = np.searchsorted(offsets, np.arange(start, stop), side="right") - 1
        return np.stack([documents, groups[documents], languages[documents]]).astype(np.int32)

    def _documents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if "documents" not in self._read:
            count = zarr.open_array(self.path / "doc_offsets", mode="r").shape[0] - 1
            labels = [
                np.asarray(zarr.open_array(self.path / name, mode="r")[:]) if (self.path / name).is_dir() else usual
                for name, usual in (("doc_groups", np.arange(count)), ("doc_languages", np.zeros(count, np.int32)))
            ]
            self._read["documents"] = (self.doc_offsets(), *labels)
        found: tuple[np.ndarray, np.ndarray, np.ndarray] = self._read["documents"]
        return found

    def unigram_entropy(self) -> float:
        """Returns the entropy of the tokens' own frequencies, in nats a token: the loss of the best constant guess."""
        counts = np.zeros(0, np.int64)
        for start in range(0, self.length, CHUNK):
            found = np.bincount(self.tokens(start, min(start + CHUNK, self.length)))
            longer = max(len(counts), len(found))
            counts = np.pad(counts, (0, longer - len(counts))) + np.pad(found, (0, longer - len(found)))
        share = counts[counts > 0] / max(1, self.length)
        return float(-(share * np.log(share)).sum())

    def _reader(self) -> Any:
        """Returns this process's chunk reader: zarr's threads and open files do not survive a fork."""
        if os.getpid() not in self._opened:
            path = self.path
            stored = zarr.open_array(path / "tokens", mode="r")

            @lru_cache(maxsize=_CACHED_CHUNKS)
            def read(number: int) -> np.ndarray:
                chunk = np.asarray(stored[number * CHUNK : (number + 1) * CHUNK])
                if not chunk.any():  # what zarr gives for a file that is gone; a real chunk ends documents
                    raise ValueError(f"{path}: chunk {number} must hold tokens, but is missing; run tokenize again")
                return chunk

            self._opened.clear()
            self._opened[os.getpid()] = read
        return self._opened[os.getpid()]


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What tokenize committed: manifest and streams."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def mixture(self) -> dict[str, float]:
        """Stream -> share of the training tokens; sums to 1."""
        return dict(self.manifest["mixture"])

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return int(self.manifest["vocab_size"])

    @property
    def eod_id(self) -> int:
        """The id that ends every document."""
        return int(self.manifest["eod_id"])

    def stream(self, name: str, split: str) -> TokenStream:
        """Returns the tokens of a stream in a split, train or valid.

        Raises:
            ValueError: there is no such stream or split.
        """
        known = self.manifest["streams"]
        if name not in known or split not in known[name]:
            raise ValueError(f"{self.folder}: must hold {name} {split}, but has {', '.join(known)}, train and valid")
        entry = known[name][split]
        return TokenStream(path=self.folder / entry["path"], length=entry["tokens"])


def open_shards(folder: Path, *, share: tuple[int, int] = (0, 1)) -> Shards:
    """Opens what tokenize committed, and hashes its files.

    Args:
        folder: where tokenize wrote.
        share: (this process, all processes) that open the same folder at once and divide the hashing.

    Raises:
        ValueError: nothing was committed, or a file is missing, added or changed: zarr alone would read zeros.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: must hold a committed {MANIFEST}, but has none; run tokenize again")
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != 1:
        found = manifest.get("format")
        raise ValueError(f"{folder / MANIFEST}: must have format 1, but has {found}; run tokenize again")
    for splits in manifest["streams"].values():
        for entry in splits.values():
            _check_files(folder / entry["path"], entry["files"], share=share)
    if sha256_file(folder / "tokenizer" / "tokenizer.json") != manifest["tokenizer_digest"]:
        raise ValueError(f"{folder}: the tokenizer must be the one the shards were made with; run tokenize again")
    return Shards(folder=folder, manifest=manifest)


def _check_files(path: Path, files: Mapping[str, str], *, share: tuple[int, int]) -> None:
    rank, size = share
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    wrong = sorted(found ^ files.keys())
    if not wrong:
        wrong = [name for name in sorted(files)[rank::size] if sha256_file(path / name) != files[name]]
    if wrong:
        raise ValueError(f"{path}: must be as committed, but {wrong[0]} is missing or changed; run tokenize again")


def _append(stored: Any, values: np.ndarray) -> None:
    if len(values):
        start = stored.shape[0]
        stored.resize((start + len(values),))
        stored[start:] = values


def _reopened(path: Path, length: int) -> TokenStream:
    return TokenStream(path=path, length=length)
