"""Reading a source in a test, and where real data lies."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import Note, Record, Reject, modality

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that a modality yielded."""

    records: list[Record] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def codes(self) -> list[str]:
        return [item.code for item in self.rejects]


@pytest.fixture
def read() -> Callable[..., Found]:
    """Reads a file with a modality and its options, and checks that every record comes back from its text."""

    def read(name: str, path: Path, **options: Any) -> Found:
        reader, found = modality(name), Found()
        for item in reader.read(path, reader.Options.model_validate(options)):
            if isinstance(item, Record):
                found.records.append(item)
                assert reader.parse(reader.render(item.content)) == item.content
            elif isinstance(item, Reject):
                found.rejects.append(item)
            else:
                found.notes.append(item)
        return found

    return read


@pytest.fixture
def real() -> Callable[[str], Path]:
    """Finds a file of real data; without it the test is skipped here, and fails where CI=true."""

    def real(path: str) -> Path:
        found = (ROOT / path).resolve()
        if not found.exists():
            told = f"{path} must be there, but is not; run make demo-data, or put the shared data beside the repository"
            if os.environ.get("CI") == "true":
                pytest.fail(told)
            pytest.skip(told)
        return found

    return real


@pytest.fixture(scope="session")
def write_records() -> Callable[..., None]:
    """Returns a function that writes texts as prepare writes records: (text, pair) of a stream and split."""

    def write(
        folder: Path, stream: str, split: str, texts: Iterable[tuple[str, str | None]], source: str = "s"
    ) -> None:
        file = folder / "records" / f"{stream}.{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        told = {"modality": "text", "scale": "L1", "stream": stream, "source": f"of {stream}", "license": "MIT"}
        told |= {"language": stream.partition(".")[2]}
        lines = [
            {
                **told,
                "id": hashlib.sha256(f"{stream}/{split}/{number}".encode()).hexdigest()[:24],
                "content": {"text": text},
                **({} if pair is None else {"pair": pair}),
            }
            for number, (text, pair) in enumerate(texts)
        ]
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    return write
