"""PubMed: citations with structured abstracts, headings and ids; other languages as pairs; retracted ones rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Read = Callable[..., Any]
ABSTRACT = """<Abstract><AbstractText Label="METHODS">We <i>saw</i> 10<sup>2</sup>.</AbstractText>
    <AbstractText Label="UNLABELLED">Rest.</AbstractText></Abstract>"""


def citation(inner: str = ABSTRACT, outer: str = "", title: str = "A title.", dates: str = "<Year>2012</Year>") -> str:
    return f"""<PubmedArticle><MedlineCitation><PMID Version="1">22663011</PMID><Article><Journal><JournalIssue>
        <PubDate>{dates}</PubDate></JournalIssue><Title>NEJM</Title></Journal><ArticleTitle>{title}</ArticleTitle>
        <ELocationID EIdType="doi" ValidYN="Y">10.1056/NEJMoa1</ELocationID>{inner}<Language>kor</Language>
        <DataBankList><DataBank><AccessionNumberList><AccessionNumber>NCT01245062</AccessionNumber></AccessionNumberList>
        </DataBank></DataBankList></Article>{outer}</MedlineCitation><PubmedData><ArticleIdList>
        <ArticleId IdType="pmc">PMC3549296</ArticleId></ArticleIdList></PubmedData></PubmedArticle>"""


@pytest.fixture
def found(tmp_path: Path, read: Read) -> Callable[..., Any]:
    def run(*citations: str, **options: Any) -> Any:
        path = tmp_path / "a.xml"
        path.write_text(f"<PubmedArticleSet>{''.join(citations)}</PubmedArticleSet>", encoding="utf-8")
        return read("literature", path, **options)

    return run


def test_a_citation_is_read_whole(found: Callable[..., Any]) -> None:
    outer = """<MeshHeadingList><MeshHeading><DescriptorName>Melanoma</DescriptorName><QualifierName>genetics
        </QualifierName></MeshHeading></MeshHeadingList><ChemicalList><Chemical><NameOfSubstance>trametinib
        </NameOfSubstance></Chemical></ChemicalList>"""
    kinds = "<PublicationTypeList><PublicationType>Review</PublicationType></PublicationTypeList>"
    (record,) = found(citation(ABSTRACT + kinds, outer)).records
    assert record.content == {
        "facts": {
            "title": "A title.",
            "journal": "NEJM",
            "type": "Review",
            "topics": "Melanoma (genetics)",
            "substances": "trametinib",
            "published": "2012",
        },
        "sections": [["Abstract: Methods", "We saw 10²."], ["Abstract", "Rest."]],
    }
    assert record.ids == ("pmid:22663011", "doi:10.1056/nejmoa1", "pmcid:PMC3549296", "nct:NCT01245062")
    assert (record.group, record.language, record.pair) == ("pmid:22663011", "en", None)


def test_a_korean_abstract_is_a_pair_and_others_are_told(found: Callable[..., Any]) -> None:
    inner = f"{ABSTRACT}<VernacularTitle>제목</VernacularTitle>"
    outer = """<OtherAbstract Language="kor"><AbstractText>목적: 알아보았다.</AbstractText></OtherAbstract>
        <OtherAbstract Language="spa"><AbstractText>Objetivo.</AbstractText></OtherAbstract>"""
    got = found(citation(inner, outer, title="[A title]."))
    assert [(record.language, record.content["facts"]["title"], record.pair) for record in got.records] == [
        ("en", "A title", "pmid:22663011"),
        ("ko", "제목", "pmid:22663011"),
    ]
    assert [note.text for note in got.notes] == ["abstracts left out: 1 in es; languages: allows en, ko"]


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("<PublicationTypeList><PublicationType>Retracted Publication</PublicationType></PublicationTypeList>", ""),
        ("", '<CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn"/></CommentsCorrectionsList>'),
    ],
)
def test_a_retracted_citation_is_rejected_unless_wanted(found: Callable[..., Any], inner: str, outer: str) -> None:
    got = found(citation(ABSTRACT + inner, outer), citation())
    assert [(item.where, item.code) for item in got.rejects] == [("citation 1 (pmid:22663011)", "retracted")]
    assert len(got.records) == 1
    assert len(found(citation(ABSTRACT + inner, outer), retracted=True).records) == 1


def test_the_notice_of_a_retraction_stays(found: Callable[..., Any]) -> None:
    kind = "<PublicationTypeList><PublicationType>Retraction of Publication</PublicationType></PublicationTypeList>"
    assert len(found(citation(kind)).records) == 1


@pytest.mark.parametrize(
    ("dates", "date"),
    [
        ("<Year>2012</Year><Month>Feb</Month><Day>30</Day>", "2012-02"),
        ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", "1998"),
        ("<Season>Spring</Season>", None),
    ],
)
def test_dates_are_as_exact_as_they_are_known(found: Callable[..., Any], dates: str, date: str | None) -> None:
    assert found(citation(dates=dates)).records[0].date == date


def test_books_and_bare_citations(found: Callable[..., Any]) -> None:
    book = """<PubmedBookArticle><BookDocument><PMID>5</PMID><Book><BookTitle>Reviews</BookTitle><PubDate>
        <Year>2001</Year></PubDate></Book><ArticleTitle>Gene</ArticleTitle><Abstract><AbstractText>It does.
        </AbstractText></Abstract></BookDocument></PubmedBookArticle>"""
    got = found(book, "<PubmedArticle><MedlineCitation/></PubmedArticle>")
    assert [(record.ids, record.date) for record in got.records] == [(("pmid:5",), "2001")]
    assert got.codes() == ["no_article"]


def test_a_real_citation(read: Read, real: Callable[[str], Path]) -> None:
    (record,) = read("literature", real("../shared/data/literature_qa/efetch_citation_22663011.xml")).records
    assert [title for title, _ in record.content["sections"]] == [
        f"Abstract: {part}" for part in ("Background", "Methods", "Results", "Conclusions")
    ]
    assert (record.ids[0], record.date) == ("pmid:22663011", "2012-07-12")
