"""Questions and answers as tables: PubMedQA, MedMCQA, MedQA, KorMedMCQA, MedQuAD, BioASQ and tables like them."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from corpus.annotations import bare
from corpus.clean import is_missing
from corpus.formats import papers
from corpus.formats.dates import is_korean, written_date
from corpus.formats.jsonvalues import as_dict, as_list, text
from corpus.formats.tables import Row
from corpus.modality import Record, SourceError, UnusableError

Cells = Mapping[str, Any]
_WORDS = {
    "en": ("Question", "Options", "Answer", "Explanation", "Decision"),
    "ko": ("질문", "보기", "정답", "해설", "판단"),
}
_LETTERS = "ABCDEFGHIJ"
_CHOICE = re.compile(r"\(?([A-Ja-j])[).:]{0,2}")
_FACTS = {  # a column as files name it: what the fact is called
    "subjectname": "subject",
    "subject": "subject",
    "topicname": "topic",
    "topic": "topic",
    "focus": "focus",
    "focusarea": "focus",
    "qtype": "kind of question",
    "type": "kind of question",
    "category": "category",
    "meshes": "topics",
    "metainfo": "exam",
    "year": "year",
}


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How the questions of one source are written.

    Attributes:
        language: of a row that is not visibly Korean.
        first_answer: the number of the first option, 0 or 1; None where answers are letters or texts.
    """

    language: str
    first_answer: int | None


def shape(columns: Iterable[str]) -> str | None:
    """Returns how a table with these columns asks: pubmedqa, choices or answers; None where it asks nothing."""
    found = {bare(column) for column in columns}
    asks = found & {"question", "body", "query"}
    if not asks:
        return None
    if found & {"contexts", "longanswer", "finaldecision"}:
        return "pubmedqa"
    if found & {"opa", "options", "choices", "option", "a", "ending0", "optiona", "option1"}:
        return "choices"
    return "answers" if found & {"answer", "answers", "response", "idealanswer", "exactanswer", "output"} else None


def is_headless(line: str) -> bool:
    """Says whether the first line of a table is a question already, as in MMLU's files: its options, then a letter."""
    cells = next(csv.reader([line]), [])
    words = len(cells[0].split()) if cells else 0
    return words > 2 and _is_bare(cells) and not any(cell.strip() in tuple(_LETTERS) for cell in cells[1:-1])


def named(row: Row) -> Row:
    """Returns a row of a table without names, which is a question, its options and a letter, with their names."""
    cells = list(row.cells.values())
    if not _is_bare(cells):
        return row
    options = dict(zip(_LETTERS, cells[1:-1], strict=False))
    return replace(row, cells={"question": cells[0], **options, "answer": cells[-1]})


def _is_bare(cells: Sequence[Any]) -> bool:
    letters = tuple(_LETTERS[: max(0, len(cells) - 2)])
    return len(letters) > 1 and text(cells[-1]).strip() in letters


def first_answer(rows: Iterable[Cells]) -> int | None:
    """Returns 0 or 1, the number of the first option, as the first answer of a file tells it that can.

    Raises:
        SourceError: none does: there are numbers, but none is 0 or as high as its options are many.
    """
    seen = set[int]()
    for cells in rows:
        number = _whole(_answer(cells))
        if number == 0:
            return 0
        if number is not None and number > 0:
            seen.add(number)
            if number >= len(_options(cells)):
                return 1
    if not seen:
        return None
    told = f"must tell whether answers count from 0 or 1, but has only {', '.join(map(str, sorted(seen)[:9]))}"
    raise SourceError("answers", f"{told}; set first_answer:")


def record(row: Row, *, kind: str, asking: Asking) -> Record:
    """Returns one question with its answer.

    Raises:
        UnusableError: the question or its answer is missing, or names no option.
    """
    cells = {bare(name): value for name, value in row.cells.items()}
    question = _first(cells, "question", "body", "query")
    language = "ko" if is_korean(f"{question} {_first(cells, 'answer', 'explanation')}") else asking.language
    words = _WORDS.get(language, _WORDS["en"])
    sections = [(words[0], question), *_READERS[kind](cells, words, asking.first_answer)]
    if not question.strip():
        raise UnusableError("no_question", "must have a question, but has none")
    told = ((name, papers.joined(_values(cells.get(column)))) for column, name in _FACTS.items())
    facts = {name: value for name, value in told if value}
    return papers.record(
        facts,
        sections,
        where=row.where,
        offsets=row.offsets,
        language=language,
        ids=_ids(cells, kind),
        date=written_date(_first(cells, "year")),
        group=_first(cells, "doc", "document", "documentid", "url") or None,
    )


def _pubmedqa(cells: Cells, words: tuple[str, ...], _: int | None) -> Iterator[tuple[str, str]]:
    context = as_dict(cells.get("context"))  # as Hugging Face holds it: {contexts: [...], labels: [...]}
    contexts = as_list(
        cells.get("contexts") or context.get("contexts") or (cells.get("context") if not context else None)
    )
    labels = as_list(cells.get("labels") or context.get("labels"))
    for number, part in enumerate(contexts):
        label = text(labels[number]) if number < len(labels) else ""
        yield label.capitalize() or "Context", text(part)
    answer, decision = _first(cells, "longanswer"), _first(cells, "finaldecision")
    if not answer and not decision:
        raise UnusableError("no_answer", "must have a long answer or a final decision, but has neither")
    yield words[2], answer
    yield words[4], decision


def _choices(cells: Cells, words: tuple[str, ...], first: int | None) -> Iterator[tuple[str, str]]:
    options = _options(cells)
    if len(options) < 2:
        raise UnusableError("no_options", f"must have two options or more, but has {len(options)}")
    chosen = _chosen(_answer(cells), options, first)
    yield words[1], "\n".join(f"{letter}. {option}" for letter, option in options.items())
    yield words[2], f"{chosen}. {options[chosen]}"
    yield words[3], _first(cells, "exp", "explanation", "cot", "rationale", "solution", "longanswer")


def _answers(cells: Cells, words: tuple[str, ...], _: int | None) -> Iterator[tuple[str, str]]:
    answer = _first(cells, "idealanswer", "answer", "answers", "response", "output", "exactanswer")
    if not answer:
        raise UnusableError("no_answer", "must have an answer, but has none")
    for part in as_list(cells.get("snippets")):
        yield "Context", text(as_dict(part).get("text") if isinstance(part, dict) else part)
    yield words[2], answer
    exact = _first(cells, "exactanswer") if cells.get("idealanswer") else ""
    yield words[4], exact
    yield words[3], _first(cells, "explanation", "cot", "rationale", "exp")


_READERS: dict[str, Callable[[Cells, tuple[str, ...], int | None], Iterator[tuple[str, str]]]] = {
    "pubmedqa": _pubmedqa,
    "choices": _choices,
    "answers": _answers,
}


def _options(cells: Cells) -> dict[str, str]:
    """Returns {"A": text}, from columns opa-opd, A-E, option1-..., a list, or an object by letter."""
    by_name = {bare(name): value for name, value in cells.items()}
    given = next((by_name[name] for name in ("options", "choices", "option") if by_name.get(name)), None)
    if isinstance(given, dict) and isinstance(given.get("text"), list):  # {text: [...], label: [...]}
        given = given["text"]
    if isinstance(given, dict):
        pairs = [(str(key).strip().upper(), value) for key, value in given.items()]
    elif isinstance(given, list):
        values = [
            as_dict(item).get("value") or as_dict(item).get("text") if isinstance(item, dict) else item
            for item in given
        ]
        pairs = list(zip(_LETTERS, values, strict=False))
    else:
        pairs = [(letter, _option(by_name, letter.lower(), number)) for number, letter in enumerate(_LETTERS)]
    return {key: " ".join(text(value).split()) for key, value in pairs if not is_missing(value) and text(value).strip()}


def _option(by_name: Cells, letter: str, number: int) -> Any:
    names = (f"op{letter}", letter, f"option{letter}", f"option{number + 1}", f"ending{number}")
    return next((by_name[name] for name in names if name in by_name), None)


def _answer(cells: Cells) -> Any:
    by_name = {bare(name): value for name, value in cells.items()}
    names = ("cop", "answeridx", "correctanswer", "answer", "label", "target", "correct", "gold")
    return next((by_name[name] for name in names if not is_missing(by_name.get(name))), None)


def _chosen(answer: Any, options: Mapping[str, str], first: int | None) -> str:
    number, letters = _whole(answer), list(options)
    if number is not None and first is not None and 0 <= number - first < len(letters):
        return letters[number - first]
    written = text(answer).strip()
    letter = _CHOICE.fullmatch(written)
    if letter and letter[1].upper() in options:
        return letter[1].upper()
    same = [key for key, option in options.items() if option.casefold() == " ".join(written.split()).casefold()]
    if len(same) == 1 and number is None:
        return same[0]
    raise UnusableError("no_answer", f"must name one of the options {', '.join(letters)}, but is {answer!r:.60}")


def _whole(value: Any) -> int | None:
    """A number of an option; also 1.0, as a table with gaps writes it."""
    written = text(value).strip()
    found = re.fullmatch(r"(-?\d{1,3})(?:\.0+)?", written)
    return int(found[1]) if found else None


def _first(cells: Cells, *names: str) -> str:
    """Returns the first of these columns that holds something, lists as paragraphs."""
    for name in names:
        written = "\n".join(text(value).strip() for value in _values(cells.get(name)) if not is_missing(value))
        if written.strip():
            return written.strip()
    return ""


def _values(value: Any) -> list[Any]:
    flat = [item for part in as_list(value) for item in as_list(part)]
    return [item for item in flat if not isinstance(item, dict)]


def _ids(cells: Cells, kind: str) -> Iterator[str]:
    if kind == "pubmedqa":
        key = cells.get("key")  # of an object; the items of a list are only counted
        yield from papers.pmid(cells.get("pubid") or cells.get("pmid") or (key if isinstance(key, str) else None))
    for name in ("documents", "pmid", "pmids"):
        for value in as_list(cells.get(name)):
            yield from papers.pmid(text(value).rstrip("/").rpartition("/")[2])
