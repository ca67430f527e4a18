"""Drug labels in SPL: facts, sections by code, text of every kind, damage and attacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]

LABEL = """<?xml version="1.0" encoding="UTF-8"?><?xml-stylesheet href="spl.xsl" type="text/xsl"?>
<document xmlns="urn:hl7-org:v3">
 <code code="34391-3" displayName="HUMAN PRESCRIPTION DRUG LABEL"/>
 <title>Zolgin<br/>tablets</title>
 <effectiveTime value="20171107"/><languageCode code="LANGUAGE"/>
 <setId root="0B0BE196-0C62"/><versionNumber value="20"/>
 <author><assignedEntity><representedOrganization><name>Acme &amp; Co</name></representedOrganization></assignedEntity>
 </author>
 <component><structuredBody>
  <component><section><code code="48780-1"/><text>listing</text>
   <subject><manufacturedProduct><manufacturedProduct>
    <code code="0069-4200" codeSystem="2.16.840.1.113883.6.69"/>
    <name>ZOLGIN<suffix>Forte</suffix></name><formCode displayName="TABLET"/>
    <asEntityWithGeneric><genericMedicine><name>zolginol</name></genericMedicine></asEntityWithGeneric>
    <ingredient classCode="ACTIB">
     <quantity><numerator value="25" unit="mg"/><denominator value="5" unit="mL"/></quantity>
     <ingredientSubstance><code code="BW9B0ZE037" codeSystem="2.16.840.1.113883.4.9"/><name>ZOLGINOL CITRATE</name>
     </ingredientSubstance></ingredient>
    <ingredient classCode="IACT"><ingredientSubstance><name>WATER</name></ingredientSubstance></ingredient>
    <asContent><containerPackagedProduct><code code="0069-4200-30" codeSystem="2.16.840.1.113883.6.69"/>
     </containerPackagedProduct></asContent></manufacturedProduct>
    <subjectOf><approval><id extension="NDA020895"/></approval></subjectOf>
    <subjectOf><policy><code displayName="CIV"/></policy></subjectOf>
    <consumedIn><substanceAdministration><routeCode displayName="ORAL"/></substanceAdministration></consumedIn>
   </manufacturedProduct></subject></section></component>
  <component><section><code code="34067-9" displayName="INDICATIONS &amp; USAGE SECTION"/>
   <title>1 INDICATIONS</title>
   <text><paragraph>For 10<sup>9</sup> cells,<!-- note --> C<sub>max</sub>
    and <content styleCode="bold">pain</content>.</paragraph>
    <list><item>one</item><item><paragraph>two</paragraph></item></list>
    <table><caption>Doses</caption><thead><tr><th>Age</th><th>Dose</th></tr></thead>
     <tbody><tr><td>&lt; 6</td><td><paragraph>5 mg<footnote>once</footnote></paragraph></td></tr></tbody></table>
    <renderMultiMedia/></text>
   <excerpt><highlight><text><paragraph>Short.</paragraph></text></highlight></excerpt>
   <component><section><code code="42229-5"/><title>1.1 Limits</title><text>None.</text></section></component>
  </section></component>
  <component><section><code code="34084-4"/><title>Adverse reactions</title><text>Rash.</text></section></component>
  <component><section><code code="99999-9" displayName="A NEW SECTION"/><text>New.</text></section></component>
 </structuredBody></component>
</document>
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "label.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_label(tmp_path: Path, read: Read) -> None:
    (record,) = read("drug", _write(tmp_path, LABEL.replace("LANGUAGE", "en-US"))).records
    assert record.content["facts"] == {
        "name": "ZOLGIN Forte",
        "generic name": "zolginol",
        "label": "HUMAN PRESCRIPTION DRUG LABEL",
        "labeler": "Acme & Co",
        "active ingredients": "ZOLGINOL CITRATE (UNII BW9B0ZE037) 25 mg in 5 mL",
        "inactive ingredients": "WATER",
        "form": "TABLET",
        "route": "ORAL",
        "NDC": "0069-4200",
        "packages": "0069-4200-30",
        "approval": "NDA020895",
        "schedule": "CIV",
        "set id": "0b0be196-0c62",
        "version": "20",
        "effective": "2017-11-07",
    }
    uses = "Indications & Usage [34067-9] 1 INDICATIONS"
    lines = ["For 10^9 cells, Cmax and pain.", "- one", "- two", "Doses", "Age | Dose", "< 6 | 5 mg (once)"]
    assert record.content["sections"] == [
        ["Title", "Zolgin tablets"],
        [uses, "\n".join(lines)],
        [f"Highlights: {uses}", "Short."],
        [f"{uses} > 1.1 Limits", "None."],
        ["Adverse Reactions [34084-4]", "Rash."],
        ["A new [99999-9]", "New."],
    ]
    assert record.ids == ("spl:0b0be196-0c62", "ndc:0069-4200", "unii:BW9B0ZE037")
    assert (record.group, record.date, record.language) == ("spl:0b0be196-0c62", "2017-11-07", "en")


def test_chosen_sections_come_with_all_that_is_in_them(tmp_path: Path, read: Read) -> None:
    (record,) = read("drug", _write(tmp_path, LABEL.replace("LANGUAGE", "en")), sections=["34067-9"]).records
    assert [title.split(" ")[0] for title, _ in record.content["sections"]] == [
        "Title",
        "Indications",
        "Highlights:",
        "Indications",
    ]


def test_a_label_in_another_language(tmp_path: Path, read: Read) -> None:
    korean = LABEL.replace("LANGUAGE", "ko-KR")
    assert read("drug", _write(tmp_path, korean)).codes() == ["language"]
    korean = korean.replace("Rash.", "발진.")
    assert read("drug", _write(tmp_path, korean)).records[0].language == "ko"


def test_old_labels_name_things_otherwise(tmp_path: Path, read: Read) -> None:
    text = """<document xmlns="urn:hl7-org:v3"><setId root="a"/><component><structuredBody><component><section>
    <subject><manufacturedProduct><manufacturedMedicine><name>Old</name><activeIngredient><activeIngredientSubstance>
    <name>OLDINE</name></activeIngredientSubstance></activeIngredient></manufacturedMedicine></manufacturedProduct>
    </subject></section></component></structuredBody></component></document>"""
    (record,) = read("drug", _write(tmp_path, text)).records
    assert record.content["facts"] == {"name": "Old", "active ingredients": "OLDINE", "set id": "a"}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("<PubmedArticleSet/>", "wrong_format", r"must be a drug label \(HL7 SPL\), but is <PubmedArticleSet>"),
        ("<document", "damaged", "must be XML"),
        ('<!DOCTYPE document [<!ENTITY a "b">]><document>&a;</document>', "entities", "declares no entities"),
        ("<document>" + "<component>" * 300 + "</component>" * 300 + "</document>", "damaged", "must be XML"),
    ],
)
def test_what_is_no_label(tmp_path: Path, read: Read, text: str, code: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read("drug", _write(tmp_path, text))
    assert caught.value.code == code


def test_an_indexing_file_names_substances_and_their_classes(tmp_path: Path, read: Read) -> None:
    kind = "<asSpecializedKind><generalizedMaterialKind><code displayName='{}'/></generalizedMaterialKind>{}"
    kinds = [kind.format(found, "</asSpecializedKind>") for found in ("Psoralen [EPC]", "Photoabsorption [MoA]")]
    substance = (
        '<identifiedSubstance><id extension="U4"/><identifiedSubstance>'
        '<code code="U4" codeSystem="2.16.840.1.113883.4.9"/><name>ZOLGINOL</name>'
        f"{''.join(kinds)}</identifiedSubstance></identifiedSubstance>"
    )
    body = f"<structuredBody><component><section><subject>{substance}</subject></section></component></structuredBody>"
    path = _write(tmp_path, f'<document xmlns="urn:hl7-org:v3"><component>{body}</component></document>')
    (record,) = read("drug", path).records
    assert record.content["facts"] == {
        "substance": "ZOLGINOL (UNII U4)",
        "class": "Psoralen [EPC]; Photoabsorption [MoA]",
    }
    assert record.ids == ("unii:U4",)


def test_labels_that_cannot_be_used(tmp_path: Path, read: Read) -> None:
    section = "<component><section><title>a</title><text>b</text>{}</section></component>"
    deep = "{}"
    for _ in range(30):
        deep = deep.format(section)
    space = 'xmlns="urn:hl7-org:v3"'
    body = f"<component><structuredBody>{deep.format('')}</structuredBody></component>"
    found = read(
        "drug", _write(tmp_path, f"<all><document/><document {space}/><document {space}>{body}</document></all>")
    )
    assert [(item.where, item.code) for item in found.rejects] == [
        ("document 1", "wrong_format"),
        ("document 2", "no_label"),
        ("document 3", "too_deep"),
    ]


@pytest.mark.parametrize(("name", "sections"), [("cough.xml", 17), ("humira.xml", 74), ("viagra_64f8040f.xml", 101)])
def test_the_shared_labels(name: str, sections: int, read: Read, real: Callable[[str], Path]) -> None:
    (record,) = read("drug", real(f"../shared/data/drug_labels/{name}")).records
    assert len(record.content["sections"]) == sections
