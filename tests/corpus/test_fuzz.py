"""Whatever bytes a file holds: records, rejects or one SourceError come out, and nothing else."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.modality import Record, SourceError, modality

SEEDS = {
    "a.csv": b'smiles,label\nCCO,1\n"C,C",0\n',
    "a.tsv": "이름\tsmiles\n환자\tCCO\n".encode("cp949"),
    "a.jsonl": b'{"smiles": "CCO", "en": "a", "ko": "\\ud55c"}\n',
    "a.json": b'{"1": {"smiles": "CCO", "en": "a", "ko": "\\ud55c"}}',
    "a.smi": b"CCO name\n[Na+].[Cl-] salt\n",
    "a.sdf": b"\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0 0.0 0.0 C   0  0\nM  END\n> <a>\n1\n\n$$$$\n",
    "a.fasta": b">P1 first\nMKTAYI\n>P2\nMK--kt*\n",
    "a.md": "# Fever\n\n열이 난다.\n".encode(),
    "a.xml": b"<ICD10CM.tabular><diag><name>A00</name><desc>Cholera</desc></diag></ICD10CM.tabular>",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "trial": {"study": "T", "fields": {"s": "smiles"}, "outcome": {"o": "label"}},
}
PAIRS = [
    *(("molecule", name) for name in ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.smi", "a.sdf")),
    *(("protein", "a.fasta"), ("trial", "a.csv"), ("text", "a.jsonl"), ("text", "a.md"), ("text", "a.xml")),
]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut out, put in or changed in a good file; or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    start = draw(st.integers(0, len(content)))
    stop = draw(st.integers(start, min(len(content), start + 4)))
    return content[:start] + draw(st.binary(max_size=6)) + content[stop:]


@pytest.mark.parametrize(("name", "file"), PAIRS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_bytes_never_raise_anything_else(name: str, file: str, data: st.DataObject) -> None:
    reader = modality(name)
    options = reader.Options.model_validate(OPTIONS.get(name, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(data.draw(damaged(SEEDS[file])))
        with contextlib.suppress(SourceError):
            for item in reader.read(path, options):
                if isinstance(item, Record):
                    assert reader.parse(reader.render(item.content)) == item.content
                    assert item.group.encode()
