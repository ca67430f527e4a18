"""BioC: passages become sections, entities become facts, whatever the file around them is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Read = Callable[..., Any]
DOCUMENT = {
    "id": "20516115|None",
    "date": "2010-06-01T00:00:00Z",
    "passages": [
        {
            "infons": {"type": "title", "year": "2009", "license": "CC BY"},
            "text": "MEK in melanoma",
            "annotations": [
                {"text": "MEK", "infons": {"type": "Gene", "identifier": "5609"}},
                {"text": "Mek", "infons": {"type": "Gene", "identifier": "5609"}},
                {"text": "melanoma", "infons": {"type": "Disease", "identifier": "-"}},
            ],
        },
        {"infons": {"section_type": "ABSTRACT", "type": "abstract"}, "text": "It works."},
        {"infons": {"section_type": "METHODS", "type": "title_1"}, "text": "Mice"},
        {"infons": {"section_type": "METHODS", "type": "paragraph"}, "text": "Ten."},
        {"infons": {"section_type": "METHODS", "type": "paragraph"}, "sentences": [{"text": "More."}]},
        {"infons": {"section_type": "REF", "type": "ref"}, "text": "Old"},
    ],
}
CONTENT = {
    "facts": {"title": "MEK in melanoma", "published": "2010-06-01", "disease": "melanoma", "gene": "MEK (5609)"},
    "sections": [["Abstract", "It works."], ["Mice", "Ten.\nMore."]],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.json", DOCUMENT),
        ("a.json", {"PubTator3": [DOCUMENT]}),
        ("a.json", {"source": "PMC", "documents": [DOCUMENT]}),
        ("a.json", [{"bioctype": "BioCCollection", "documents": [DOCUMENT]}]),
        ("a.jsonl", DOCUMENT),
    ],
)
def test_documents_are_found_in_any_holder(tmp_path: Path, read: Read, name: str, value: Any) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(value))
    got = read("literature", path)
    assert [(record.content, record.ids, record.license) for record in got.records] == [
        (CONTENT, ("pmid:20516115",), "LicenseRef-CC-BY")
    ]
    assert [note.text for note in got.notes] == ["1 references left out"]


def test_bad_documents_and_lines_cost_only_themselves(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(DOCUMENT), "{", json.dumps({"id": "1", "passages": []}), json.dumps(DOCUMENT)]
    path.write_text("\n".join(lines))
    got = read("literature", path)
    assert (len(got.records), got.codes()) == (2, ["bad_json", "empty"])


def test_xml_and_lines_hold_the_same(tmp_path: Path, read: Read) -> None:
    written = """<collection><document><id>7</id><passage><infon key="type">title</infon><text>MEK</text><annotation>
        <infon key="type">Gene</infon><infon key="identifier">5609</infon><text>MEK</text></annotation></passage>
        <passage><infon key="type">abstract</infon><text>Works.</text></passage></document></collection>"""
    (tmp_path / "a.xml").write_text(written)
    (tmp_path / "a.txt").write_text("7|t|MEK\n7|a|Works.\n7\t0\t3\tMEK\tGene\t5609\n\n8|t|BRAF\n8|a|\n")
    (xml,) = read("literature", tmp_path / "a.xml").records
    lines = read("literature", tmp_path / "a.txt").records
    assert [record.ids for record in lines] == [("pmid:7",), ("pmid:8",)]
    assert xml.content == lines[0].content
    assert xml.content["facts"] == {"title": "MEK", "gene": "MEK (5609)"}


def test_a_real_export(read: Read, real: Callable[[str], Path]) -> None:
    (record,) = read("literature", real("../shared/data/literature_qa/export_22663011.json")).records
    assert record.content["facts"]["gene"].startswith("MEK (5609); BRAF (673)")
    assert (record.ids, record.date) == (("pmid:22663011",), "2012-07-12")
