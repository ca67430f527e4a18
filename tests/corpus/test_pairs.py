"""Pairs: side by side as drawn, everything else where it was, and what training then sees together."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpus import together
from corpus.encoding import Shaping, make_tokenizer, write_shards
from corpus.pairs import Document, Pairs, spoken
from corpus.ranges import Range, lines, records_file
from corpus.shards import Shards, open_shards

WHOLE = 1 << 30


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, write_records: Callable[..., None]) -> Path:
    """70 pairs, some held out; one English text without Korean, one Korean text with the pair of another."""
    folder = tmp_path_factory.mktemp("pairs")
    for split, numbers in (("train", range(60)), ("valid", range(60, 70))):
        english = [(f"Patient {number} has a fever.", f"p{number}") for number in numbers]
        korean = [(f"환자 {number}번은 열이 있다.", f"p{number}") for number in reversed(numbers)]
        write_records(folder, "text.en", split, [*english, ("No Korean here.", "alone"), ("No pair.", None)])
        write_records(folder, "text.ko", split, [*korean, ("다른 번역이다.", f"p{numbers[0]}")])
    return folder


def pairs_of(records: Path, folder: Path, *, rate: float, seed: int = 1, size: int = 700) -> Pairs:
    """Returns the pairs as the stage finds them: noted range by range."""
    pairs = Pairs(records=records, tables=folder, rate=rate, seed=seed)
    for name in spoken(records):
        for split in ("train", "valid"):
            ranges = Range.of(records_file(records, stream=name, split=split), size=size)
            pairs.keep(name, split, notes=[pairs.note(within) for within in ranges])
    return pairs


def documents(pairs: Pairs, stream: str, split: str = "train", *, size: int = 700) -> list[Document]:
    ranges = pairs.ranges(stream, split, size=size)
    return [document for within in ranges for document in pairs.documents(within, stream=stream, split=split)]


def texts(pairs: Pairs, stream: str, split: str = "train", *, size: int = 700) -> list[str]:
    return [document.record["content"]["text"] for document in documents(pairs, stream, split, size=size)]


@pytest.mark.parametrize("size", [1, 37, 300, WHOLE])
def test_ranges_of_a_file_hold_every_line_once(records: Path, size: int) -> None:
    file = records_file(records, stream="text.ko", split="train")
    found = [line for within in Range.of(file, size=size) for line in lines(within)]
    assert b"".join(line for _, line in found) == file.read_bytes()
    assert all(file.read_bytes()[place:].startswith(line) for place, line in found)


def test_without_a_rate_streams_are_those_of_prepare(records: Path, tmp_path: Path) -> None:
    pairs = Pairs(records=records, tables=tmp_path / "none")
    assert pairs.streams() == ["text.en", "text.ko"]
    assert all(document.label is None for document in documents(pairs, "text.ko"))
    assert len(documents(pairs, "text.en")) == 62


def test_all_pairs_stand_side_by_side_in_an_order_drawn_for_each(records: Path, tmp_path: Path) -> None:
    pairs = pairs_of(records, tmp_path, rate=1.0)
    assert pairs.streams() == ["text.en", "text.en+ko", "text.ko"]
    found = documents(pairs, "text.en+ko", size=WHOLE)
    assert len(found) == 120
    firsts = []
    for number, (one, other) in enumerate(zip(found[::2], found[1::2], strict=True)):
        assert one.record["pair"] == other.record["pair"] == f"p{number}"
        assert {one.record["language"], other.record["language"]} == {"en", "ko"}
        for document in (one, other):
            assert document.label == (number, ["en", "ko"].index(document.record["language"]))
        firsts.append(one.record["language"])
    assert 15 < firsts.count("en") < 45
    assert texts(pairs, "text.en") == ["No Korean here.", "No pair."]
    assert texts(pairs, "text.ko") == ["다른 번역이다."]
    copied = pickle.loads(pickle.dumps(pairs))  # noqa: S301 - our own bytes
    assert texts(copied, "text.en+ko") == texts(pairs, "text.en+ko", size=WHOLE)


def test_the_rate_is_the_share_of_pairs_and_nothing_is_lost_or_doubled(records: Path, tmp_path: Path) -> None:
    plain, half, third, other = (
        pairs_of(records, tmp_path / str(number), rate=rate, seed=seed)
        for number, (rate, seed) in enumerate([(0.0, 1), (0.5, 1), (0.3, 1), (0.5, 2)])
    )
    for split in ("train", "valid"):
        whole = sorted(texts(plain, "text.en", split) + texts(plain, "text.ko", split))
        assert sorted(text for stream in half.streams() for text in texts(half, stream, split)) == whole
    packed = texts(half, "text.en+ko")
    assert 0.3 < len(packed) / 120 < 0.7
    assert texts(other, "text.en+ko") != packed
    assert set(texts(third, "text.en+ko")) < set(packed)


def test_three_languages_stand_together_where_there_are_three(
    tmp_path: Path, write_records: Callable[..., None]
) -> None:
    for split in ("train", "valid"):
        write_records(tmp_path, "text.en", split, [("a", "1"), ("b", "2")])
        write_records(tmp_path, "text.ja", split, [("c", "1"), ("d", "3")])
        write_records(tmp_path, "text.ko", split, [("e", "1"), ("f", "2"), ("g", "3")])
    pairs = pairs_of(tmp_path, tmp_path / "tables", rate=1.0)
    found = {name: sorted(texts(pairs, name)) for name in pairs.streams()}
    assert {name: each for name, each in found.items() if each} == {
        "text.en+ja+ko": ["a", "c", "e"],
        "text.en+ko": ["b", "f"],
        "text.ja+ko": ["d", "g"],
    }


@pytest.fixture(scope="module")
def shards(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards")
    tokenizer = make_tokenizer(records, base=None, vocab_size=704)
    write_shards(records, folder, tokenizer=tokenizer, shaping=Shaping(pairs=0.5, seed=1))
    return open_shards(folder)


def test_shards_give_each_token_its_document_group_and_language(records: Path, shards: Shards, tmp_path: Path) -> None:
    stream = shards.stream("text.en+ko", "train")
    told = documents(pairs_of(records, tmp_path, rate=0.5), "text.en+ko", size=WHOLE)
    offsets = stream.doc_offsets()
    whole = stream.ids(0, len(stream))
    assert whole.dtype == np.int32
    for number, document in enumerate(told):
        assert document.label is not None
        expected = np.array([number, *document.label])
        assert np.array_equal(np.unique(whole[:, offsets[number] : offsets[number + 1]], axis=1)[:, 0], expected)
        assert stream.locate(int(offsets[number])).record == document.record["id"]
    assert np.array_equal(stream.ids(5, 60), whole[:, 5:60])
    alone = shards.stream("text.en", "train").ids(0, 200)
    assert np.array_equal(alone[0], alone[1])
    assert not alone[2].any()


def test_the_shares_are_what_a_count_over_all_windows_finds(shards: Shards) -> None:
    for mode in ("causal", "document", "xlda"):
        found = together.shares(shards, seq_length=64, attention_mask=mode)
        assert 0.1 < found["bilingual"] < 0.9
        if mode == "document":
            assert (found["ko_after_en"], found["en_after_ko"]) == (0, 0)
    causal, xlda = (together.shares(shards, seq_length=64, attention_mask=mode) for mode in ("causal", "xlda"))
    assert 0 < xlda["ko_after_en"] < causal["ko_after_en"] < 1


def test_a_token_sees_the_other_language_only_in_its_group() -> None:
    ids = np.array([[0, 1, 1, 2, 3], [0, 0, 0, 1, 1], [0, 1, 1, 1, 0]], np.int32)
    english = ids[2] == 0
    assert together._seen(ids, english, mode="xlda").tolist() == [False, True, True, False, False]
    assert together._seen(ids, english, mode="causal").tolist() == [False, True, True, True, True]
