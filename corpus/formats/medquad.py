"""MedQuAD's XML: a document about one subject, with its questions and their answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.formats import xmlfile
from corpus.formats.tables import Row
from corpus.modality import Reject, SourceError, UnusableError, reject

ROOTS = ("Document",)


def rows(path: Path) -> Iterator[Row | Reject]:
    """Yields each question with its answer, what it is about and of what kind it is.

    Raises:
        SourceError: the file is damaged, or holds no pair of a question and an answer.
    """
    found = False
    for document in xmlfile.elements(path, ROOTS):
        about = f"{xmlfile.attribute(document, 'source')} {xmlfile.attribute(document, 'id')}".strip()
        for number, pair in enumerate(xmlfile.within(document, "QAPair"), start=1):
            found = True
            where = f"document {about}, question {number}"
            try:
                focus = xmlfile.plain(xmlfile.child(document, "Focus"))
                yield Row(where=where, cells={"document": about, "focus": focus, **_asked(pair)})
            except UnusableError as error:
                yield reject(error, where=where, excerpt="QAPair")
    if not found:
        told = "must be MedQuAD (a Document with QAPair elements), but holds no QAPair"
        raise SourceError("unknown_xml", f"{told}; use another modality or convert it")


def _asked(pair: Any) -> dict[str, str]:
    question, answer = xmlfile.child(pair, "Question"), xmlfile.child(pair, "Answer")
    kind = "" if question is None else xmlfile.attribute(question, "qtype")
    return {"question": xmlfile.plain(question), "answer": _paragraphs(answer), "qtype": kind}


def _paragraphs(element: Any) -> str:
    """Returns the text within an element with its line ends, which part the items of its lists."""
    written = "" if element is None else "".join(xmlfile.pieces(element))
    return "\n".join(line for line in (" ".join(part.split()) for part in written.splitlines()) if line)
