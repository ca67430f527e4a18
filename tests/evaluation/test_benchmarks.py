"""Every benchmark on small records of its own modality: what it asks, its choices, its baseline, what it leaves out."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks import benchmark, benchmarks
from evaluation.benchmarks.bilingual_pair import sentences
from evaluation.benchmarks.text_continuation import PLACES, continuations
from evaluation.heldout import Records

DOCUMENTS = {
    f"d{number}": (
        f"Title {number}\n\nFirst fact {number}. Second fact {number}! Third fact {number}?",
        f"제목 {number}\n\n첫째 사실 {number}. 둘째 사실 {number}! 셋째 사실 {number}?",
    )
    for number in range(5)
}


def write(
    folder: Path, stream: str, split: str, contents: list[dict[str, Any]], *, groups: list[str] | None = None
) -> None:
    modality, _, language = stream.partition(".")
    path = folder / "records" / f"{stream}.{split}.jsonl"
    path.parent.mkdir(exist_ok=True)
    common = {
        "modality": modality,
        "stream": stream,
        "source": "made",
        "license": "CC0-1.0",
        "language": language or None,
    }
    names = groups or [f"{split}{number}" for number in range(len(contents))]
    lines = [
        json.dumps({"id": f"{number}", **common, "group": group, "content": content}, ensure_ascii=False)
        for number, (group, content) in enumerate(zip(names, contents, strict=True))
    ]
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Three molecules of two classes to train on, and two documents in two languages."""

    def molecule(smiles: str, **properties: str) -> dict[str, Any]:
        return {"smiles": smiles, "properties": properties}

    def trial(death: str, **more: str) -> dict[str, Any]:
        return {"fields": {"study": "made", "age": "70"}, "outcome": {"death": death, **more}}

    write(
        tmp_path,
        "molecule",
        "train",
        [
            molecule("CC", solubility="low"),
            molecule("CCO", solubility="high"),
            molecule("C", solubility="low"),
            molecule("N"),
        ],
    )
    write(
        tmp_path,
        "molecule",
        "valid",
        [molecule("CCC", solubility="low", drug="propane"), molecule("CO", solubility="unheard of"), molecule("CN")],
    )
    proteins = [{"sequence": "GLWSK", "properties": {"antimicrobial": value}} for value in ("yes", "no", "yes")]
    write(tmp_path, "protein", "train", proteins)
    write(tmp_path, "protein", "valid", proteins[1:2])
    cells = [
        {"genes": ["CD3D", "CD74"], "properties": {"cell type": value}} for value in ("CD34+", "CD34+ T", "CD34+ T")
    ]
    write(tmp_path, "omics", "train", cells)
    write(tmp_path, "omics", "valid", cells[:1])
    write(tmp_path, "trial", "train", [trial("yes", weeks="3"), trial("yes", weeks="8"), trial("no", weeks="5")])
    write(tmp_path, "trial", "valid", [trial("no", weeks="3")])
    for index, language in enumerate(("en", "ko")):
        texts = [{"text": pair[index]} for pair in DOCUMENTS.values()]
        write(tmp_path, f"text.{language}", "train", texts)
        write(tmp_path, f"text.{language}", "valid", texts, groups=list(DOCUMENTS))
    return Records(folder=tmp_path, seed=1)


@pytest.mark.parametrize("name", benchmarks())
def test_a_benchmark_is_one_file_that_says_what_it_is(name: str, records: Records) -> None:
    found = benchmark(name)
    assert found.QUESTION.endswith("?")
    assert found.BASELINE
    documented = (Path("evaluation/benchmarks") / f"{name}.py").read_text().partition('"""\n\n')[0]
    for part in ("Reads", "prompt ", "choices ", "answer "):
        assert part in documented, f"the docstring of {name} must hold a real item"
    items = found.items(records)
    assert items
    assert {item.stream.partition(".")[0] for item in items} == {found.MODALITY}
    assert found.items(records) == items


@pytest.mark.parametrize("name", benchmarks())
def test_a_run_without_the_modality_has_no_items(name: str, tmp_path: Path) -> None:
    assert benchmark(name).items(Records(folder=tmp_path, seed=1)) == []


def test_solubility_is_asked_behind_the_molecule_and_nothing_else_is_told(records: Records) -> None:
    (item,) = benchmark("molecule_solubility").items(records)
    assert item.prompt == "<|molecule|><|mol:C|><|mol:C|><|mol:C|><|/molecule|> solubility:"
    assert item.choices == (" high<|eod|>", " low<|eod|>")
    assert (item.answer, item.guess, item.baseline) == (1, 1, 1)
    assert item.group == "valid0"
    assert records.left_out == {"solubility": 1}, "the class that no train record has"


def test_the_records_with_the_smallest_ids_that_have_the_annotation_are_kept(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ids 0 to 3, record 3 has no class: two of the others are kept, in whatever order they were written."""
    path = records.folder / "records" / "molecule.train.jsonl"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[::-1]))
    monkeypatch.setattr("evaluation.heldout.TRAIN_RECORDS", 2)
    monkeypatch.setattr("evaluation.heldout.HELD_OUT_RECORDS", 1)
    assert records.train("molecule", lambda record: record["content"]["properties"].get("solubility")) == [
        "low",
        "high",
    ]
    assert records.held_out("molecule", lambda record: record["id"] if record["id"] != "0" else None) == ["1"]
    assert records.held_out("absent", lambda record: record) == []
    (item,) = benchmark("molecule_solubility").items(records)
    assert item.group == "valid0"


def test_the_baseline_of_peptides_is_the_majority_of_the_train_split(records: Records) -> None:
    (item,) = benchmark("peptide_activity").items(records)
    assert item.prompt.endswith("<|aa:K|><|/protein|> antimicrobial:")
    assert item.choices[item.guess or 0] == " yes<|eod|>"
    assert item.baseline == 0


def test_no_type_of_cell_is_the_beginning_of_another(records: Records) -> None:
    (item,) = benchmark("cell_type").items(records)
    assert item.choices == (" CD34+<|eod|>", " CD34+ T<|eod|>")
    assert item.prompt == "<|cell|><|gene:CD3D|><|gene:CD74|><|/cell|> cell type:"


def test_only_outcomes_that_are_yes_or_no_are_asked(records: Records) -> None:
    (item,) = benchmark("trial_outcome").items(records)
    assert item.prompt == "<|trial|> study: made\nage: 70<|/trial|> death:"
    assert item.choices == (" no<|eod|>", " yes<|eod|>")


def test_continuations_stand_between_two_sentences_of_a_paragraph() -> None:
    assert continuations("Title. \n\nA fact. Another, e.g. this! The third") == [
        ("Title. \n\nA fact.", " Another, e.g. this!")
    ]
    assert len(continuations("A fact. " * 100)) == PLACES
    assert continuations("E11 Type 2 diabetes\nE11.0 With hyperosmolarity") == []


def test_a_document_goes_on_in_its_own_language_and_its_own_words(records: Records) -> None:
    items = benchmark("text_continuation").items(records)
    assert len(items) == 2 * 2 * len(DOCUMENTS)
    for item in items:
        written = [pair[item.stream == "text.ko"] for group, pair in DOCUMENTS.items() if group == item.group]
        assert f"{item.prompt.removeprefix('<|text|>')}{item.choices[item.answer]}" in written[0]
        wrong = [choice for number, choice in enumerate(item.choices) if number != item.answer]
        assert not any(choice in written[0] for choice in wrong)


def test_translations_are_paired_sentence_by_sentence(records: Records) -> None:
    items = benchmark("bilingual_pair").items(records)
    assert len(items) == 4 * len(DOCUMENTS)
    first = next(item for item in items if item.prompt == "<|text|>First fact 2.<|/text|><|eod|><|text|>")
    assert first.choices[first.answer] == "첫째 사실 2."
    assert first.group == "d2"
    assert first.baseline == 0.25


def test_documents_of_unequal_length_are_not_paired(records: Records) -> None:
    longer = [{"text": f"{pair[1]} 넷째."} for pair in DOCUMENTS.values()]
    write(records.folder, "text.ko", "valid", longer, groups=list(DOCUMENTS))
    assert benchmark("bilingual_pair").items(records) == []
    assert sentences("제목\n\n첫째. 둘째!") == ["제목", "첫째.", "둘째!"]


def test_an_unknown_benchmark_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"'molecule_solubilty' is none; did you mean molecule_solubility\?"):
        benchmark("molecule_solubilty")
    with pytest.raises(ValueError, match="'zzz' is none; use some of bilingual_pair, cell_type"):
        benchmark("zzz")
