"""Papers and registered trials: documents with the names the world knows them by, made records."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from corpus import document
from corpus.clean import check_language, clean_line, is_missing, visible
from corpus.modality import Item, Record, SourceError, UnusableError, reject
from slurm.files import digest

_TOO_DEEP = UnusableError("too_deep", "must be nested less deep than Python can follow; flatten it")
MOST_CHARACTERS = 20_000_000  # of one document
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?\s*(10\.\d{4,9}/\S+)", re.IGNORECASE)
_PMCID = re.compile(r"(?:PMC)?0*(\d{1,9})(?:\.\d+)?", re.IGNORECASE)
_EMPTY_LINES = re.compile(r"\n{3,}")
_TRIAL = re.compile(r"NCT\d{8}")
_WITHDRAWN = re.compile(
    r"^\W*(retracted|withdrawn|retraction|retracted article|temporary removal|removed|철회된 논문|논문 철회|게재 철회)"
    r"\s*[:\uff1a\]\-–]",
    re.IGNORECASE,
)


def record(
    facts: Mapping[str, Any],
    sections: Iterable[tuple[str, str]],
    *,
    where: str,
    language: str | None,
    offsets: tuple[int, int] | None = None,
    ids: Iterable[str] = (),
    date: str | None = None,
    license: str | None = None,  # noqa: A002 - the record's own word
    group: str | None = None,
    pair: str | None = None,
) -> Record:
    """Returns a document as a record; its group is its first id, or its content.

    Raises:
        UnusableError: it is empty, gigantic, visibly in another language, or holds what cannot be written.
    """
    written = [(title, tidy(visible(text))) for title, text in sections]
    told = {name: visible(str(value)) for name, value in facts.items() if not is_missing(value)}
    size = sum(len(title) + len(text) for title, text in written)
    if size > MOST_CHARACTERS:
        raise UnusableError("too_large", f"must have at most {MOST_CHARACTERS} characters, but has {size}; split it")
    content = document.make(told, written)
    if language is not None:
        check_language(" ".join([*content["facts"].values(), *(text for _, text in content["sections"])]), language)
    known = tuple(dict.fromkeys(clean_line(name) for name in ids))
    return Record(
        content=content,
        group=clean_line(group) if group else next(iter(known), None) or digest(content),
        language=language,
        pair=pair,
        where=where,
        offsets=offsets,
        date=date,
        license=license,
        ids=known,
    )


def records[Raw](
    found: Iterable[tuple[str, Raw]], make: Callable[[Raw, str], Iterable[Item]], *, excerpt: Callable[[Raw], object]
) -> Iterator[Item]:
    """Turns each (place, raw item) into records with `make`; what it refuses becomes a Reject at that place.

    Raises:
        SourceError: the whole file is unusable.
    """
    for where, raw in found:
        try:
            yield from make(raw, where)
        except SourceError:
            raise
        except UnusableError as error:
            yield reject(error, where=where, excerpt=excerpt(raw))
        except RecursionError:
            yield reject(_TOO_DEEP, where=where, excerpt="")


def pmid(value: object) -> Iterator[str]:
    """Yields "pmid:..." of a number, nothing of anything else."""
    text = str(value or "").strip()
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text):
        yield f"pmid:{int(text)}"


def pmcid(value: object) -> Iterator[str]:
    """Yields "pmcid:PMC..." of "PMC123", "123" or "PMC123.1", nothing of anything else."""
    found = _PMCID.fullmatch(str(value or "").strip())
    if found and int(found[1]):
        yield f"pmcid:PMC{int(found[1])}"


def doi(value: object) -> Iterator[str]:
    """Yields "doi:10..." in lower case (a DOI has no case), also of an address, nothing of anything else."""
    found = _DOI.fullmatch(str(value or "").strip())
    if found:
        yield f"doi:{found[1].rstrip('.,;').lower()}"


def trials(text: str) -> Iterator[str]:
    """Yields "nct:NCT..." of every trial that a text names."""
    for found in dict.fromkeys(_TRIAL.findall(text)):
        yield f"nct:{found}"


def refuse_withdrawn(title: str, *, said: bool, keep: bool) -> None:
    """Refuses a retracted paper: one that says so (`said`), or whose title does.

    Raises:
        UnusableError: it is retracted and not to be kept.
    """
    if not keep and (said or _WITHDRAWN.match(title)):
        raise UnusableError("retracted", "must stand, but is retracted or withdrawn; set retracted: true to keep it")


def tidy(text: str) -> str:
    """Returns text without blanks at the ends of its lines and without two empty lines in a row."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return _EMPTY_LINES.sub("\n\n", "\n".join(line.rstrip() for line in lines))


def joined(values: object, *, separator: str = "; ") -> str:
    """Returns a list's usable members (or one value) on one line, each once."""
    given = values if isinstance(values, list | tuple) else [values]
    kept = (
        " ".join(str(value).split()) for value in given if not isinstance(value, dict | list) and not is_missing(value)
    )
    return separator.join(dict.fromkeys(text for text in kept if text))
