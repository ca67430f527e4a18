"""First weights out of a Hugging Face folder, cut for one rank: each rank reads only its own rows and columns.

Only safetensors are read: nothing in such a file can run. What was read has a digest, which is a part of the recipe.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.transformer.module import MegatronModule
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from parallelism import hf, hf_config, model
from parallelism.hf import Piece, Table
from parallelism.hf_config import CONFIG, Described, HFError
from parallelism.presets import ModelShape
from slurm.files import digest, sha256_file

_BESIDE = re.compile(r"rotary_emb\.inv_freq$")
"""What older files hold beside the weights."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Hugging Face folder that a training starts from.

    Attributes:
        files: SHA-256 of config.json and of each file of weights.
        digest: of `files`.
    """

    folder: Path
    described: Described
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """What identifies all of it."""
        return digest(dict(self.files))


def find(folder: Path) -> Source:
    """Reads what a folder is and hashes it; ranks that have joined share the hashing, and every one must call it.

    Raises:
        HFError: no model of a known type, or none in safetensors.
    """
    described = hf_config.read(folder)
    names = [CONFIG, *hf_config.weight_files(folder)]
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    parts = [{name: sha256_file(folder / name) for name in names[rank::size]}]
    if size > 1:
        parts *= size
        dist.all_gather_object(parts, parts[rank])
    return Source(
        folder=folder, described=described, files={name: found for part in parts for name, found in part.items()}
    )


def require_same(source: Source | None, *, digest: str) -> None:
    """Checks that a source is the one whose digest a recipe names; an empty digest names none.

    Raises:
        HFError: it is another one.
    """
    found = source.digest if source else ""
    if found != digest:
        raise HFError(
            f"the first weights must come from the folder of digest {digest[:12] or 'none'}, which the recipe names, "
            f"but are given from {source.folder if source else 'no folder'}, of digest {found[:12] or 'none'}; "
            "make the recipe and read the folder at one time"
        )


def require(source: Source, *, shape: ModelShape, vocab_size: int) -> None:
    """Checks that a source is a model of that size, with no more tokens.

    Raises:
        HFError: it is another one.
    """
    problems = hf_config.differences(source.described, wanted=shape, vocab_size=vocab_size)
    if problems:
        raise HFError(f"{source.folder}: must be the model that is trained, but " + "; ".join(problems))


def require_tokens(source: Source, *, tokenizer: Path) -> None:
    """Checks that a tokenizer gives each token of the source's own one the same id; it may have more.

    Raises:
        HFError: it does not.
    """
    own = source.folder / tokenizer.name
    if not own.is_file():
        return
    theirs, ours = (Tokenizer.from_file(str(path)).get_vocab() for path in (own, tokenizer))
    moved = [token for token, number in theirs.items() if ours.get(token) != number]
    if moved:
        first = min(moved, key=theirs.__getitem__)
        raise HFError(
            f"{source.folder}: every token must keep its id in training, but {len(moved)} of {len(theirs)} do not, "
            f"as {first!r}, {theirs[first]} there and {ours.get(first, 'none')} in the shards; give tokenize this "
            "folder as its tokenizer"
        )


@torch.no_grad()
def fill(chunk: MegatronModule, *, source: Source) -> None:
    """Overwrites this rank's part of a model with its weights; rows beyond its vocabulary stay as they are.

    Raises:
        HFError: a tensor is missing, unknown, of another size, or means what this decoder has not.
    """
    described = source.described
    with ExitStack() as stack:
        files = _open(source.folder, stack)
        wanted = hf.table(described.shape, vocab_size=described.vocab_size, experts=hf.experts_of(files))
        problems = [*_problems(files, wanted, described=described)]
        if problems:
            shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
            raise HFError(f"{source.folder}: must hold the tensors of its {CONFIG}, but {shown}; fetch it again")
        for name, whole_columns, offsets, local in model.parts(chunk):
            if local.ndim > 1:
                _require_columns(files, wanted[name], columns=whole_columns)
            _fill(local, wanted[name], files, offsets=offsets)


def _require_columns(files: Mapping[str, Any], pieces: tuple[Piece, ...], *, columns: int) -> None:
    for name in {piece.name for piece in pieces}:
        shape = files[name].get_slice(name).get_shape()
        if shape[-1] != columns:
            raise HFError(f"{name} must have {columns} columns, but has the shape {shape}; fetch the folder again")


def _fill(local: Tensor, pieces: tuple[Piece, ...], files: Mapping[str, Any], *, offsets: tuple[int, ...]) -> None:
    """Reads the rows of `local`, which lies at `offsets` of the whole that the pieces are."""
    first, last = offsets[0], offsets[0] + local.shape[0]
    columns = tuple(slice(left, left + width) for left, width in zip(offsets[1:], local.shape[1:], strict=True))
    above = 0
    for piece in pieces:
        low, high = max(first, above), min(last, above + piece.rows)
        if low < high:
            rows = slice(piece.start + low - above, piece.start + high - above)
            leading = () if piece.expert is None else (piece.expert,)
            local[low - first : high - first] = files[piece.name].get_slice(piece.name)[(*leading, rows, *columns)]
        above += piece.rows


def _open(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Returns the open file of each tensor."""
    opened = []
    for name in hf_config.weight_files(folder):
        try:
            opened.append(stack.enter_context(safe_open(folder / name, framework="pt")))
        except SafetensorError as error:
            raise HFError(
                f"{folder / name}: must be whole safetensors, but is not ({error}); fetch it again"
            ) from error
    return {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping


def _problems(files: Mapping[str, Any], wanted: Table, *, described: Described) -> Iterator[str]:
    """Yields each difference between the tensors that there are and those that there must be."""
    rows = hf.rows_of(wanted)
    stacked = {piece.name for pieces in wanted.values() for piece in pieces if piece.expert is not None}
    for name in rows:
        if name not in files:
            yield f"{name} is missing"
            continue
        shape = files[name].get_slice(name).get_shape()
        if shape[int(name in stacked)] != rows[name]:
            yield f"{name} has the shape {shape}, not {rows[name]} rows"
    for name in sorted(set(files) - set(rows)):
        yield from _unknown(name, files[name], described=described)


def _unknown(name: str, file: Any, *, described: Described) -> Iterator[str]:
    """Yields why a tensor that the table does not name may not be left out."""
    tied = name == "lm_head.weight" and described.shape.share_embeddings_and_output_weights
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    after = layer is not None and int(layer[1]) >= described.shape.num_layers  # predicts more than the next token
    if tied or after or _BESIDE.search(name):
        return
    if name.endswith(".o_proj.bias"):
        if bool(file.get_tensor(name).any()):
            yield f"{name} must be 0, as this decoder has no such bias, but is not"
        return
    yield f"{name} is unknown"
