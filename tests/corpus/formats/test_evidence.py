"""Evidence Inference: articles with their own licence, findings with what they rest on, wrong ones rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.formats.evidence import cut

Read = Callable[..., Any]
ICO = {"Intervention": "drug", "Comparator": "placebo", "Outcome": "pain"}


@pytest.fixture
def found(tmp_path: Path, read: Read) -> Callable[..., Any]:
    def run(*rows: Any) -> Any:
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        return read("literature", tmp_path / "a.jsonl")

    return run


def test_an_article_is_cut_at_its_headings() -> None:
    abstract = "ABSTRACT.METHODS:\nWe did.\n\nABSTRACT.RESULTS:\nIt was."
    text = f"TITLE: \nA drug\n\n\n\n{abstract}\n\n\nIt began.\nFigure 1BODY.1. NEXT:\nEnd."
    assert cut(text) == (
        "A drug",
        [
            ("Abstract: Methods", "We did."),
            ("Abstract: Results", "It was."),
            ("Text", "It began.\nFigure 1"),
            ("1. next", "End."),
        ],
    )
    assert cut("no headings") == ("", [("", "no headings")])


def test_a_row_keeps_its_licence_and_its_prompts(found: Callable[..., Any]) -> None:
    row = {"pmcid": 529310, "text": "TITLE: A\n\nABSTRACT:\nB", "prompts": [ICO]}
    got = found({**row, "license": "creativecommons.org/licenses/by/2.0"}, {**row, "license": "ask the publisher"})
    assert [(record.license, record.where) for record in got.records] == [
        ("CC-BY-2.0", "line 1"),
        ("CC-BY-2.0", "line 1, prompt 1"),
        ("LicenseRef-PMC-OA-Other", "line 2"),
        ("LicenseRef-PMC-OA-Other", "line 2, prompt 1"),
    ]
    assert {record.group for record in got.records} == {"pmcid:PMC529310"}
    assert got.records[0].content == {"facts": {"title": "A"}, "sections": [["Abstract", "B"]]}
    assert got.records[1].content["facts"] == {"intervention": "drug", "comparator": "placebo", "outcome": "pain"}


def test_findings_and_what_is_wrong_with_them(found: Callable[..., Any]) -> None:
    got = found(
        {**ICO, "PMCID": "1", "Label": "significantly increase", "Annotations": "Pain rose.", "Valid Label": "True"},
        {**ICO, "PMCID": "1", "Label Code": -1},
        {**ICO, "PMCID": "1", "Label": "better"},
        {**ICO, "PMCID": "1", "Label": "no significant difference", "Valid Label": "False"},
        {**ICO, "PMCID": "1", "Label": "no significant difference", "Valid Reasoning": False},
        {**ICO, "Comparator": "", "Label": "no significant difference"},
    )
    assert [record.content["facts"]["finding"] for record in got.records] == [
        "significantly increased",
        "significantly decreased",
    ]
    assert got.records[0].content["sections"] == [["Evidence", "Pain rose."]]
    assert got.codes() == ["unknown_value", "not_valid", "not_valid", "no_field"]
