"""rehearse: the command, what it writes beside the plan, and what the plan makes of it."""

from pathlib import Path
from typing import cast

import pytest

from jobs.__main__ import main
from jobs._rehearsal import NAME, figures_of, recorded, require_room
from jobs._run import load
from jobs.pretrain import PretrainConfig
from slurm.files import read_json

GIB = 2**30


def test_the_command_shows_every_rank_and_keeps_the_rehearsal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["rehearse", "demo", "--results", str(tmp_path), "--ranks"]) == 0
    printed = capsys.readouterr()
    assert "TP2 PP2 DP1 MBS8 on 4 ranks" in printed.out
    assert "kernels of a CPU" in printed.out
    rows = [line.split() for line in printed.out.splitlines() if "," in line and line.split()[0] in "0123"]
    assert [row[1] for row in rows if len(row) == 7] == ["0", "0", "1", "1"]
    assert "2 of 2 stages" in printed.err
    folder = tmp_path / "demo" / "plan"
    stages = read_json(folder / NAME)["stages"]
    assert [stage["ranks"] for stage in stages] == [[0, 1], [2, 3]]
    assert all(stage["planned"]["stage_parameters"] == stage["parameters"] for stage in stages)
    assert all(abs(stage["difference"]) < 0.05 for stage in stages)
    assert not any(stage["not_seen"] for stage in stages)
    run, _ = load("demo", "laptop")
    section = cast(PretrainConfig, run.sections["pretrain"])
    assert recorded(folder, section, vocab_size=2816) is not None
    assert recorded(folder, section, vocab_size=2817) is None  # of another model
    assert recorded(tmp_path, section, vocab_size=2816) is None


def test_a_layout_that_cannot_be_is_not_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "uneven.yaml"
    path.write_text("base: demo\ntokenize: {vocab_size: 200}\npretrain: {model: smollm2_135m}\n")
    assert main(["rehearse", str(path), "--results", str(tmp_path)]) == 2
    assert "tensor_model_parallel_size 2 must divide num_attention_heads 9" in capsys.readouterr().err


def test_somebody_must_rehearse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", "demo", "--results", str(tmp_path), "--processes", "0"]) == 2
    assert capsys.readouterr().err == "--processes: must be at least 1, but is 0; give 1 or more\n"


def test_a_plan_is_held_to_its_rehearsal() -> None:
    stages = [
        {"stage": 0, "peak_bytes": 3 * GIB, "difference": 0.01},
        {"stage": 1, "peak_bytes": 2 * GIB, "difference": -0.02},
    ]
    assert figures_of({"stages": stages}) == {"rehearsed_peak_gib": 3.0, "planner_difference": -0.02}
    require_room({"stages": stages}, budget=3 * GIB)
    with pytest.raises(ValueError, match=r"must fit into 2.5 GiB after the reserve, but those of stage 0 had 3.0 GiB"):
        require_room({"stages": stages}, budget=2.5 * GIB)


def test_a_plan_without_a_rehearsal_says_nothing_of_it() -> None:
    require_room(None, budget=1)
    assert figures_of(None) == {}
