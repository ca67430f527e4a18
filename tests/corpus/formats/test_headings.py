"""Headings: what begins a section, and what only looks like it."""

import pytest

from corpus.formats.headings import sections


def test_markdown_is_cut_at_its_headings() -> None:
    text = "Before.\n\n# Guide #\n## Aims\nTo help.\n```\n# no heading\n```\n\nTitle\n=====\nMore.\n\n## Last"
    assert sections(text) == [
        ("", "Before."),
        ("Guide / Aims", "To help.\n```\n# no heading\n```"),
        ("Title", "More."),
        ("Last", "Last"),
    ]


@pytest.mark.parametrize(
    "heading",
    [
        "1. Introduction",
        "2.3.1 Dose in children",
        "IV. Methods",
        "Chapter 3 Treatment",
        "RECOMMENDATIONS",
        "Recommendation 4",
        "제1장 총론",
        "제 2 절 진단",
        "가. 목적",
        "Ⅱ. 치료",
        "[권고 1]",
        "권고사항 3",
        "**2. Scope**",
    ],
)
def test_a_short_line_alone_can_be_a_heading(heading: str) -> None:
    text = f"{heading}\n\nThe text (1A, ⊕⊕⊕⊖)."
    assert sections(f"Before it.\n\n{text}") == [("", "Before it."), (heading.strip("*"), "The text (1A, ⊕⊕⊕⊖).")]


@pytest.mark.parametrize(
    "text",
    [
        "Take\n\n1. aspirin\n2. heparin",
        "The dose was\n1. raised",
        "1. This is a whole sentence.",
        "Before.\n\n1. " + "x" * 200,
        "A patient came.\n\nHe was well",
    ],
)
def test_lists_and_sentences_are_no_headings(text: str) -> None:
    assert sections(text) == [("", text)]


def test_nothing_is_lost() -> None:
    assert sections("") == []
    assert sections("# Only a title") == [("Only a title", "Only a title")]
