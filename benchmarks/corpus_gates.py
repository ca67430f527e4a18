"""What the gates find, miss and cost: `python benchmarks/corpus_gates.py [--data ../shared/data]`.

Writes docs/benchmarks/corpus-gates.md: recall and false positives of the search for personal data, precision and recall
of near duplicates by edit rate, planted questions, what quality filters take from real files, MB/s of each gate on one
core, and what thirty times the records cost.
"""

import argparse
import gzip
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np

from corpus.gates import quality
from corpus.gates.config import ACTIONS, DuplicatesConfig, GatesConfig
from corpus.gates.contamination import Index, build
from corpus.gates.duplicates import Found, Keys, find
from corpus.gates.personal import scan
from corpus.gates.resident import checks
from corpus.gates.shingles import shingles
from corpus.modality import Record, SourceError, modality
from corpus.symbols import plain

ROOT = Path(__file__).resolve().parents[1]
FORMS: dict[str, Callable[[str, str], str]] = {
    "900101-1234567": lambda first, second: f"{first}-{second}",
    "9001011234567": lambda first, second: first + second,
    "900101 1234567": lambda first, second: f"{first} {second}",
    "full width": lambda first, second: "".join(chr(ord(letter) + 0xFEE0) for letter in f"{first}-{second}"),
    "900101 – 1234567": lambda first, second: f"{first} – {second}",
    "900101·1234567": lambda first, second: f"{first}·{second}",
    "900101-1\\*\\*\\*\\*\\*\\*": lambda first, second: f"{first}-{second[0]}******",
    "line break behind the dash": lambda first, second: f"{first}-\n{second}",
    "90.01.01-1234567": lambda first, second: f"{first[:2]}.{first[2:4]}.{first[4:]}-{second}",
    "900101.1234567": lambda first, second: f"{first}.{second}",
    "line break inside of a half": lambda first, second: f"{first}-{second[:3]}\n{second[3:]}",
}
PLACES = ("환자 주민번호는 {}이며 내원하였다.", "홍길동({})", "The number {} was in the file.", "{}", "id: {}\nage: 63")
OTHERS = ("email", "phone_kr", "phone_us", "phone_other", "name", "titled_name", "birth_date")
PAIRS = 400


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/corpus-gates.md")
    parser.add_argument("--find", nargs=2, metavar=("FOLDER", "TEXTS"), help="used by itself, in a process of its own")
    options = parser.parse_args()
    if options.find:
        print(json.dumps(_compare(Path(options.find[0]), int(options.find[1]))))
        return
    data = options.data
    parts = [_head(), *_personal(data), *_near(), *_questions(data), *_filters(data), *_speed(data), *_growth()]
    options.out.write_text("\n".join(parts) + "\n")
    print("\n".join(parts))


def _head() -> str:
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.0f}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return (
        "# Gates: what they find, miss and cost\n\n"
        f"`python benchmarks/corpus_gates.py`, {datetime.now(UTC):%Y-%m-%d}, {machine}, {versions}. "
        "One process, one thread; seconds are of the processor.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def _personal(data: Path) -> Iterator[str]:
    rng, rows = random.Random(5), []
    for form, write in FORMS.items():
        found = sum(_is_found(PLACES[number % 5].format(write(*_number(rng)))) for number in range(50))
        rows.append((form, f"{found} of 50"))
    yield "## Personal data: recall\n"
    yield (
        "Planted Korean resident numbers, half of them with a random check digit; alone, in Korean or in English text. "
        "The first eight forms are 400 numbers.\n"
    )
    yield _table(("written", "found"), rows)
    yield "## Personal data: false positives\n"
    yield (
        "Every file of the shared data as raw text; of one that is no text, its strings. Numbers are all kinds but "
        "those of the last column. None should be there but the social security numbers of synthetic patients. "
        "E-mail addresses, phones and titled names were looked at in part: they are real.\n"
    )
    counted = {path: _kinds(path) for path in sorted(data.rglob("*")) if path.is_file()}
    some = [(path, kinds) for path, kinds in counted.items() if kinds]
    rows = [
        (path.relative_to(data), sum(number for kind, number in kinds.items() if kind not in OTHERS), _others(kinds))
        for path, kinds in some
    ]
    total: Counter[str] = sum((kinds for _, kinds in some), Counter())
    every = sum(number for kind, number in total.items() if kind not in OTHERS)
    rows.append((f"**all {len(counted)} files**", f"**{every}** ({total['ssn']} ssn)", _others(total)))
    yield _table(("file", "numbers", "other kinds"), rows)


def _others(kinds: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common() if kind in OTHERS)


def _number(rng: random.Random) -> tuple[str, str]:
    day = date(1930, 1, 1) + timedelta(days=rng.randrange(94 * 365))
    first = day.strftime("%y%m%d")
    second = rng.choice("12" if day.year < 2000 else "34") + f"{rng.randrange(10**6):06d}"
    if rng.random() < 0.5:
        second = next(second[:6] + last for last in "0123456789" if checks(first + second[:6] + last))
    return first, second


def _is_found(text: str) -> bool:
    return any(hit.kind == "resident_number" for hit in scan(text, ACTIONS))


def _kinds(path: Path) -> Counter[str]:
    counted: Counter[str] = Counter()
    for data in _members(path):
        strings = re.findall(rb"[ -~]{6,}", data) if b"\0" in data[:4096] else [data]
        text = b"\n".join(strings).decode("utf-8", "replace")
        for begin in range(0, len(text), 1 << 20):
            counted.update(hit.kind for hit in scan(text[begin : begin + (1 << 20)], ACTIONS))
    return counted


def _members(path: Path) -> Iterator[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    else:
        yield gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _near() -> Iterator[str]:
    yield "## Near duplicates\n"
    yield (
        f"{PAIRS} texts of 300 words, as many copies with some words replaced, and {PAIRS} more texts. The true "
        "similarity is that of the sets of shingles. A pair below the threshold of 0.8 should stay.\n"
    )
    rows = []
    for language, make in (("English", _english), ("Korean", _korean)):
        for percent in (0.5, 1, 2, 3, 5, 10):
            rng = random.Random(percent)
            texts = [make(rng) for _ in range(PAIRS)]
            copies = [_edited(text, rng, share=percent / 100) for text in texts]
            true = [_jaccard(text, copy) for text, copy in zip(texts, copies, strict=True)]
            rows.append((language, f"{percent} %", *_judged(texts, copies, [make(rng) for _ in range(PAIRS)], true)))
    yield _table(
        ("", "words replaced", "true similarity", "found of those above", "removed of those below", "others removed"),
        rows,
    )


def _judged(texts: list[str], copies: list[str], others: list[str], true: list[float]) -> tuple[str, str, str, str]:
    with tempfile.TemporaryDirectory() as folder:
        found = _found(Path(folder), [texts + others, copies])
        rows = found.of(1)
        hit = {int(row["record"]) for row in rows if row["folder"] == 0 and row["of"] == row["record"]}
        wrong = len(rows) - len(hit) + len(found.of(0))
    above = [number for number, value in enumerate(true) if value >= 0.8]
    below = [number for number, value in enumerate(true) if value < 0.8]
    return (
        f"{np.median(true):.2f} ({min(true):.2f} to {max(true):.2f})",
        f"{sum(number in hit for number in above)} of {len(above)}",
        f"{sum(number in hit for number in below)} of {len(below)}",
        str(wrong),
    )


def _found(folder: Path, parts: list[list[str]]) -> Found:
    config, folders = DuplicatesConfig(), []
    for number, texts in enumerate(parts):
        folders.append(folder / str(number))
        folders[-1].mkdir()
        with Keys(config) as keys:
            for text in texts:
                keys.add(sha256(text.encode()).digest()[:16], text)
            keys.save(folders[-1])
    (folder / "work").mkdir()
    return find(folders, config=config, workdir=folder / "work")


def _english(rng: random.Random) -> str:
    return " ".join(f"w{int(rng.paretovariate(0.6)) % 20_000}" for _ in range(300))


def _korean(rng: random.Random) -> str:
    return " ".join(
        "".join(chr(0xAC00 + int(rng.paretovariate(0.5)) % 2000) for _ in range(rng.randint(2, 4))) for _ in range(300)
    )


def _edited(text: str, rng: random.Random, *, share: float) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = words[place][::-1] + rng.choice(words[place])
    return " ".join(words)


def _jaccard(left: str, right: str) -> float:
    first, second = (set(shingles([text], DuplicatesConfig().shingle)[0].tolist()) for text in (left, right))
    return len(first & second) / len(first | second)


def _questions(data: Path) -> Iterator[str]:
    yield "## Evaluation sets\n"
    rows, rng = [], random.Random(7)
    around = "We met the family twice that year and wrote down what they said. " * 3
    for name, file, column in (
        ("medmcqa", "literature_qa/medmcqa_dev_part.jsonl", "question"),
        ("ntrex, English", "ko_en/ntrex_en_ko_dev.jsonl", "en"),
        ("ntrex, Korean", "ko_en/ntrex_en_ko_dev.jsonl", "ko"),
    ):
        texts = [json.loads(line)[column] for line in (data / file).read_text().splitlines()]
        with tempfile.TemporaryDirectory() as folder:
            benchmark = {"name": "exam", "path": str(data / file), "columns": [column]}
            config = GatesConfig.model_validate({"contamination": {"benchmarks": [benchmark]}}).contamination
            build(config, data, folder=Path(folder))
            index = Index.load(Path(folder))
            told = [
                number in index.check(f"{around}{_mangled(text, rng)} {around}", ()).get("exam", ())
                for number, text in enumerate(texts)
            ]
            checkable = index.benchmarks()["exam"]["checkable"]
            others = [
                text for path in sorted(data.glob("literature_qa/*articles*")) for text in path.read_text().splitlines()
            ]
            wrong = sum(bool(index.check(text, ())) for text in others)
        rows.append((name, len(texts), checkable, sum(told), f"{wrong} of {len(others)}"))
    yield (
        "Each item planted in other text, in another case and with other punctuation. What cannot be checked is "
        "shorter than 8 words (18 letters of Korean); only its ids find it. The last column is of real articles.\n"
    )
    yield _table(("benchmark", "items", "checkable", "found", "articles that are said to hold one"), rows)


def _mangled(text: str, rng: random.Random) -> str:
    return re.sub(
        r"(?<!\d)[,;:?!](?!\d)",
        lambda _: rng.choice([" - ", " ", "! "]),
        text.upper() if rng.random() < 0.5 else text.lower(),
    )


def _texts(data: Path, pattern: str, name: str) -> Iterator[tuple[Path, list[tuple[str, str | None]]]]:
    reader = modality(name)
    for path in sorted(data.glob(pattern)):
        try:
            items = list(reader.read(path, reader.Options.model_validate({})))
        except SourceError:
            continue
        yield path, [(plain(reader.render(item.content)), item.language) for item in items if isinstance(item, Record)]


def _filters(data: Path) -> Iterator[str]:
    yield "## Quality filters on real files\n"
    config, rows = GatesConfig().quality, []
    for pattern, name in (("literature_qa/*", "literature"), ("guidelines/*", "guideline"), ("ko_en/*", "text")):
        for path, texts in _texts(data, pattern, name):
            broken = [quality.judge(text, language, config=config, off=frozenset()) for text, language in texts]
            codes = Counter(found[0] for found in broken if found)
            rows.append(
                (path.relative_to(data), len(texts), ", ".join(f"{n} {code}" for code, n in codes.items()) or "none")
            )
    yield (
        "The two of `word_length` are explanations whose table lost its blanks (`AmpicillindegAspirindegAtenololdeg`); "
        "those of `no_words` are `1.` and the like, cut off as sentences.\n"
    )
    yield _table(("file", "records", "kept out"), rows)


def _speed(data: Path) -> Iterator[str]:
    yield "## MB/s of each gate, one core\n"
    articles = [
        text
        for _, texts in _texts(data, "literature_qa/evidence_inference_dev_articles*", "literature")
        for text, _ in texts
    ]
    questions = [text for _, texts in _texts(data, "literature_qa/medmcqa*", "literature") for text, _ in texts]
    korean = [text for _, texts in _texts(data, "ko_en/ntrex*", "text") for text, language in texts if language == "ko"]
    documents = ["\n".join(korean[begin : begin + 20]) for begin in range(0, len(korean), 20)]
    config = GatesConfig().quality
    with tempfile.TemporaryDirectory() as folder:
        benchmark = {
            "name": "exam",
            "path": str(data / "literature_qa/pubmedqa_pqal_dev.json"),
            "columns": ["CONTEXTS"],
        }
        build(
            GatesConfig.model_validate({"contamination": {"benchmarks": [benchmark]}}).contamination,
            data,
            folder=Path(folder),
        )
        index = Index.load(Path(folder))
        gates: dict[str, Callable[[list[str]], object]] = {
            "personal": lambda texts: [scan(text, ACTIONS) for text in texts],
            "quality": lambda texts: [quality.judge(text, None, config=config, off=frozenset()) for text in texts],
            "contamination": lambda texts: [index.check(text, ()) for text in texts],
            "keys and signatures": _keyed,
            "datasketch's own MinHash, a text at a time": _theirs,
        }
        rows = [
            (name, *(f"{_rate(run, texts):.1f}" for texts in (articles, questions, documents)))
            for name, run in gates.items()
        ]
    sizes = [f"{sum(map(len, texts)) / len(texts):,.0f}" for texts in (articles, questions, documents)]
    head = ("", f"articles ({sizes[0]} letters)", f"questions ({sizes[1]})", f"Korean news ({sizes[2]})")
    yield _table(head, rows)
    yield "The last row makes the same 128 values with datasketch's loop, from shingles of one text at a time.\n"


def _rate(run: Callable[[list[str]], object], texts: list[str]) -> float:
    run(texts[:50])
    started = time.process_time()
    run(texts)
    return sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - started)


def _keyed(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, Keys(DuplicatesConfig()) as keys:
        for text in texts:
            keys.add(sha256(text.encode()).digest()[:16], text)
        keys.save(Path(folder))


def _theirs(texts: list[str]) -> None:
    from datasketch import MinHash

    for text in texts:
        hashes = (shingles([text], 5)[0] >> np.uint64(32)).tolist()
        MinHash(num_perm=128, hashfunc=lambda value: value).update_batch(hashes)


def _growth() -> Iterator[str]:
    yield "## Ten and thirty times the records\n"
    rows = []
    for number in (20_000, 200_000, 600_000):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--find", folder, str(number)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
        told = json.loads(done.stdout)
        rows.append((f"{number:,}", *(told[name] for name in ("collect", "find", "memory", "exact", "near"))))
    yield _table(("texts", "collecting, s", "finding, s", "greatest memory, MB", "exact", "near"), rows)
    yield "A tenth of the texts repeats another exactly, a tenth nearly; ten folders. Memory is of the whole process.\n"


def _compare(folder: Path, number: int) -> dict[str, object]:
    import resource

    rng = np.random.default_rng(number)
    words = np.asarray([f"w{place}" for place in range(50_000)])
    started = time.process_time()
    folders, earlier, config = [], "", DuplicatesConfig()
    for part in range(10):
        folders.append(folder / str(part))
        folders[-1].mkdir()
        with Keys(config) as keys:
            for place in range(number // 10):
                chosen = words[rng.integers(0, len(words), 80)]
                text = {3: earlier, 7: f"{earlier} w1"}.get(place % 10) or " ".join(chosen)
                earlier = text
                keys.add(sha256(text.encode()).digest()[:16], text)
            keys.save(folders[-1])
    collected = time.process_time()
    (folder / "work").mkdir()
    found = find(folders, config=config, workdir=folder / "work")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {
        "collect": f"{collected - started:.1f}",
        "find": f"{time.process_time() - collected:.1f}",
        "memory": f"{memory:.0f}",
        "exact": found.exact,
        "near": found.near,
    }


if __name__ == "__main__":
    main()
