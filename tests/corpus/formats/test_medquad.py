"""MedQuAD's XML: every question with its answer, focus and kind; what has no answer is rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000015" source="NIHSeniorHealth" url="http://example.org/">
<Focus>Diabetes</Focus>
<FocusAnnotations><Synonyms><Synonym>DM</Synonym></Synonyms></FocusAnnotations>
<QAPairs>
  <QAPair pid="1">
    <Question qid="0000015-1" qtype="information">What is (are) Diabetes ?</Question>
    <Answer>Too much   glucose:
        - in the blood
        - &lt; 7%</Answer>
  </QAPair>
  <QAPair pid="2"><Question qid="0000015-2" qtype="causes">What causes it ?</Question><Answer></Answer></QAPair>
</QAPairs>
</Document>
"""


def test_questions_come_with_their_answers(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.xml"
    path.write_text(PAGE)
    found = read("literature", path)
    (record,) = found.records
    assert record.content == {
        "facts": {"focus": "Diabetes", "kind of question": "information"},
        "sections": [
            ["Question", "What is (are) Diabetes ?"],
            ["Answer", "Too much glucose:\n- in the blood\n- < 7%"],
        ],
    }
    assert record.where == "document NIHSeniorHealth 0000015, question 1"
    assert [(item.where[-10:], item.code) for item in found.rejects] == [("question 2", "no_answer")]


def test_another_document_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<Document><p>text</p></Document>")
    with pytest.raises(SourceError, match=r"must be MedQuAD \(a Document with QAPair elements\), but holds no QAPair"):
        read("literature", path)
