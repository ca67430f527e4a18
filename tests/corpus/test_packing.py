"""Packing: pairs side by side as drawn, everything else where it was, and what training then sees together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus import packing
from corpus.encoding import make_tokenizer, write_shards
from corpus.merging import prepare
from corpus.shards import Shards, open_shards
from corpus.source import Source
from corpus.units import Settings


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pairs, one without Korean, and two pairs with the same English; a tenth or so held out."""
    folder = tmp_path_factory.mktemp("packing")
    rows = [{"en": f"Patient {number} has a fever.", "ko": f"환자 {number}번은 열이 있다."} for number in range(60)]
    rows += [{"en": "No Korean here.", "ko": "no"}, {"en": rows[0]["en"], "ko": "다른 번역이다."}]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Source.model_validate(
        {"name": "t", "modality": "text", "path": str(folder / "pairs.jsonl"), "license": "MIT"}
    )
    prepare([source], folder / "prepare", settings=Settings(root=folder, seed=3, valid_fraction=0.15))
    return folder / "prepare"


def texts(records: Path, stream: str, split: str = "train", *, rate: float, seed: int = 1) -> list[str]:
    found = packing.plan(records, rate=rate, seed=seed)
    return [document.record["content"]["text"] for document in found.documents(stream, split)]


def test_without_a_rate_streams_are_those_of_prepare(records: Path) -> None:
    found = packing.plan(records, rate=0.0, seed=1)
    assert found.streams() == ["text.en", "text.ko"]
    assert all(document.label is None for document in found.documents("text.ko", "train"))


def test_all_pairs_stand_side_by_side_in_an_order_drawn_for_each(records: Path) -> None:
    found = packing.plan(records, rate=1.0, seed=1)
    assert found.streams() == ["text.en", "text.en+ko", "text.ko"]
    documents = [*found.documents("text.en+ko", "train"), *found.documents("text.en+ko", "valid")]
    assert len(documents) == 120
    firsts = []
    for one, other in zip(documents[::2], documents[1::2], strict=True):
        assert one.record["pair"] == other.record["pair"]
        assert {one.record["language"], other.record["language"]} == {"en", "ko"}
        for document in (one, other):
            assert document.label == (one.label and one.label[0], ["en", "ko"].index(document.record["language"]))
        firsts.append(one.record["language"])
    assert 15 < firsts.count("en") < 45
    left = [*texts(records, "text.en", rate=1.0), *texts(records, "text.en", "valid", rate=1.0)]
    assert left == ["No Korean here."]
    assert [*texts(records, "text.ko", rate=1.0), *texts(records, "text.ko", "valid", rate=1.0)] == ["다른 번역이다."]


def test_the_rate_is_the_share_of_pairs_and_nothing_is_lost_or_doubled(records: Path) -> None:
    whole = sorted(texts(records, "text.en", rate=0.0) + texts(records, "text.ko", rate=0.0))
    half = {stream: texts(records, stream, rate=0.5) for stream in ("text.en", "text.en+ko", "text.ko")}
    assert sorted(text for found in half.values() for text in found) == whole
    assert 0.3 < len(half["text.en+ko"]) / len(whole) < 0.7
    assert texts(records, "text.en+ko", rate=0.5) == half["text.en+ko"]
    assert texts(records, "text.en+ko", rate=0.5, seed=2) != half["text.en+ko"]
    assert set(texts(records, "text.en+ko", rate=0.3)) <= set(half["text.en+ko"])


@pytest.fixture(scope="module")
def shards(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards")
    tokenizer = make_tokenizer(records, base=None, vocab_size=704)
    settings: dict[str, Any] = {"shard_tokens": 1 << 16, "weights": None, "progress": lambda *_: None}
    write_shards(records, folder, tokenizer=tokenizer, packing=packing.plan(records, rate=0.5, seed=1), **settings)
    return open_shards(folder)


def test_shards_give_each_token_its_document_group_and_language(records: Path, shards: Shards) -> None:
    stream = shards.stream("text.en+ko", "train")
    documents = list(packing.plan(records, rate=0.5, seed=1).documents("text.en+ko", "train"))
    offsets = stream.doc_offsets()
    whole = stream.ids(0, len(stream))
    assert whole.dtype == np.int32
    for number, document in enumerate(documents):
        assert document.label is not None
        expected = np.array([number, *document.label])
        assert np.array_equal(np.unique(whole[:, offsets[number] : offsets[number + 1]], axis=1)[:, 0], expected)
    assert np.array_equal(stream.ids(5, 60), whole[:, 5:60])
    alone = shards.stream("text.en", "train").ids(0, 200)
    assert np.array_equal(alone[0], alone[1])
    assert not alone[2].any()


def test_the_shares_are_what_a_count_over_all_windows_finds(shards: Shards) -> None:
    for mode in ("causal", "document", "xlda"):
        found = packing.shares(shards, seq_length=64, attention_mask=mode)
        assert 0.1 < found["bilingual"] < 0.9
        if mode == "document":
            assert (found["ko_after_en"], found["en_after_ko"]) == (0, 0)
    causal, xlda = (packing.shares(shards, seq_length=64, attention_mask=mode) for mode in ("causal", "xlda"))
    assert 0 < xlda["ko_after_en"] < causal["ko_after_en"] < 1


def test_a_token_sees_the_other_language_only_in_its_group() -> None:
    ids = np.array([[0, 1, 1, 2, 3], [0, 0, 0, 1, 1], [0, 1, 1, 1, 0]], np.int32)
    english = ids[2] == 0
    assert packing._seen(ids, english, mode="xlda").tolist() == [False, True, True, False, False]
    assert packing._seen(ids, english, mode="causal").tolist() == [False, True, True, True, True]
