"""Checkpoints that are whole or not there: written aside, hashed by their writers, verified before they are read.

A checkpoint is a folder step_00000200 with Megatron's torch_dist files and manifest.json, which lists each file's
SHA-256 and size. It appears under its name by one rename, after everything in it is on disk. docs/checkpoints.md tells
the whole story.
"""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelLoadStrategyWrapper,
    FullyParallelSaveStrategyWrapper,
)
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from parallelism._patches import hosted_writer, saved_without_manager
from slurm.files import digest, fsync_file, fsync_folder, read_json, sha256_file, write_json

MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"step_(\d{8})")
_ASIDE, _UNFINISHED = "bad-", "tmp-"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint: its folder, the optimizer steps done, and the digest of its manifest."""

    path: Path
    step: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found: the newest good checkpoint, if any, and why newer ones were set aside."""

    checkpoint: Checkpoint | None
    refused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A checkpoint on its way: every rank knows what it writes, and writes.

    Attributes:
        path: where the files lie until they are whole.
        committed: where they will lie.
        files: what this rank wrote, each with its digest and size, once it is on disk.
        finish: what Megatron does when all ranks have written.
    """

    path: Path
    committed: Path
    step: int
    files: "Future[dict[str, dict[str, Any]]]"
    finish: Callable[[], None]


def begin(folder: Path, *, step: int, states: dict[str, Any], background: bool, live: Iterable[Tensor] = ()) -> Writing:
    """Begins to save `states` as the checkpoint of `step` in `folder`; every rank must call it, and then `commit`.

    Args:
        folder: where the checkpoints of one training lie.
        step: optimizer steps done.
        states: Megatron's sharded states.
        background: whether to copy them to host memory and write from a thread, so that training can go on; otherwise
            everything is written on return.
        live: the tensors that training changes; what Megatron has copied already is not copied again.
    """
    unfinished = Path(_from_rank_0(str(folder / f"{_UNFINISHED}{step}-{uuid.uuid4().hex[:12]}")))
    if dist.get_rank() == 0:
        unfinished.mkdir(parents=True)
    dist.barrier()
    with saved_without_manager(), _told_as_disk_error(folder, step):
        request = dist_checkpointing.save(
            states, str(unfinished), _save_strategy(), async_sharded_save=True, async_strategy="mcore"
        )
    changing = frozenset(tensor.untyped_storage().data_ptr() for tensor in live) if background else frozenset()
    write = partial(_write, unfinished, write=hosted_writer(request, changing=changing), rank=dist.get_rank())
    workers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
    files = workers.submit(write)
    workers.shutdown(wait=not background)
    return Writing(
        path=unfinished,
        committed=folder / f"step_{step:08d}",
        step=step,
        files=files,
        finish=partial(_finish, tuple(request.finalize_fns)),
    )


def commit(writing: Writing, *, facts: Mapping[str, Any]) -> Checkpoint:
    """Waits until all ranks have written and makes the checkpoint appear under its name; every rank must call it.

    Args:
        writing: what `begin` returned.
        facts: what the manifest tells about the run besides the files (JSON values).

    Raises:
        OSError: a rank could not write its part, or rank 0 could not commit; on every rank.
    """
    wait([writing.files])
    with _told_as_disk_error(writing.committed.parent, writing.step):
        writing.finish()
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, _own_files(writing))
        if None in gathered:
            raise CheckpointException("hash", {})
    facts = {
        "format": FORMAT,
        "step": writing.step,
        **facts,
        "files": {name: entry for part in gathered for name, entry in part.items()},
    }
    manifest = {**facts, "digest": digest(facts)}
    problem = _from_rank_0(_commit(writing.path, writing.committed, manifest) if dist.get_rank() == 0 else None)
    if problem:
        raise OSError(
            f"{writing.committed}: must appear under that name, but rank 0 could not commit it: {problem}; make room "
            "on that disk or mend it, and run again"
        )
    return Checkpoint(path=writing.committed, step=writing.step, digest=manifest["digest"])


def _write(folder: Path, *, write: Callable[[], None], rank: int) -> dict[str, dict[str, Any]]:
    """Writes this rank's shards, makes them durable and hashes them."""
    write()
    return _hashed(path for path in folder.glob(f"__{rank}_*"))


def _finish(steps: Sequence[Callable[[], None]]) -> None:
    for step in steps:
        step()


def _own_files(writing: Writing) -> dict[str, dict[str, Any]] | None:
    """Returns the digests of this rank's files, on rank 0 the common ones too; None where one could not be read."""
    try:
        shards = writing.files.result()
        common = [path for path in writing.path.iterdir() if not path.name.startswith("__")]
        return {**shards, **_hashed(common)} if dist.get_rank() == 0 else shards
    except OSError:
        return None


def _hashed(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    found = sorted(paths)
    for path in found:
        fsync_file(path)
    return {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in found}


@contextlib.contextmanager
def _told_as_disk_error(folder: Path, step: int) -> Iterator[None]:
    """Turns torch's exception, which is no Exception and hides the cause, into one that says what to do."""
    try:
        yield
    except CheckpointException as error:
        free = shutil.disk_usage(folder).free / 1e9
        raise OSError(
            f"{folder}: must take the checkpoint of step {step}, but not every rank could write its part, and "
            f"{free:.2f} GB are free on that disk; make room or mend it, and run again"
        ) from error


def newest(folder: Path, *, identity: str | None = None) -> Found:
    """Finds the newest checkpoint of `folder` whose every byte is as it was written; every rank must call it.

    One of another training is as bad as a damaged one where an `identity` is asked for.

    Nothing is unpickled before that is known. A damaged one is renamed to bad-..., never deleted, and the one before it
    is tried.
    """
    refused: list[str] = []
    for name in _from_rank_0([path.name for path in reversed(_committed(folder))]):
        path = folder / name
        problems = _verify(path, identity)
        if not problems:
            manifest = read_json(path / MANIFEST)
            return Found(
                checkpoint=Checkpoint(path=path, step=manifest["step"], digest=manifest["digest"]),
                refused=tuple(refused),
            )
        refused.append(f"{path}: {problems[0]}")
        dist.barrier()
        if dist.get_rank() == 0:
            path.rename(folder / f"{_ASIDE}{name}-{uuid.uuid4().hex[:12]}")
            fsync_folder(folder)
    return Found(checkpoint=None, refused=tuple(refused))


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns what the manifest of a checkpoint tells about the run besides the files."""
    return dict(read_json(checkpoint.path / MANIFEST))


def load(checkpoint: Checkpoint, *, states: dict[str, Any]) -> dict[str, Any]:
    """Returns `states` filled from a checkpoint that `newest` found; every rank must call it.

    Raises:
        RuntimeError: the environment forces torch to unpickle anything.
    """
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        raise RuntimeError(
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD must not be set, but is: loading could run code from a file; unset it"
        )
    loaded: dict[str, Any] = dist_checkpointing.load(states, str(checkpoint.path), _load_strategy(checkpoint.path))
    return loaded


def remove_unfinished(folder: Path) -> None:
    """Removes what saves and removals that were cut short have left; rank 0 does it, the others pass."""
    if dist.get_rank() == 0:
        for path in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)


def prune(folder: Path, *, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints; rank 0 does it, the others pass."""
    if dist.get_rank() == 0:
        for path in _committed(folder)[:-keep]:
            # Under this name a removal that is cut short can never look like a checkpoint.
            path.rename(folder / f"{_UNFINISHED}{path.name}-{uuid.uuid4().hex[:12]}")
    remove_unfinished(folder)


def _save_strategy() -> Any:
    strategy = dist_checkpointing.serialization.get_default_save_sharded_strategy()
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    return FullyParallelSaveStrategyWrapper(strategy, group) if group.size() > 1 else strategy


def _load_strategy(path: Path) -> Any:
    strategy = dist_checkpointing.serialization.get_default_load_sharded_strategy(str(path))
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    return FullyParallelLoadStrategyWrapper(strategy, group) if group.size() > 1 else strategy


def _commit(unfinished: Path, committed: Path, manifest: Mapping[str, Any]) -> str | None:
    """Makes a checkpoint appear under its name; returns why it could not, which every rank must learn."""
    try:
        write_json(unfinished / MANIFEST, manifest)
        fsync_folder(unfinished)
        unfinished.rename(committed)
        fsync_folder(committed.parent)
    except OSError as error:
        return str(error)
    return None


def _committed(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def _verify(path: Path, identity: str | None) -> list[str]:
    """Returns every difference between a checkpoint and its manifest; ranks share the hashing and get one answer."""
    try:
        files = _manifest_files(path, identity)
    except (OSError, ValueError, KeyError, TypeError) as error:
        own = [f"{MANIFEST}: {error}"]
    else:
        rank, size = dist.get_rank(), dist.get_world_size()
        own = [problem for name in sorted(files)[rank::size] for problem in _file_problems(path / name, files[name])]
        own += [
            f"{name}: not in the manifest"
            for name in sorted({item.name for item in path.iterdir()} - {*files, MANIFEST})
        ]
    gathered: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, own)
    return [problem for part in gathered for problem in part]


def _manifest_files(path: Path, identity: str | None) -> dict[str, dict[str, Any]]:
    manifest = dict(read_json(path / MANIFEST))
    facts = {key: value for key, value in manifest.items() if key != "digest"}
    if manifest["digest"] != digest(facts) or manifest["format"] != FORMAT:
        raise ValueError("its digest does not fit its content")
    if path.name != f"step_{manifest['step']:08d}" or identity not in (None, manifest["identity"]):
        raise ValueError("it is of another step or another training")
    files: dict[str, dict[str, Any]] = manifest["files"]
    return files


def _file_problems(path: Path, entry: Mapping[str, Any]) -> Iterator[str]:
    if not path.is_file():
        yield f"{path.name}: missing"
    elif path.stat().st_size != entry["bytes"]:
        yield f"{path.name}: {path.stat().st_size} bytes instead of {entry['bytes']}"
    elif sha256_file(path) != entry["sha256"]:
        yield f"{path.name}: its bytes are not those that were written"


def _from_rank_0[Value](value: Value) -> Value:
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
