"""The settings of the gates: what planning refuses, and that it imports nothing heavy for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from corpus.gates.config import ACTIONS, Benchmark, DuplicatesConfig, GatesConfig, PersonalConfig


def test_benchmarks_and_sources_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMS", str(tmp_path))
    (tmp_path / "there.csv").touch()
    benchmarks = [{"name": name, "path": f"${{EXAMS}}/{name}.csv", "columns": ["q"]} for name in ("there", "gone")]
    config = GatesConfig.model_validate(
        {
            "contamination": {"benchmarks": benchmarks},
            "personal": {"sources": {"papers": {"email": "count"}, "paper": "off"}},
            "quality": {"sources": {"logs": ["no_words"]}},
        }
    )
    told = f"must be a file, but {tmp_path}/gone.csv is not there; fetch it or mend the path"
    assert list(config.problems(tmp_path, sources=["papers"])) == [
        f"contamination.benchmarks.1.path: {told}",
        "personal.sources.paper: must be the name of a source, but none has it; mend it",
        "quality.sources.logs: must be the name of a source, but none has it; mend it",
    ]
    assert config.files(tmp_path) == [tmp_path / "there.csv", tmp_path / "gone.csv"]


def test_a_benchmark_is_read_one_way() -> None:
    for more in ({}, {"modality": "text", "columns": ["q"]}):
        with pytest.raises(ValidationError, match="must be read by modality: or as a table by columns: or ids:"):
            Benchmark.model_validate({"name": "a", "path": "a.csv", **more})


def test_bands_divide_a_signature() -> None:
    with pytest.raises(ValidationError, match="bands: must divide num_perm = 128, but is 10; change one of them"):
        DuplicatesConfig(bands=10)
    assert DuplicatesConfig().compares("literature")
    assert not DuplicatesConfig().compares("trial")
    assert not DuplicatesConfig(near=False).compares("text")


def test_actions_are_those_of_the_source_then_of_the_run_then_the_defaults() -> None:
    config = PersonalConfig.model_validate(
        {"actions": {"name": "count"}, "sources": {"a": {"name": "off"}, "b": "off"}}
    )
    assert config.actions_for("a") == {**ACTIONS, "name": "off"}
    assert config.actions_for("c") == {**ACTIONS, "name": "count"}
    assert set(config.actions_for("b").values()) == {"off"}


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, corpus.gates.config, corpus.gates.licences, corpus.gates.terms, corpus.gates.spellings;"
        "print([name for name in ('numpy', 'datasketch', 'scipy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
