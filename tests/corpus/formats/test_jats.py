"""JATS: what an article says is kept, what is only apparatus is left out, what is unsafe is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
HEAD = '<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "JATS-archivearticle1.dtd">'
CC = "http://creativecommons.org/"
LINKED = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def article(meta: str = "", body: str = "<body><p>Text.</p></body>", attributes: str = 'xml:lang="en"') -> str:
    return f"""<article {LINKED} {attributes}><front><journal-meta><journal-title-group><journal-title>J</journal-title>
        </journal-title-group></journal-meta><article-meta><article-id pub-id-type="pmid">7</article-id>
        <article-id pub-id-type="pmcid">PMC0012.1</article-id><article-id pub-id-type="doi">10.1000/ABC</article-id>
        <title-group><article-title>A <italic>T</italic></article-title></title-group>{meta}</article-meta></front>
        {body}</article>"""


@pytest.fixture
def found(tmp_path: Path, read: Read) -> Callable[..., Any]:
    def run(written: str, name: str = "a.nxml", **options: Any) -> Any:
        (tmp_path / name).write_text(written, encoding="utf-8")
        return read("literature", tmp_path / name, **options)

    return run


def test_an_article_is_read_whole(found: Callable[..., Any]) -> None:
    meta = """<pub-date pub-type="ppub"><year>2020</year></pub-date>
        <pub-date pub-type="epub"><day>04</day><month>Mar</month><year>2019</year></pub-date>
        <abstract><sec><title>Aims:</title><p>To see.</p></sec></abstract>
        <abstract abstract-type="graphical"><p>drawn</p></abstract>
        <kwd-group><kwd>one</kwd><kwd>two</kwd><kwd>one</kwd></kwd-group>"""
    body = """<body><sec><title>Methods</title><p>First<!-- no --> part.</p>
        <sec><label>1.1</label><title>Mice</title><p>Ten<?pi x?> mice</p><fig><label>Figure 1.</label>
        <caption><p>A mouse.</p></caption></fig></sec></sec></body>
        <back><ack><p>Thanks, Ann</p></ack><app-group><app><title>Appendix</title><p>More.</p></app></app-group>
        <ref-list><ref><mixed-citation>Old work</mixed-citation></ref><ref/></ref-list></back>"""
    got = found(HEAD + article(meta, body))
    (record,) = got.records
    assert record.content == {
        "facts": {"title": "A T", "journal": "J", "keywords": "one; two", "published": "2019-03-04"},
        "sections": [
            ["Abstract: Aims", "To see."],
            ["Methods", "First part."],
            ["Methods: Mice", "Ten mice"],
            ["Figure 1", "A mouse."],
            ["Appendix", "More."],
        ],
    }
    assert record.ids == ("pmid:7", "pmcid:PMC12", "doi:10.1000/abc")
    assert (record.group, record.language, record.date, record.where) == (
        "pmid:7",
        "en",
        "2019-03-04",
        "article 1 (pmid:7)",
    )
    assert [note.text for note in got.notes] == ["1 articles; 2 references left out"]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('seen <xref ref-type="bibr">[1]</xref>, <xref ref-type="bibr">[2]</xref> and', "seen and"),
        ('seen [<xref ref-type="bibr">1</xref>–<xref ref-type="bibr">3</xref>].', "seen."),
        ('seen<sup><xref ref-type="bibr">1</xref>,<xref ref-type="bibr">2</xref></sup>.', "seen."),
        ('by <xref ref-type="bibr">Lee et al., 2016</xref>', "by Lee et al., 2016"),
        ('(<xref ref-type="fig">Figure 1</xref>)', "(Figure 1)"),
        ("10<sup>−3</sup> Ca<sup>2+</sup> x<sup>ab</sup> 5<sup>th</sup> CO<sub>2</sub>", "10⁻³ Ca²⁺ x^ab 5th CO2"),
        ("a<list><list-item><p>one</p></list-item><list-item><p>two</p></list-item></list>", "a\n- one\n- two"),
        (r"<inline-formula><tex-math>\begin{document}$$x^2$$\end{document}</tex-math></inline-formula>", "x^2"),
        (
            "<m:math xmlns:m='m'><mfrac><mi>a</mi><mi>b</mi></mfrac><msqrt><msup>{}</msup></msqrt></m:math>".format(
                "<mi>c</mi><mn>2</mn>"
            ),
            "(a)/(b)sqrt(c^(2))",
        ),
        ("a<fn><p>note</p></fn><supplementary-material><p>file</p></supplementary-material> b", "a b"),
    ],
)
def test_text_is_as_people_write_it(found: Callable[..., Any], written: str, text: str) -> None:
    got = found(article(body=f"<body><p>{written}</p></body>"))
    assert got.records[0].content["sections"] == [["", text]]


def test_tables_keep_their_columns(found: Callable[..., Any]) -> None:
    table = """<table-wrap><label>Table 2:</label><caption><p>Doses</p></caption><table>
        <tr><th colspan="2">Arm</th><th>n</th></tr><tr><td rowspan="2">A</td><td>10 <bold>mg</bold></td><td>5</td></tr>
        <tr><td>20 mg</td><td>6</td></tr><tr><td/></tr></table>
        <table-wrap-foot><fn><p>n, number</p></fn></table-wrap-foot></table-wrap>"""
    got = found(article(body=f"<floats-group>{table}</floats-group>"))
    rows = "Doses\nArm |  | n\nA | 10 mg | 5\n| 20 mg | 6\nn, number"
    assert got.records[0].content["sections"] == [["Table 2", rows]]


def test_sets_namespaces_and_missing_articles(found: Callable[..., Any]) -> None:
    spaced = article().replace("<article ", '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/" ')
    reply = '<Reply Id="PMC5" error="not available"/>'
    got = found(f"<pmc-articleset>{spaced}{reply}<article/>{article()}</pmc-articleset>", "a.xml")
    assert [record.where for record in got.records] == ["article 1 (pmid:7)", "article 4 (pmid:7)"]
    assert [(item.where, item.code) for item in got.rejects] == [
        ("article 2", "not_available"),
        ("article 3", "no_front"),
    ]


def test_other_languages_are_pairs_of_the_article(found: Callable[..., Any]) -> None:
    meta = """<trans-abstract xml:lang="ko"><p>초록입니다.</p></trans-abstract>
        <trans-abstract xml:lang="fr"><p>Le texte.</p></trans-abstract><abstract><p>The text.</p></abstract>"""
    got = found(article(meta, body=""))
    assert [(record.language, record.pair, record.group) for record in got.records] == [
        ("en", "pmid:7", "pmid:7"),
        ("ko", "pmid:7", "pmid:7"),
    ]
    assert len(found(article(meta, body=""), languages=["fr"]).records) == 2
    korean = found(article(body="<body><p>모든 환자는 동의하였다.</p></body>", attributes=""))
    assert [record.language for record in korean.records] == ["ko"]


@pytest.mark.parametrize(
    ("permissions", "licence"),
    [
        ("", None),
        (
            '<license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>x</license-p></license>',
            "CC-BY-4.0",
        ),
        (
            "<license>{}{}</license>".format(
                *(f'<ext-link xlink:href="{CC}{kind}"/>' for kind in ("licenses/by-nc/3.0", "publicdomain/zero/1.0/"))
            ),
            "CC-BY-NC-3.0",
        ),
        (
            "<license><license-p>under the Creative Commons Attribution License, which</license-p></license>",
            "LicenseRef-CC-BY",
        ),
        ("<license><license-p>for text mining only</license-p></license>", "LicenseRef-PMC-OA-Other"),
        ("<copyright-statement>the Creative Commons Attribution License</copyright-statement>", "LicenseRef-CC-BY"),
    ],
)
def test_the_licence_is_that_of_the_article(found: Callable[..., Any], permissions: str, licence: str | None) -> None:
    got = found(article(f"<permissions>{permissions}</permissions>"))
    assert got.records[0].license == licence


@pytest.mark.parametrize(
    ("meta", "attributes"),
    [
        ('<related-article related-article-type="retraction-forward"/>', ""),
        ("", 'article-type="retracted-article"'),
        ("<title-group/>", ""),
    ],
)
def test_a_retracted_article_is_rejected_unless_wanted(found: Callable[..., Any], meta: str, attributes: str) -> None:
    written = article(meta, attributes=attributes)
    if meta == "<title-group/>":
        written = written.replace("A <italic>T</italic>", "RETRACTED: A")
    assert found(written).codes() == ["retracted"]
    assert len(found(written, retracted=True).records) == 1


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (HEAD + article(body="<body><p>a&nbsp;b</p></body>"), "entity"),
        (article(body=""), "empty"),
        (article(body="<body><p>only English</p></body>", attributes='xml:lang="ko"'), "language"),
    ],
)
def test_what_cannot_be_read_is_rejected(found: Callable[..., Any], written: str, code: str) -> None:
    assert found(written).codes() == [code]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><article/>', "must be XML that declares no entities, but declares 'b'"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><article/>', "must be XML that declares no entities"),
        ("<html><body/></html>", r"must be data or plain text, but is a web page \(HTML\); convert it"),
        ("<document/>".replace("document", "label"), "must be JATS .* but is <label>; use another modality"),
        (article()[:-20], "must be XML, but"),
        ("<article>" + "<p>" * 300 + "</p>" * 300 + "</article>", "must be XML, but"),
        ("plain", "must be XML, but"),
    ],
)
def test_unsafe_and_other_files_are_one_error(found: Callable[..., Any], written: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        found(written)


def test_a_gigantic_article_is_refused_before_it_fills_memory(
    found: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.formats.xmlfile.MOST_BYTES", 1 << 17)
    with pytest.raises(SourceError, match="must have elements of at most 131072 bytes, but has a larger one; split it"):
        found(article(body=f"<body>{'<p>text</p>' * 40_000}</body>"))
    monkeypatch.setattr("corpus.formats.xmlfile.MOST_BYTES", 1 << 27)
    monkeypatch.setattr("corpus.formats.papers.MOST_CHARACTERS", 1000)
    assert found(article(body=f"<body>{'<p>text</p>' * 4000}</body>")).codes() == ["too_large"]


def test_a_file_in_one_long_line_is_read(found: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.formats.lines.LONGEST", 100)
    assert (
        len(found(f"<pmc-articleset>{article()}{article()}</pmc-articleset>".replace("\n", " "), "a.xml").records) == 2
    )


def test_korean_xml_in_its_old_encoding(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(
        f'<?xml version="1.0" encoding="euc-kr"?>{article(body="<body><p>환자</p></body>", attributes="")}'.encode(
            "euc-kr"
        )
    )
    assert [record.language for record in read("literature", path).records] == ["ko"]


def test_a_real_article(read: Read, real: Callable[[str], Path]) -> None:
    got = read("literature", real("../shared/data/literature_qa/pmc6329583.xml"))
    (record,) = got.records
    assert record.ids == ("pmcid:PMC6329583", "pmid:30311380", "doi:10.1002/humu.23636")
    assert (record.date, record.license, len(record.content["sections"])) == ("2018-11", "LicenseRef-PMC-OA-Other", 19)
    assert [note.text for note in got.notes] == ["1 articles; 54 references left out"]
