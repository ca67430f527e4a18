"""Duplicates: which records go, which stay, and that nothing but their order decides."""

import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash

from corpus.gates import buckets
from corpus.gates.config import DuplicatesConfig
from corpus.gates.duplicates import Found, Keys, find, signatures
from corpus.gates.shingles import shingles

CONFIG = DuplicatesConfig()
KOREAN = [
    "환자",
    "의사",
    "간호사",
    "병원",
    "진단",
    "치료",
    "약물",
    "용량",
    "부작용",
    "시험",
    "대상",
    "결과",
    "분석",
    "비교",
    "관찰",
    "기간",
    "검사",
    "수치",
    "증가",
    "감소",
]


def _english(rng: random.Random, words: int = 200) -> str:
    return " ".join(f"word{rng.randrange(5000)}" for _ in range(words))


def _korean(rng: random.Random, words: int = 120) -> str:
    return " ".join(
        rng.choice(KOREAN) + rng.choice("은는이가을를의에") + chr(0xAC00 + rng.randrange(2000)) for _ in range(words)
    )


def _edited(text: str, rng: random.Random, *, every: int) -> str:
    words = text.split()
    for place in range(rng.randrange(every), len(words), every):
        words[place] = words[place][::-1] + "x"
    return " ".join(words)


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Found]:
    """Collects keys, a folder for each list of texts, and compares them."""

    def compare(*texts: Sequence[str | None], config: DuplicatesConfig = CONFIG, name: str = "a") -> Found:
        folders = []
        for number, some in enumerate(texts):
            folders.append(tmp_path / name / str(number))
            folders[-1].mkdir(parents=True)
            with Keys(config) as keys:
                for place, text in enumerate(some):
                    own = f"{number}.{place}" if text is None else text
                    keys.add(sha256(own.encode()).digest()[:16], text)
                keys.save(folders[-1])
        (tmp_path / name / "work").mkdir()
        return find(folders, config=config, workdir=tmp_path / name / "work")

    return compare


def _rows(found: Found, folders: int) -> list[tuple[int, int, int, int, bool]]:
    return [
        (number, int(row["record"]), int(row["folder"]), int(row["of"]), bool(row["exact"]))
        for number in range(folders)
        for row in found.of(number)
    ]


def test_the_later_of_equal_records_goes_within_and_across_folders(compare: Callable[..., Found]) -> None:
    found = compare(["a b", "c d", "a b"], ["e f", "c d"], [])
    assert _rows(found, 3) == [(0, 2, 0, 0, True), (1, 1, 0, 1, True)]
    assert (found.exact, found.near) == (2, 0)
    assert found.pairs(["x", "y", "z"]) == [("x", "x", 1), ("y", "x", 1)]


@pytest.mark.parametrize("make", [_english, _korean])
def test_nearly_equal_texts_go_and_different_ones_stay(compare: Callable[..., Found], make: Callable[..., str]) -> None:
    rng = random.Random(1)
    texts = [make(rng) for _ in range(60)]
    changed = [_edited(text, rng, every=100) for text in texts[:20]]
    again = [f"  {text.upper()}!" for text in texts[20:30]]
    found = compare(texts, changed + again)
    assert [row[:4] for row in _rows(found, 2)] == [(1, place, 0, place) for place in range(30)]
    assert (found.exact, found.near) == (0, 30)
    assert (found.of(1)["similarity"] >= CONFIG.threshold).all()


def test_a_text_stays_that_is_only_like_one_that_went(compare: Callable[..., Found]) -> None:
    rng = random.Random(2)
    chain = [_english(rng)]
    for _ in range(4):
        chain.append(_edited(chain[-1], rng, every=60))
    found = compare(chain)
    rows = found.of(0)
    gone = set(rows["record"].tolist())
    assert gone
    assert not gone & set(rows["of"].tolist()), "what is kept instead is itself kept"
    assert 4 not in gone, "the last is unlike the first"


def test_short_texts_and_records_without_text_are_compared_exactly_only(compare: Callable[..., Found]) -> None:
    found = compare(["Fracture of the left hand", "fracture of the left hand!", "", "..."], [None, None])
    assert (found.exact, found.near) == (0, 0)
    off = compare(["w " * 100, "w " * 101], config=DuplicatesConfig(near=False), name="off")
    assert off.near == 0


def test_the_result_depends_on_order_alone(compare: Callable[..., Found], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    texts = [_english(rng, 80) for _ in range(300)]
    texts += [_edited(text, rng, every=40) for text in texts[::3]] + texts[::7]
    whole = compare(texts)
    monkeypatch.setattr(buckets, "_ROWS", 16)
    parts = compare(texts[:100], texts[100:101], texts[101:], name="parts")
    starts = np.asarray([0, 100, 101])
    joined = [
        (0, int(starts[folder]) + record, 0, int(starts[of_folder]) + of, exact)
        for folder, record, of_folder, of, exact in _rows(parts, 3)
    ]
    assert joined == _rows(whole, 1)
    assert whole.exact
    assert whole.near


def test_signatures_are_those_of_datasketch() -> None:
    rng = random.Random(4)
    texts = [_english(rng), _korean(rng), "one two", "", "가나다"]
    found, enough = signatures(texts, CONFIG)
    assert enough.tolist() == [True, True, False, False, False]
    for text, signature in zip(texts, found, strict=True):
        hashes, _, _ = shingles([text], CONFIG.shingle)
        theirs = MinHash(num_perm=CONFIG.num_perm, seed=1, hashfunc=lambda value: value)
        theirs.update_batch((hashes >> np.uint64(32)).tolist())
        assert not text or signature.tolist() == theirs.hashvalues.tolist()


def test_texts_are_signed_alike_alone_and_together() -> None:
    rng = random.Random(5)
    texts = [_english(rng, 20 + number) for number in range(30)] + [_korean(rng)]
    together, _ = signatures(texts, CONFIG)
    assert all((signatures([text], CONFIG)[0][0] == row).all() for text, row in zip(texts, together, strict=True))


def test_a_key_of_another_length_is_refused() -> None:
    with Keys(CONFIG) as keys, pytest.raises(ValueError, match="a key must have 16 bytes, but has 3; cut the digest"):
        keys.add(b"abc", None)
