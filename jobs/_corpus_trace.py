"""Where a token comes from: its document, record, source, file, place, licence and digest, with the text."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs._corpus import files
from jobs._corpus_view import require_record
from jobs._run import PlanningError
from slurm.files import read_json

_ID = re.compile(r"[0-9a-f]{24}")
_MOST = 2000  # characters of text shown


def trace(root: Path, stream: str, *, place: str, split: str, document: bool) -> int:
    """Prints where a token, a document or a record of a stream comes from.

    Args:
        root: results/<run>.
        stream: such as text.en.
        place: a token's number, a document's or a record's id.
        split: train or valid.
        document: whether `place` is a document's number.

    Raises:
        PlanningError: there is no such stream, token, document or record.
    """
    if _ID.fullmatch(place):
        identity: str | None = place
        said = [f"record {place}"]
    elif place.isascii() and place.isdigit():
        require_record(root, "tokenize")
        identity, said = _located(root / "tokenize", stream, split=split, number=int(place), document=document)
    else:
        raise PlanningError([f"{place}: must be a number or the 24 digits of a record's id; change it"])
    if identity and not _ID.fullmatch(identity):
        said += _told_of_cell(root, identity)
    elif identity:
        prepare = require_record(root, "prepare")
        found, name, number = _found(root / "prepare" / "records", stream, split=split, identity=identity)
        said += [f"line {number} of {root / 'prepare' / 'records' / name}", *_told(found, prepare, root)]
    print("\n".join(said))
    return 0


def _located(folder: Path, stream: str, *, split: str, number: int, document: bool) -> tuple[str | None, list[str]]:
    """Returns the id of a token's record, None for padding, and what is known of the token."""
    from corpus.shards import open_shards

    try:
        shards = open_shards(folder)
        known = shards.manifest["streams"]
        if stream not in known:
            raise PlanningError([f"{stream}: must be a stream of the run: {', '.join(sorted(known))}; change it"])
        tokens = shards.stream(stream, split)
        token = _first_token(tokens, number) if document else number
        found = tokens.locate(token)
        value = int(tokens.tokens(token, token + 1)[0])
    except (ValueError, IndexError) as error:
        raise PlanningError([str(error)]) from error
    said = [
        f"token {token:,} of {stream} ({split}), {value}: {_written(folder / 'tokenizer', value)!r}",
        f"document {found.document:,} of shard {found.shard}",
    ]
    if found.record is None:
        return None, [*said, "padding, which comes from no record"]
    return found.record, [*said, f"record {found.record}"]


def _first_token(tokens: Any, number: int) -> int:
    offsets = tokens.doc_offsets()
    if not 0 <= number < len(offsets) - 1:
        raise IndexError(f"document {number}: must be one of 0 to {len(offsets) - 2}; change it")
    return int(offsets[number])


def _written(folder: Path, value: int) -> str:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    return str(Tokenizer.from_file(str(path)).decode([value], skip_special_tokens=False)) if path.is_file() else "?"


def _found(folder: Path, stream: str, *, split: str, identity: str) -> tuple[dict[str, Any], str, int]:
    """Returns a record by its id, its file and its line; a stream of pairs has those of its languages."""
    for path in _files(folder, stream, split):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if identity.encode() in line:
                    record = json.loads(line)
                    if str(record.get("id")) == identity:
                        return record, path.name, number
    told = f"{identity}: must be a record of {stream}.{split} in {folder}, but is not; name another stream or split"
    raise PlanningError([told])


def _files(folder: Path, stream: str, split: str) -> Iterator[Path]:
    name, _, languages = stream.partition(".")
    streams = [stream, *(f"{name}.{language}" for language in languages.split("+") if "+" in languages)]
    yield from (path for each in streams if (path := folder / f"{each}.{split}.jsonl").is_file())


def _told_of_cell(root: Path, place: str) -> Iterator[str]:
    """Yields what is known of the matrix of a whole cell, which is no record of prepare's."""
    name = place.rpartition(", row ")[0]
    known = read_json(root / "tokenize" / "record.json")["details"].get("cells", [])
    source: Mapping[str, Any] = next((each for each in known if each["name"] == name), {})
    told = {"file": source.get("path"), "sha256 of the file": source.get("sha256"), "licence": source.get("license")}
    yield from (f"  {name}: {value}" for name, value in told.items() if value)


def _told(record: Mapping[str, Any], prepare: Mapping[str, Any], root: Path) -> Iterator[str]:
    """Yields what is known of a record, and its text."""
    from corpus.modality import modality
    from corpus.symbols import plain

    location = record.get("location") or {}
    offsets = location.get("offsets")
    source: Mapping[str, Any] = next(
        (each for each in prepare["details"]["sources"] if each["name"] == record.get("source")), {}
    )
    known = {
        "source": record.get("source"),
        "file": location.get("file"),
        "sha256 of the file": files(root, str(record.get("source"))).get(str(location.get("file")))
        or source.get("sha256"),
        "place in it": location.get("record"),
        "bytes": f"{offsets[0]:,} to {offsets[1]:,}" if offsets else None,
        "licence": record.get("license") or source.get("license"),
        "date": record.get("date"),
        "language": record.get("language"),
        "names": ", ".join(record.get("ids") or ()),
        "group": record.get("group"),
        "sha256 of the content": record.get("digest"),
    }
    yield from (f"  {name}: {value}" for name, value in known.items() if value)
    text = plain(modality(record["modality"]).render(record["content"]))
    yield text if len(text) <= _MOST else f"{text[:_MOST]}... ({len(text):,} characters in all)"
