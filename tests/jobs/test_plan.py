"""The plan stage: what it reports for a laptop and for 256 GPUs, and what it refuses."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs._journal import Journal
from jobs._stage import Context, Progress, Stage, StageConfig
from jobs.plan import PlanConfig, run
from jobs.pretrain import PretrainConfig
from parallelism.cost.devices import DEVICES
from slurm.files import read_json, sha256_file, write_json
from slurm.site import Site

LAPTOP = Site(description="a laptop", executor="local", nodes=1, tasks_per_node=4, mem_gb=16, timeout_min=60)
DEMO = {
    "model": "demo",
    "precision": "fp32",
    "seq_length": 256,
    "global_batch_size": 32,
    "micro_batch_size": 8,
    "train_iters": 200,
    "lr": 1e-3,
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2,
    "resources": {"tasks_per_node": 4},
}
BIG = {
    "model": "dense_32b",
    "seq_length": 4096,
    "global_batch_size": 256,
    "train_iters": 1000,
    "lr": 1e-4,
    "tensor_model_parallel_size": 8,
    "pipeline_model_parallel_size": 4,
    "sequence_parallel": True,
    "resources": {"nodes": 32, "tasks_per_node": 8, "gpus_per_node": 8},
}


def stage(root: Path, section: Mapping[str, Any], *, vocab_size: int = 152_064) -> Stage:
    streams = {"text.en": {"train": {"tokens": 1_000_000}}}
    manifest = {"vocab_size": vocab_size, "mixture": {"text.en": 1.0}, "phases": {}, "streams": streams}
    write_json(root / "tokenize" / "manifest.json", manifest)
    sections: dict[str, StageConfig] = {"pretrain": PretrainConfig.model_validate(section)}
    return Stage(
        name="plan",
        run="test",
        site=LAPTOP,
        folder=root / "plan",
        root=root,
        parents={},
        sections=sections,
        journal=Journal(root / "plan" / "journal.jsonl"),
        progress=Progress(path=root / "plan" / "progress.json"),
        seed=0,
    )


def test_a_laptop_has_memory_and_no_promise_of_speed(tmp_path: Path) -> None:
    outcome = run(PlanConfig(), stage(tmp_path, DEMO, vocab_size=2816))
    assert outcome.metrics["parameters"] == 786_432 + 2 * 2816 * 128 + 9 * 128
    assert outcome.metrics["bubble_fraction"] == pytest.approx(1 / 5)
    assert "step_time_s" not in outcome.metrics
    details = outcome.details
    assert details["computed"] == {"data_parallel_size": 1, "num_microbatches": 4, "bubble_fraction": 1 / 5}
    assert details["memory_gib"] == pytest.approx(16e9 / 2**30 / 4)
    assert details["time_s"] == "measured at run time"
    assert details["assumptions"][1].startswith("Speed: measured at run time")
    assert [row["stage"] for row in details["stages"]] == [0, 1]
    assert details["epochs"] == pytest.approx({"text.en": 200 * 32 * 256 / 1_000_000})
    assert len(details["alternatives"]) == 10
    assert details["alternatives"][0]["slower_than_best"] == 1
    assert details["alternatives"][0]["peak_gib"] == pytest.approx(
        details["chosen"]["stages"][0]["total_gib"], abs=1e-6
    )
    peaks = [row["peak_gib"] for row in details["front"]]
    assert peaks == sorted(set(peaks), reverse=True), "what is rounded away makes the front fold back on itself"
    assert details["kernels"][0].startswith("optimizer: ")
    assert details["chosen"]["layout"]["name"] == "TP1 PP1 DP4 MBS1"
    assert details["fits"]
    assert details["campaign"] == {}
    assert read_json(tmp_path / "plan" / "plan.json") == json.loads(json.dumps(details))
    assert (tmp_path / "plan" / "plan.html").read_text().count("<figure") == 3  # no time can be told
    assert (tmp_path / "plan" / "plan.png").is_file()
    assert outcome.outputs == {"plan.json": sha256_file(tmp_path / "plan" / "plan.json")}


def test_a_big_job_has_time_traffic_and_refusals(tmp_path: Path) -> None:
    outcome = run(PlanConfig(gpu="h100", alternatives=5), stage(tmp_path, BIG))
    metrics, details = outcome.metrics, outcome.details
    assert metrics["flops_per_step"] == pytest.approx(256 * 4096 * 2.0e11, rel=0.001)
    assert 0.3 < metrics["mfu"] < 0.6
    assert details["mfu"] == metrics["mfu"]
    assert metrics["tokens_per_day"] == pytest.approx(256 * 4096 * 86_400 / metrics["step_time_s"])
    assert metrics["gpu_hours"] == pytest.approx(1000 * metrics["step_time_s"] * 256 / 3600)
    assert sum(details["time_s"][name] for name in details["time_s"] if name != "step") == pytest.approx(
        details["time_s"]["step"]
    )
    assert {row["group"] for row in details["traffic"]} == {"tensor", "pipeline", "data"}
    times = [row["step_time_s"] for row in details["alternatives"]]
    assert times == sorted(times)
    assert len(times) == 5
    reasons = [row["reason"] for row in details["refused"]]
    assert any(reason.startswith("must fit into 73.1 GiB of a rank") for reason in reasons)
    assert all(row["count"] > 0 and row["example"].startswith("TP") for row in details["refused"])
    assert details["tried"] > details["fitting"] > 5
    assert details["chosen"]["time_s"]["step"] <= metrics["step_time_s"]
    assert details["front"][0]["slower_than_best"] == 1
    assert len(details["passes"]) == 4
    assert set(details["campaign"]) >= {"steps", "days", "GPU-hours", "energy", "failures", "best save_interval"}
    assert details["campaign"]["steps"] == ["1,000"] * 2
    assert not any("finish" in name for name in details["campaign"]), "a stage's result must not depend on the day"
    assert 0.9 < metrics["campaign/goodput"] < 1
    assert metrics["campaign/gpu_hours"] == pytest.approx(metrics["gpu_hours"] / metrics["campaign/goodput"])
    energy = metrics["campaign/gpu_hours"] * 700 * 1.3 / 1e6
    assert metrics["campaign/energy_mwh"] == pytest.approx(energy)


def test_what_fits_by_less_than_the_models_error_is_warned_of(tmp_path: Path) -> None:
    roomy = run(PlanConfig(gpu="h100"), stage(tmp_path, BIG))
    assert roomy.details["warnings"] == []
    tight = roomy.metrics["peak_gib"] / 0.98 + 6
    (warning,) = run(PlanConfig(gpu="h100", memory_gib=tight), stage(tmp_path, BIG)).details["warnings"]
    assert warning == (
        "the fullest rank leaves 2.0% of its room, where the memory model may err by 5%; "
        "use a smaller micro_batch_size, recomputation or more parallel ranks"
    )


def test_what_runs_on_another_machine_depends_on_what_is_there(tmp_path: Path) -> None:
    slurm = Site(description="a cluster", executor="slurm", nodes=32, tasks_per_node=8, mem_gb=2000, timeout_min=600)
    outcome = run(PlanConfig(gpu="h100"), replace(stage(tmp_path, BIG), site=slurm))
    assert outcome.details["kernels"][0] == (
        "optimizer: TransformerEngine FusedAdam where transformer_engine is importable, apex FusedAdam where apex is "
        "importable, else torch AdamW; known when the job starts."
    )
    assert all(line.endswith(").") for line in outcome.details["kernels"][1:])


def test_fp32_on_a_gpu_promises_no_speed(tmp_path: Path) -> None:
    outcome = run(PlanConfig(gpu="h200"), stage(tmp_path, {**BIG, "precision": "fp32"}))
    assert outcome.details["time_s"] == "measured at run time"
    assert outcome.details["alternatives"][0]["step_time_s"] is None


def test_what_does_not_fit_is_refused_with_the_nearest_that_do(tmp_path: Path) -> None:
    section = {**BIG, "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 1, "micro_batch_size": 2}
    must = (
        r"^pretrain's layout TP2 PP1 DP128 MBS2 must fit into 39\.4 GiB a rank less 6\.0 GiB reserve, but needs, "
        r"in GiB: stage 0 \d+\.\d; use TP\d.* \(\d+\.\d GiB\); or TP\d.* \(\d+\.\d GiB\); or TP\d.* \(\d+\.\d GiB\)$"
    )
    with pytest.raises(ValueError, match=must):
        run(PlanConfig(gpu="a100_40gb"), stage(tmp_path, section))
    assert (tmp_path / "plan" / "plan.json").is_file()  # People look at the table then.


def test_what_fits_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"; use more GPUs, larger ones or a smaller model$"):
        run(PlanConfig(gpu="tiny", memory_gib=7, peak_tflops=10), stage(tmp_path, BIG))


def test_a_layout_that_cannot_be_is_refused_with_every_reason(tmp_path: Path) -> None:
    section = {**BIG, "tensor_model_parallel_size": 3, "pipeline_model_parallel_size": 5}
    with pytest.raises(ValueError, match=r"^pretrain's layout must be possible, but:\n") as caught:
        run(PlanConfig(gpu="h100"), stage(tmp_path, section))
    assert "tensor_model_parallel_size 3 must divide num_query_groups 8; use 1, 2, 4 or 8" in str(caught.value)
    assert "pipeline_model_parallel_size 5 must divide num_layers 64; use 1, 2, 4, 8 or 16" in str(caught.value)


def test_a_device_must_be_known_or_described() -> None:
    assert _problems(PlanConfig(), DEMO) == []
    assert _problems(PlanConfig(gpu="h100"), BIG) == []
    assert _problems(PlanConfig(gpu="mi300x", memory_gib=190, peak_tflops=1300), BIG) == []
    (unknown,) = _problems(PlanConfig(gpu="h10"), BIG)
    assert unknown == (
        f"gpu: must be cpu, {', '.join(DEVICES)}, but is 'h10'; choose one, or give memory_gib and peak_tflops too"
    )
    (missing,) = _problems(PlanConfig(), BIG)
    assert missing == (
        f"gpu: must name the GPU, as pretrain asks for 8 a node, but is 'cpu'; choose one of {', '.join(DEVICES)}"
    )


def test_something_of_a_device_must_be_left() -> None:
    assert _problems(PlanConfig(gpu="h100", reserve_gib=79), BIG) == []
    (line,) = _problems(PlanConfig(gpu="h100", reserve_gib=80), BIG)
    assert line == "reserve_gib: must be below the device's 79.1 GiB, but is 80; reserve less"


def _problems(config: PlanConfig, section: Mapping[str, Any]) -> list[str]:
    sections: dict[str, StageConfig] = {"pretrain": PretrainConfig.model_validate(section)}
    return list(config.problems(Context(sections=sections, root=Path())))


def test_a_plan_may_rehearse_what_it_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    outcome = run(PlanConfig(rehearse=True), stage(tmp_path, DEMO, vocab_size=2816))
    seen = read_json(tmp_path / "plan" / "plan.json")["rehearsal"]["stages"]
    assert [item["parameters"] for item in seen] == [row["parameters"] for row in outcome.details["stages"]]
    assert outcome.metrics["rehearsed_peak_gib"] == max(item["peak_bytes"] for item in seen) / 2**30
    assert abs(outcome.metrics["planner_difference"]) < 0.05  # of a toy, whose small tensors count
