"""Token shards: one zarr v3 group for each range of records, and a manifest that makes them one committed whole.

A shard is written by one worker, beside its place, and renamed into it when all of it is on disk. The manifest is
written last and holds the SHA-256 of every file: what it does not tell of, or tells otherwise, is refused.
"""

import importlib
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from corpus.shardfile import CHUNK, ROWS, write_array
from corpus.tokenstream import TokenStream, token_stream
from slurm.files import digest, fsync_file, fsync_folder, read_json, sha256_file, sha256_files, write_json

MANIFEST = "manifest.json"
FORMAT = 2
_HASHERS, _SYNCED = 4, 8


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is stored of a shard.

    Attributes:
        tokens: padding included.
        offsets: where every piece begins, and the end: (pieces + 1,).
        records: the id of each piece's record, (pieces, 12) uint8.
        labels: group and language of each piece, (pieces, 2), in streams of pairs.
        lengths: of each piece without the padding behind it, where documents are packed.
        breaks: tokens that do not follow from the one before, though no document ends there.
    """

    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    records: NDArray[np.uint8]
    labels: NDArray[np.int32] | None = None
    lengths: NDArray[np.int64] | None = None
    breaks: NDArray[np.int64] | None = None


def token_type(vocab_size: int) -> type[np.unsignedinteger]:
    """Returns the least type that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def write_shard(path: Path, content: Content) -> dict[str, Any]:
    """Writes a shard, all of it or nothing; returns what its entry tells of its arrays and the digest of every file."""
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    _write_arrays(new, content)
    files = sha256_files(new)
    folders = [new, *(found for found in new.rglob("*") if found.is_dir())]
    with ThreadPoolExecutor(_SYNCED) as pool:  # a disk takes many at a time
        list(pool.map(fsync_file, [new / name for name in files]))
        list(pool.map(fsync_folder, folders))
    shutil.rmtree(path, ignore_errors=True)
    new.rename(path)
    fsync_folder(path.parent)
    return {
        "tokens": len(content.tokens),
        "pieces": len(content.offsets) - 1,
        "breaks": 0 if content.breaks is None else len(content.breaks),
        "labelled": content.labels is not None,
        "packed": content.lengths is not None,
        "files": files,
    }


def _write_arrays(path: Path, content: Content) -> None:
    import zarr

    group = zarr.create_group(path, zarr_format=3)
    write_array(group, "tokens", values=content.tokens, chunk=CHUNK)
    write_array(group, "doc_offsets", values=content.offsets, chunk=ROWS)
    write_array(group, "doc_ids", values=content.records, chunk=ROWS)
    if content.labels is not None:
        write_array(group, "doc_groups", values=content.labels[:, 0], chunk=ROWS)
        write_array(group, "doc_languages", values=content.labels[:, 1], chunk=ROWS)
    if content.lengths is not None:
        write_array(group, "doc_lengths", values=content.lengths.astype(np.int32), chunk=ROWS)
    if content.breaks is not None and len(content.breaks):
        write_array(group, "breaks", values=content.breaks, chunk=ROWS)


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
    def phases(self) -> dict[str, dict[str, Any]]:
        """Phase -> mixture, max_epochs and notes; `main` is the phase of `mixture`."""
        return dict(self.manifest["phases"])

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return int(self.manifest["vocab_size"])

    @property
    def eod_id(self) -> int:
        """The id that ends every document."""
        return int(self.manifest["eod_id"])

    @property
    def pack_length(self) -> int | None:
        """Tokens of the windows that documents were packed into; None where they stand one after another."""
        found: int | None = self.manifest["pack_length"]
        return found

    @property
    def train_tokens(self) -> dict[str, int]:
        """Stream -> tokens to train on, padding left out."""
        entries = {name: splits["train"] for name, splits in self.manifest["streams"].items()}
        return {name: entry["tokens"] - entry.get("padding", 0) for name, entry in entries.items()}

    def stream(self, name: str, split: str) -> TokenStream:
        """Returns the tokens of a stream in a split, train or valid.

        Raises:
            ValueError: there is no such stream or split.
        """
        known = self.manifest["streams"]
        if name not in known or split not in known[name]:
            raise ValueError(f"{self.folder}: must hold {name} {split}, but has {', '.join(known)}, train and valid")
        entry = known[name][split]
        if entry.get("kind", "tokens") == "cells":
            cells = importlib.import_module("corpus.cells.stream")  # a stream of another kind, with the same methods
            return cast(TokenStream, cells.CellStream.open(self.folder, entry, manifest=self.manifest))
        return token_stream(self.folder, entry, pad_id=int(self.manifest["pad_id"]))


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
    manifest = _manifest(folder / MANIFEST)
    if not (folder / "tokenizer").is_dir() or sha256_files(folder / "tokenizer") != manifest["tokenizer_files"]:
        raise ValueError(f"{folder}: the tokenizer must be the one the shards were made with; run tokenize again")
    committed = {entry["path"]: entry["files"] for entry in committed_files(manifest)}
    _require_no_more(folder, committed)
    rank, size = share
    mine = sorted(committed)[rank::size]
    with ThreadPoolExecutor(min(_HASHERS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(lambda path: _check_files(folder / path, committed[path]), mine):
            pass
    return Shards(folder=folder, manifest=manifest)


def committed_files(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields what the manifest tells of every folder of files: its path, and its files with their digests."""
    for splits in manifest["streams"].values():
        for entry in splits.values():
            yield from entry.get("shards") or [entry]


def commit(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest, which makes all that it tells of a commit; returns it with its format and digest."""
    told = {"format": FORMAT, **manifest, "tokenizer_files": sha256_files(folder / "tokenizer")}
    told["digest"] = digest(told)
    write_json(folder / MANIFEST, told)
    return told


def _manifest(path: Path) -> dict[str, Any]:
    """Returns a manifest that says what was written into it."""
    manifest = read_json(path)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: must have format {FORMAT}, but has {found}; run tokenize again")
    if manifest.pop("digest", None) != digest(manifest):
        raise ValueError(f"{path}: must match its own digest, but does not; run tokenize again")
    return dict(manifest)


def _require_no_more(folder: Path, committed: Mapping[str, Any]) -> None:
    """Refuses folders that hold what nobody committed."""
    above = {str(parent) for path in committed for parent in Path(path).parents if parent.parts}
    there = {f"{parent}/{found.name}" for parent in above for found in (folder / parent).glob("*")}
    more = sorted(there - committed.keys() - above)
    if more:
        raise ValueError(f"{folder}: must be as committed, but {more[0]} was added; run tokenize again")


def _check_files(path: Path, files: Mapping[str, str]) -> None:
    found = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir() or file.is_symlink()}
    wrong = sorted(found ^ files.keys()) or [name for name in sorted(files) if sha256_file(path / name) != files[name]]
    if wrong:
        raise ValueError(f"{path}: must be as committed, but {wrong[0]} is missing or changed; run tokenize again")
