"""Documents of the real files in ../shared/data, repeated with variation up to a size, as JSON lines and as records."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs._run import ROOT

DATA = ROOT.parent / "shared" / "data"
FILES = {
    "en": (
        "literature_qa/evidence_inference_dev_articles.jsonl",
        "literature_qa/medquad_5_NIDDK_QA.jsonl",
        "literature_qa/medmcqa_dev_part.jsonl",
        "literature_qa/pubmedqa_pqal_dev.json",
    ),
    "ko": ("ko_en/ntrex_en_ko_dev.jsonl", "ko_en/covid19_scenarios_ko.json"),
}
_NEW_WORDS = 0.01  # of a copy: about what another 4 MB of text bring


def texts(language: str, *files: str) -> list[str]:
    """Returns the texts of a language, one an item of the files, or of all that hold some."""
    found = [
        text for name in files or FILES[language] for item in _items(DATA / name) for text in [_text(item, language)]
    ]
    return [text for text in found if text]


def documents(size: int, *, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yields (language, text) up to `size` bytes; in each copy one word of a hundred is spelt anew."""
    base = [(language, text) for language in FILES for text in texts(language)]
    rng, written = random.Random(seed), 0
    while True:
        for language, text in base:
            if written >= size:
                return
            varied = " ".join(_new(word, rng) if rng.random() < _NEW_WORDS else word for word in text.split(" "))
            written += len(varied.encode())
            yield language, varied


def write(folder: Path, size: int, *, only_records: bool = False) -> dict[str, int]:
    """Writes records, and the same texts to text.jsonl and, for two workers, halves/; returns what there is."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    (folder / "halves").mkdir(exist_ok=True)
    counts = {"documents": 0, "bytes": 0}
    names = ["text.jsonl", "halves/0.jsonl", "halves/1.jsonl"]
    names += [f"records/text.{language}.{split}.jsonl" for language in FILES for split in ("train", "valid")]
    files = {name: (folder / name).open("w") for name in names}
    for number, (language, text) in enumerate(documents(size)):
        line = json.dumps({"text": text, "id": str(number)}, ensure_ascii=False) + "\n"
        for name in () if only_records else ("text.jsonl", f"halves/{number % 2}.jsonl"):
            files[name].write(line)
        files[f"records/text.{language}.train.jsonl"].write(
            json.dumps(_record(text, language), ensure_ascii=False) + "\n"
        )
        counts["documents"] += 1
        counts["bytes"] += len(text.encode())
    for file in files.values():
        file.close()
    return counts


def _record(text: str, language: str) -> dict[str, Any]:
    named = hashlib.sha256(text.encode()).hexdigest()
    return {
        "id": named[:24],
        "modality": "text",
        "scale": "L1",
        "stream": f"text.{language}",
        "source": "shared",
        "license": "CC0-1.0",
        "group": named,
        "language": language,
        "digest": named,
        "ids": [],
        "content": {"text": text},
    }


def _items(path: Path) -> list[Any]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    found = json.loads(path.read_text())
    return list(found.values()) if path.name.startswith("pubmedqa") else [found]


def _text(item: Any, language: str) -> str:
    given = item[language] if isinstance(item, dict) and language in item else item
    return "\n".join(_strings(given)).replace("<|", "< |").strip()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _new(word: str, rng: random.Random) -> str:
    return "".join(rng.sample(word, len(word)))
