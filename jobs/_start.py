"""Where a training gets its first weights from: what planning checks of a Hugging Face folder, and its reading."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parallelism import hf_config
from parallelism.presets import ModelShape


def files(folder: Path) -> Iterator[Path]:
    """Yields the files that the first weights come from, as far as they are there."""
    yield from (path for path in (folder / hf_config.CONFIG, *sorted(folder.glob("*.safetensors"))) if path.is_file())


def problems(folder: Path, *, shape: ModelShape, tokenize: Any) -> Iterator[str]:
    """Yields why a training of `shape` on the shards of the section `tokenize` cannot start from a folder."""
    try:
        found = hf_config.read(folder)
        hf_config.weight_files(folder)
    except hf_config.HFError as error:
        yield f"start_from: {error}"
        return
    differences = hf_config.differences(found, wanted=shape, vocab_size=getattr(tokenize, "vocab_size", None))
    if differences:
        yield f"start_from: {folder} must be the model that is trained, but {'; '.join(differences)}; change either"
    if tokenize is not None and tokenize.tokenizer is None:
        yield (
            f"start_from: must be trained on with its own tokenizer, but tokenize makes a new one; set "
            f"tokenize.tokenizer to {folder}"
        )


def read(folder: Path, *, tokenizer: Path) -> Any:
    """Returns the folder as the trainer takes it; every rank must call it, after they have joined.

    Raises:
        HFError: it is no model that can be read, or its tokens have other ids in the shards.
    """
    from parallelism import importer

    source = importer.find(folder)
    importer.require_tokens(source, tokenizer=tokenizer)
    return source


def inputs(source: Any) -> dict[str, str]:
    """Returns the digests of what was read of a source, by path; nothing without one."""
    return {str(source.folder / name): digest for name, digest in source.files.items()} if source else {}


def told(source: Any) -> dict[str, Any]:
    """Returns what a checkpoint's manifest tells of a source; nothing without one."""
    return {"start_from": {"folder": str(source.folder), "files": dict(source.files)}} if source else {}
