"""`python -m jobs plan <run>`: what a person sees, with which vocabulary, and how it ends."""

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import __main__ as cli
from jobs._plan_view import SECTIONS, vocabulary
from jobs._run import ROOT, load
from slurm.files import read_json, write_json

RUN: dict[str, Any] = {
    "tokenize": {"vocab_size": 151_552},
    "deadline": date(2099, 12, 31),
    "plan": {"gpu": "h100", "alternatives": 3},
    "pretrain": {
        "model": "dense_7b",
        "seq_length": 4096,
        "global_batch_size": 128,
        "train_iters": 1000,
        "lr": 1e-4,
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 4,
        "sequence_parallel": True,
        "resources": {"nodes": 8, "tasks_per_node": 8, "gpus_per_node": 8},
    },
}


def _plan(folder: Path, **pretrain: Any) -> int:
    run = {**RUN, "pretrain": {**RUN["pretrain"], **pretrain}}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(run))
    return cli.main(["plan", str(path), "--site", "b200-cloud", "--results", str(folder / "results")])


def test_a_plan_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(tmp_path) == 0
    shown = capsys.readouterr().out
    for words in (
        "mine at b200-cloud (32 nodes x 8 NVIDIA B200): dense_7b, 151,552 tokens, as tokenize asks for",
        "The planner chose ",
        "a step   MFU  waiting",
        "run's own  TP2 PP4 DP8 MBS1",
        "memory: TP2 PP4 DP8 MBS1",
        "stage 3",
        "time of a step",
        "tensor parallel",
        "finish, if started now",
        "in time for 2099-12-31  with a probability of 100 %",
        "layouts that fit: ",
        "layouts refused",
        "optimizer: TransformerEngine FusedAdam where transformer_engine is importable",
        "FLOPs: matmuls only",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines()[:40])) <= 120
    written = tmp_path / "results" / "mine" / "planned" / "b200-cloud"
    assert f"page: {written}.html" in shown
    assert f"picture: {written}.png" in shown
    assert written.with_suffix(".png").is_file()
    assert "Plan of mine" in written.with_suffix(".html").read_text()
    assert read_json(written.with_suffix(".json"))["layout"]["name"] == "TP2 PP4 DP8 MBS1"


def test_a_layout_that_does_not_fit_is_shown_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1, "sequence_parallel": False}
    assert _plan(tmp_path, **sizes, micro_batch_size=2) == 2
    told = capsys.readouterr()
    assert "on the fullest rank; the run's layout does not fit." in told.out.replace("\n", " ")
    assert told.err.startswith("pretrain's layout TP1 PP1 DP64 MBS2 must fit into 79.1 GiB a rank less 6.0 GiB reserve")


def test_a_layout_that_cannot_be_is_refused_before_all_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(tmp_path, tensor_model_parallel_size=3) == 2
    assert "tensor_model_parallel_size 3 must divide num_query_groups 8; use 1, 2, 4 or 8" in capsys.readouterr().err


def test_the_vocabulary_is_the_tokenizers_else_as_asked_for_else_the_models(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RUN))
    run, _ = load(str(path), "b200-cloud", only=SECTIONS)
    assert vocabulary(run, results=tmp_path) == (151_552, "151,552 tokens, as tokenize asks for")
    path.write_text(yaml.safe_dump({**RUN, "tokenize": {"tokenizer": str(tmp_path)}}))
    run, _ = load(str(path), "b200-cloud", only=SECTIONS)
    told = "32,768 tokens, as the model that its size is taken from"
    assert vocabulary(run, results=tmp_path) == (32_768, told)
    write_json(tmp_path / "mine" / "tokenize" / "manifest.json", {"vocab_size": 512})
    assert vocabulary(run, results=tmp_path) == (512, "the tokenizer's 512 tokens")


def test_a_plan_needs_no_data_and_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
from jobs.__main__ import main
status = main(["plan", "dense_32b", "--site", "b200-cloud", "--results", {str(tmp_path)!r}])
print("heavy:", *[name for name in ("torch", "ray", "mlflow", "megatron", "transformers") if name in sys.modules])
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env={})
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_without_a_name_the_plan_of_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--run", "demo", "--site", "laptop", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("demo at laptop (")
    assert "time of a step" not in shown  # measured at run time
    assert "Speed: measured at run time" in shown


def test_with_records_to_stand_on_the_stage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, str]] = []
    monkeypatch.setattr("jobs._submit.ensure", lambda stage, run, **_: started.append((run.name, stage)))
    options = ["--site", "laptop", "--results", str(tmp_path)]
    records = ["--after", str(tmp_path / "tokenize" / "record.json")]
    assert cli.main(["plan", "--run", "demo", *options, *records]) == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text((ROOT / "workflows" / "runs" / "demo.yaml").read_text())
    assert cli.main(["plan", str(mine), *options, *records]) == 0
    assert started == [("demo", "plan"), ("mine", "plan")]
